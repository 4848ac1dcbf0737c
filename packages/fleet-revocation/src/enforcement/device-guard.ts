// Devices at a TLS or HTTPS server of Node: judged when they connect, judged again at every request, and cut when they are revoked.
// A verdict is never remembered: a connection that was kept open and a TLS session that was resumed are asked about like new ones.
// Which devices there are, and what they may do, is the server's own business.

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Server, TLSSocket } from 'node:tls'
import type { Bytes } from '@birthmark/device-sdk/core'
import type { Clock, Log } from '../ports.ts'
import { repeat } from '../repeat.ts'
import { type CertificateStatus, type DevicePeer, deviceIdentifier } from './device-peer.ts'

/** `device_unknown`: no certificate, a stranger's, or another fleet's. `status_unknown`: nothing proves that no revocation was missed. */
export type DenialCode = 'device_unknown' | 'device_revoked' | 'device_quarantined' | 'certificate_expired' | 'status_unknown'

export interface Denial {
  code: DenialCode
  /** HTTP. 503 where asking again may help. */
  status: 401 | 403 | 503
  detail: string
}

export interface DeviceGuardOptions {
  fleet: string
  /** DER of the CAs that issue operational certificates: the issuing ones, since a resumed session shows the leaf alone. */
  issuers: Bytes[]
  /** `good` admits, `unknown` refuses and keeps what is open, anything else refuses and cuts. Asked at every request, so it must be quick. */
  status: CertificateStatus
  clock: Clock
  log: Log
}

export interface DeviceGuard {
  /** Notices the server's connections from their handshake on, so that an idle one is cut too. */
  watch(server: Server): void
  /** Null when the device at the other end may go on. Never remembered by the caller: ask again at each use. */
  denial(socket: TLSSocket): Denial | null
  /** Who was identified there; null for nobody. */
  device(socket: TLSSocket): DevicePeer | null
  /** A `secureConnection` listener that sees good devices only; the others' sockets end. */
  tls(listener: (socket: TLSSocket, device: DevicePeer) => void): (socket: TLSSocket) => void
  /** A `request` listener that sees good devices' requests only; the others get a problem document (RFC 9457) and their connection ends. */
  http(
    listener: (request: IncomingMessage, response: ServerResponse) => void,
  ): (request: IncomingMessage, response: ServerResponse) => void
  /** Ends the connections of every device that may not stay. Hand it to the relying party. */
  enforce(): Promise<{ cut: number }>
  connections(): number
  close(): void
}

interface Standing {
  device: DevicePeer | null
  reason: string
}

// Sockets destroyed before the event loop serves everybody else: ~40 ms of work.
const sliceSize = 1000
// A certificate that ran out on an idle connection is noticed this late at most.
const sweepSeconds = 60

const denied = (code: DenialCode, status: Denial['status'], detail: string): Denial => ({ code, status, detail })

function judge(status: string): Denial | null {
  if (status === 'good') return null
  if (status === 'revoked') return denied('device_revoked', 403, 'this certificate is revoked')
  if (status === 'quarantined') return denied('device_quarantined', 403, 'this device is quarantined')
  return denied('status_unknown', 503, 'revocation can not be told at the moment; ask again')
}

/** What a refused request is answered with, in RFC 9457's shape. */
export function problemOf({ code, status, detail }: Denial): {
  type: string
  title: string
  status: number
  code: DenialCode
  detail: string
} {
  return { type: 'about:blank', title: code.replaceAll('_', ' '), status, code, detail }
}

// The publisher shows a heartbeat every ten seconds or so.
export const retryAfterSeconds = 10

/** Throws `configuration_invalid` for unusable issuers. */
export function createDeviceGuard({ fleet, issuers, status, clock, log }: DeviceGuardOptions): DeviceGuard {
  const identify = deviceIdentifier(issuers, fleet)
  const standings = new WeakMap<TLSSocket, Standing>()
  const open = new Set<TLSSocket>()

  function standingOf(socket: TLSSocket): Standing {
    const known = standings.get(socket)
    if (known) return known
    // The path once a connection: the certificate can't change in it, and what can is looked at each time.
    const peer = identify(socket, clock.now())
    const standing = typeof peer === 'string' ? { device: null, reason: peer } : { device: peer, reason: '' }
    standings.set(socket, standing)
    if (standing.device && !socket.destroyed) {
      open.add(socket)
      socket.once('close', () => open.delete(socket))
    }
    return standing
  }

  function denial(socket: TLSSocket): Denial | null {
    const { device, reason } = standingOf(socket)
    if (!device) return denied('device_unknown', 401, reason)
    if (device.notAfter < clock.now()) return denied('certificate_expired', 403, 'this certificate has run out')
    return judge(status(device.membership, device.issuerKeyId))
  }

  function refuse(response: ServerResponse, problem: Denial): void {
    const body = JSON.stringify(problemOf(problem))
    if (problem.status === 503) response.setHeader('retry-after', retryAfterSeconds)
    response.writeHead(problem.status, { 'content-type': 'application/problem+json', connection: 'close' })
    response.end(body)
  }

  async function enforce(): Promise<{ cut: number }> {
    const doomed = [...open].filter(socket => (denial(socket)?.status ?? 0) === 403)
    for (const [at, socket] of doomed.entries()) {
      if (at > 0 && at % sliceSize === 0) await new Promise(resolve => setImmediate(resolve))
      socket.destroy()
    }
    if (doomed.length > 0) log.info({ cut: doomed.length }, 'connections of refused devices ended')
    return { cut: doomed.length }
  }

  const endSweeping = repeat(clock, sweepSeconds, enforce, error => log.error({ err: error }, 'sweep failed'))

  return {
    watch: server => void server.on('secureConnection', standingOf),
    denial,
    device: socket => standingOf(socket).device,
    tls: listener => socket => {
      const problem = denial(socket)
      const { device } = standingOf(socket)
      if (!problem && device) return listener(socket, device)
      log.warn({ address: socket.remoteAddress, device: device?.id, code: problem?.code }, 'connection refused')
      socket.on('error', () => {})
      socket.destroy()
    },
    http: listener => (request, response) => {
      const socket = request.socket as TLSSocket
      const problem = denial(socket)
      if (!problem) return listener(request, response)
      log.warn({ address: socket.remoteAddress, device: standingOf(socket).device?.id, code: problem.code }, 'request refused')
      refuse(response, problem)
    },
    enforce,
    connections: () => open.size,
    close: endSweeping,
  }
}
