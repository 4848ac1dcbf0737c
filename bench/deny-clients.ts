// The devices of the denial benchmark, in a process of their own: what they are told, and what is heard of them.

import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'
import { next } from './revoke.ts'
import type { ClientCredential, FromClients, ToClients } from './revoke-clients.ts'

/** `ca`: PEM of the anchor for the brokers' certificates. */
export function startClients(ca: string, fleet: string) {
  const child: ChildProcess = fork(join(import.meta.dirname, 'revoke-clients.ts'), {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const tell = (message: ToClients) => child.send(message)
  return {
    connect: async (port: number, credentials: ClientCredential[]): Promise<void> => {
      tell({ kind: 'connect', port, ca, fleet, credentials })
      const { count } = await next(child, 'connected')
      if (count !== credentials.length) throw new Error(`${count} of ${credentials.length} sessions came up`)
    },
    /** When each of so many sessions ended. */
    closed: (count: number): Promise<number[]> =>
      new Promise((resolve, reject) => {
        const times: number[] = []
        const timer = setTimeout(() => reject(new Error(`${times.length} of ${count} sessions were cut within 60 s`)), 60_000)
        const hear = (message: FromClients): void => {
          if (message.kind !== 'closed') return
          times.push(...message.sessions.map(({ at }) => at))
          if (times.length < count) return
          clearTimeout(timer)
          child.off('message', hear)
          resolve(times)
        }
        child.on('message', hear)
      }),
    again: async (ids: string[]): Promise<void> => {
      tell({ kind: 'again', ids })
      const { refused, attempts } = await next(child, 'refused')
      if (refused !== attempts) throw new Error(`${attempts - refused} revoked devices came in again`)
    },
    /** The device publishes one message after the other, each when the one before was acknowledged. Resolves when it has begun. */
    talk: async (id: string): Promise<void> => {
      tell({ kind: 'talk', id })
      await next(child, 'talking')
    },
    /** Resolves when a device that talks has lost its session: with the number of the message that was not acknowledged, and when. */
    silenced: async (): Promise<{ number: number; at: number }> => next(child, 'silenced'),
    end: () => void (child.connected && tell({ kind: 'end' })),
  }
}
