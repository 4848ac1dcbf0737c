// A process of a benchmark that answers each message with one of the same kind: over the channel that Node has to its own, or in lines of JSON
// with a program of another runtime.

import { type ChildProcess, fork, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { serverEnvironment, serverFlags } from '../packages/birthmark/src/server-process.ts'

/** `server`: run as `birthmark serve` runs. Two minutes bound a hang, not a measurement. */
export function worker<To extends { kind: string }, From extends { kind: string }>(file: string, as?: 'server') {
  const tuned = as && { execArgv: [...process.execArgv, ...serverFlags], env: serverEnvironment(process.env) }
  const child: ChildProcess = fork(join(import.meta.dirname, file), { serialization: 'advanced', ...tuned })
  return {
    ask<K extends From['kind'] & To['kind']>(message: Extract<To, { kind: K }>): Promise<Extract<From, { kind: K }>> {
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`${file}: no answer to ${message.kind}`)), 120_000)
        const told = (reply: unknown): void => {
          done()
          resolve(reply as Extract<From, { kind: K }>)
        }
        const ended = (code: number | null): void => {
          done()
          reject(new Error(`${file} ended with ${code}`))
        }
        const done = (): void => {
          clearTimeout(timer)
          child.off('message', told)
          child.off('exit', ended)
        }
        child.once('message', told)
        child.once('exit', ended)
        child.send(message)
      })
    },
    kill: (signal: NodeJS.Signals = 'SIGTERM') => child.kill(signal),
    exited: new Promise<void>(resolve => child.once('close', () => resolve())),
  }
}

/** The other side. `answer` throws to end the process. */
export function answering<To, From>(answer: (message: To) => Promise<From>): void {
  process.on('message', (message: To) => {
    void answer(message).then(reply => process.send?.(reply))
  })
  process.on('disconnect', () => process.exit(0))
}

/** `program` runs `file`, whose answers are believed to be what the caller says. */
export function lineWorker<To>(program: string, args: string[], file: string, env = process.env) {
  const child = spawn(program, [...args, join(import.meta.dirname, file)], { stdio: ['pipe', 'pipe', 'inherit'], env })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return {
    async ask<T = unknown>(message: To): Promise<T> {
      child.stdin.write(`${JSON.stringify(message)}\n`)
      const { value, done } = await lines.next()
      if (done) throw new Error(`${file} ended on ${program}`)
      return JSON.parse(value) as T
    },
    kill: () => child.kill(),
  }
}

/** The other side of that. Ends the process after the answer to `stop`. */
export async function answeringLines<To extends { kind: string }>(answer: (message: To) => Promise<object>): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) {
    const message = JSON.parse(line) as To
    process.stdout.write(`${JSON.stringify(await answer(message))}\n`)
    if (message.kind === 'stop') break
  }
  process.exit(0)
}
