// A process of a benchmark that answers each message with one of the same kind.

import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'
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
