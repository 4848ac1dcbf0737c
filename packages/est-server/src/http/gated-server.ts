// The life of a listening server behind a gate: it listens, keeps the gate's deadlines, and stops without losing what was asked. The same for
// every way in; what happens on a socket is the way's own.

import type { AddressInfo, Server } from 'node:net'
import type { Log } from '../ports.ts'
import type { Connection, ConnectionGate } from './connection-gate.ts'

/** How often deadlines are looked at: a limit is kept to within this. */
const sweepMs = 250

export interface GatedServer {
  readonly closing: boolean
  /** To be called when a connection's socket has closed. */
  left(connection: Connection): void
  /**
   * `port` 0 takes a free one. Rejects where the address cannot be had. `shared`: other processes of this user may listen there too, and the
   * kernel spreads connections over them (SO_REUSEPORT); who else holds the port is then not noticed.
   */
  listen(host: string, port: number, options?: { shared?: boolean }): Promise<{ port: number }>
  /** Accepts nothing new, finishes what was asked within `graceMs`, then cuts. */
  close(graceMs: number): Promise<void>
}

/** `name`: for the log. */
export function createGatedServer(server: Server, gate: ConnectionGate, log: Log, name: string): GatedServer {
  let closing = false
  let drained: (() => void) | null = null
  const sweeper = setInterval(() => gate.sweep(), sweepMs)
  sweeper.unref()
  return {
    get closing() {
      return closing
    },

    left(connection) {
      gate.leave(connection)
      if (closing && gate.size === 0) drained?.()
    },

    listen(host, port, { shared = false } = {}) {
      return new Promise((resolve, reject) => {
        server.once('error', reject)
        server.listen({ port, host, reusePort: shared }, () => {
          server.off('error', reject)
          server.on('error', error => log.error({ err: error }, `${name} failed`))
          resolve({ port: (server.address() as AddressInfo).port })
        })
      })
    },

    async close(graceMs) {
      closing = true
      const closed = new Promise<void>(resolve => server.close(() => resolve()))
      const empty = new Promise<void>(resolve => {
        drained = resolve
      })
      for (const connection of [...gate.connections()])
        if (connection.phase === 'handshake' || connection.phase === 'head') connection.destroy()
      if (gate.size > 0) {
        const timer = setTimeout(() => drained?.(), graceMs)
        await empty
        clearTimeout(timer)
        for (const connection of [...gate.connections()]) connection.destroy()
      }
      clearInterval(sweeper)
      await closed
    },
  }
}
