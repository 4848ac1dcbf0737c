// A part of the enrollment benchmarks in a process of its own, so that its CPU time is its alone.

import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'

/** A process that answers each message with one of the same kind. Two minutes bound a hang, not a measurement. */
export function worker<To extends { kind: string }, From extends { kind: string }>(file: string) {
  const child: ChildProcess = fork(join(import.meta.dirname, file), { serialization: 'advanced' })
  return {
    ask<K extends From['kind'] & To['kind']>(message: Extract<To, { kind: K }>): Promise<Extract<From, { kind: K }>> {
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`${file}: no answer to ${message.kind}`)), 120_000)
        const done = (): void => {
          clearTimeout(timer)
          child.removeAllListeners()
        }
        child.once('message', reply => {
          done()
          resolve(reply as Extract<From, { kind: K }>)
        })
        child.once('exit', code => {
          done()
          reject(new Error(`${file} ended with ${code}`))
        })
        child.send(message)
      })
    },
    kill: () => child.kill(),
  }
}
