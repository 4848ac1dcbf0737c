// The subscribers of the fan-out benchmark (fanout-clients.c), compiled when asked for and spoken to by lines.

import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

export interface Subscribers {
  /** Resolves with the name of the first of all. */
  connect(port: number, count: number, topics: string[]): Promise<string>
  /** The first reads no more. */
  stall(): Promise<void>
  /** Resolves when they wait for it, with the moment at which the last of `count` had the notice that ends in `mark`. */
  expect(mark: number, count: number): Promise<{ last: Promise<number> }>
  close(): Promise<void>
}

// What bounds a hang.
const secondsMax = 120

/** The program's path; `close` removes it. */
export function compileSubscribers(): { path: string; close(): void } {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-subscribers-'))
  const path = join(folder, 'subscribers')
  execFileSync('cc', ['-O2', '-pthread', '-o', path, join(import.meta.dirname, 'fanout-clients.c')])
  return { path, close: () => rmSync(folder, { recursive: true }) }
}

export function startSubscribers(program: string): Subscribers {
  const child = spawn(program, [], { stdio: ['pipe', 'pipe', 'inherit'] })
  const exited = new Promise<void>(resolve => child.once('exit', () => resolve()))
  const lines = createInterface({ input: child.stdout })

  /** The argument of the next line that begins with `word`. */
  function next(word: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const done = (): void => {
        clearTimeout(timer)
        lines.off('line', hear)
        child.off('exit', ended)
      }
      const hear = (line: string): void => {
        const [said, argument = ''] = line.split(' ')
        if (said !== word) return
        done()
        resolve(argument)
      }
      const ended = (): void => {
        done()
        reject(new Error('the subscribers ended'))
      }
      const timer = setTimeout(() => {
        done()
        reject(new Error(`the subscribers never said ${word}`))
      }, secondsMax * 1000)
      lines.on('line', hear)
      child.on('exit', ended)
    })
  }

  return {
    connect: (port, count, topics) => {
      const answer = next('connect')
      child.stdin.write(`connect ${port} ${count} ${topics.join(' ')}\n`)
      return answer
    },
    stall: async () => {
      const answer = next('stall')
      child.stdin.write('stall\n')
      await answer
    },
    expect: async (mark, count) => {
      const [ready, last] = [next('ready'), next('heard').then(Number)]
      last.catch(() => {})
      child.stdin.write(`expect ${mark} ${count}\n`)
      await ready
      return { last }
    },
    close: () => {
      child.kill()
      return exited
    },
  }
}
