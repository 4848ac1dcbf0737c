// The `birthmark` command as its users run it: a process with arguments, an exit code and two streams.

import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const flags = ['--conditions=source', '--disable-warning=ExperimentalWarning']
const bin = fileURLToPath(new URL('../../packages/birthmark/src/birthmark.ts', import.meta.url))
const demo = fileURLToPath(new URL('../../packages/birthmark/src/demo.ts', import.meta.url))

export interface Outcome {
  code: number | null
  stdout: string
  stderr: string
  /** The JSON objects on stdout, one a line. */
  json: Record<string, unknown>[]
}

export interface Program {
  child: ChildProcess
  /** The first JSON object on stdout that `wanted` accepts; rejects when the program ends before. */
  said(wanted: (line: Record<string, unknown>) => boolean): Promise<Record<string, unknown>>
  ended: Promise<Outcome>
  stop(signal?: NodeJS.Signals): Promise<Outcome>
}

function start(script: string, args: string[], env: Record<string, string> = {}): Program {
  // Variables of whoever runs the tests would change what the command prints and where it looks.
  const { BIRTHMARK_STATE: _state, npm_lifecycle_event: _event, FORCE_COLOR: _colour, ...rest } = process.env
  const child = spawn(process.execPath, [...flags, script, ...args], {
    env: { ...rest, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  const listeners = new Set<() => void>()
  child.stdout.on('data', (part: Buffer) => {
    stdout += part.toString()
    for (const listener of listeners) listener()
  })
  child.stderr.on('data', (part: Buffer) => {
    stderr += part.toString()
  })
  const jsonOf = (text: string): Record<string, unknown>[] =>
    text
      .slice(0, text.lastIndexOf('\n') + 1)
      .split('\n')
      .filter(line => line.startsWith('{'))
      .map(line => JSON.parse(line) as Record<string, unknown>)
  const ended = new Promise<Outcome>(resolve => {
    child.once('close', code => resolve({ code, stdout, stderr, json: jsonOf(stdout) }))
  })
  return {
    child,
    ended,
    said: wanted =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const line = jsonOf(stdout).find(wanted)
          if (!line) return
          listeners.delete(look)
          resolve(line)
        }
        listeners.add(look)
        ended.then(({ code }) => reject(new Error(`ended (${code}) without saying it:\n${stdout}\n${stderr}`)))
        look()
      }),
    stop(signal = 'SIGINT') {
      child.kill(signal)
      return ended
    },
  }
}

/** Starts `birthmark` and lets it run. */
export function birthmarkProgram(...args: string[]): Program {
  return start(bin, args)
}

/** Runs `birthmark` to its end. */
export function birthmark(...args: string[]): Promise<Outcome> {
  return start(bin, args).ended
}

export function runDemo(...args: string[]): Promise<Outcome> {
  return start(demo, args).ended
}

/** `birthmark dev` on free ports, once it says that it is ready. */
export async function development(folder: string, ...args: string[]): Promise<Program & { est: string; mqtt: string }> {
  const program = birthmarkProgram('dev', '--dir', folder, '--est-port', '0', '--mqtt-port', '0', '--json', ...args)
  const ready = await program.said(line => line.ready === true)
  return { ...program, est: String(ready.est), mqtt: String(ready.mqtt) }
}
