// Starts programs of this folder under Bun and talks to them in lines of JSON.

import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url))

/** Bun comes as an optional package, for these machines alone. */
const packages: Partial<Record<string, string>> = { x64: 'bun-linux-x64', arm64: 'bun-linux-aarch64' }

/** The program, or null where no package brings it, which is said aloud; in CI that throws. */
export function findBun(): string | null {
  const program = here(`../../node_modules/@oven/${packages[process.arch] ?? 'none'}/bin/bun`)
  if (process.platform === 'linux' && existsSync(program)) return program
  const sentence = `no package brings Bun to ${process.platform}-${process.arch}, or it is not installed`
  if (process.env.CI) throw new Error(sentence)
  process.stderr.write(`Left out: ${sentence}\n`)
  return null
}

export interface Program {
  /** Writes a line and reads one. One at a time. */
  ask(line: string): Promise<unknown>
  /** Ends its input and waits for its end; the exit code. */
  stop(): Promise<number | null>
}

export function startUnderBun(bun: string, file: string): Program {
  const child = spawn(bun, ['--conditions=source', here(file)], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = new Promise<number | null>((resolve, reject) => child.once('exit', resolve).once('error', reject))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  // A program that ended is told by the missing answer.
  child.stdin.on('error', () => {})
  return {
    async ask(line) {
      child.stdin.write(`${line}\n`)
      const { value, done } = await lines.next()
      if (done) throw new Error(`${file} ended with ${await ended}`)
      return JSON.parse(value)
    },
    stop() {
      child.stdin.end()
      return ended
    },
  }
}
