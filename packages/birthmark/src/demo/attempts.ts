// What somebody with every key of a revoked device can try: connect, re-enroll, enroll anew, resume an old TLS session. Each attempt says
// whether it was refused, as seen from outside; nothing here knows the server's insides.

import { request as httpsRequest } from 'node:https'
import { connect, type TLSSocket } from 'node:tls'
import {
  csrAssemble,
  csrInfo,
  decodePem,
  encodePem,
  enrollRequest,
  type HttpRequest,
  parseCertificate,
} from '@birthmark/device-sdk/core'
import { generateSigningKey } from '@birthmark/factory-line'

export interface Stolen {
  serial: string
  /** PEM: operational chain and key. */
  operational: { cert: string; key: string }
  /** PEM: birth chain and key. */
  birth: { cert: string; key: string }
  /** PEM anchors of the server. */
  ca: string[]
}

export type TlsVersion = 'TLSv1.2' | 'TLSv1.3'

// Generous: a refusal takes milliseconds, and a hang must end as a failed claim rather than as a hanging demo.
const timeoutMs = 10_000
/** TLS 1.3 servers that give tickets send them right after the handshake. */
const ticketWaitMs = 250

/** HTTP status of an enrollment request over the given credentials; 0 when TLS did not come about. */
export async function enrollStatus(
  est: string,
  stolen: Stolen,
  as: 'operational' | 'birth',
  session?: Buffer,
): Promise<{ status: number; body: string }> {
  const csr = await freshRequest(stolen)
  const sent = enrollRequest(csr, { label: null, reenroll: as === 'operational', basic: null })
  return httpStatus(est, { ...stolen[as], ca: stolen.ca, ...(session ? { session } : {}) }, sent)
}

/** A CSR for the device's own name with a new key: the best that the thief can do. */
async function freshRequest(stolen: Stolen): Promise<Uint8Array> {
  const { key } = generateSigningKey()
  const [leaf] = decodePem(stolen.operational.cert, 'CERTIFICATE', 8)
  const info = csrInfo(parseCertificate(leaf).subject, key.spki, [])
  return csrAssemble(info, key.algorithm, await key.sign(info))
}

interface Credentials {
  cert: string
  key: string
  ca: string[]
  session?: Buffer
  maxVersion?: TlsVersion
}

function httpStatus(est: string, credentials: Credentials, sent: HttpRequest): Promise<{ status: number; body: string }> {
  return new Promise(resolve => {
    const request = httpsRequest(
      new URL(sent.path, est),
      { method: sent.method, headers: sent.headers, agent: false, timeout: timeoutMs, ...credentials },
      response => {
        const parts: Buffer[] = []
        response.on('data', (part: Buffer) => parts.push(part))
        response.on('error', () => resolve({ status: 0, body: '' }))
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(parts).toString('utf8') }))
      },
    )
    request.on('timeout', () => request.destroy(new Error('no answer')))
    request.on('error', () => resolve({ status: 0, body: '' }))
    request.end(sent.body ?? undefined)
  })
}

function open(url: string, credentials: Credentials): TLSSocket {
  const { hostname, port } = new URL(url)
  return connect({ host: hostname, port: Number(port), ...credentials })
}

/** The TLS session of a good connection, for later; null when the server gives none that could be resumed. */
export function savedSession(url: string, stolen: Stolen, maxVersion: TlsVersion): Promise<Buffer | null> {
  return new Promise(resolve => {
    const socket = open(url, { ...stolen.operational, ca: stolen.ca, maxVersion })
    let saved: Buffer | null = null
    socket.on('session', session => {
      saved = session
    })
    socket.on('error', () => resolve(saved))
    socket.on('secureConnect', () => {
      setTimeout(() => {
        saved ??= socket.getSession() ?? null
        socket.destroy()
        resolve(saved)
      }, ticketWaitMs)
    })
  })
}

export interface MqttVerdict {
  /** TLS resumed the saved session. */
  resumed: boolean
  /** CONNACK with return code 0. */
  accepted: boolean
}

/** MQTT 3.1.1 CONNECT with the stolen operational identity, over a saved TLS session where there is one. */
export function mqttVerdict(
  mqtt: string,
  stolen: Stolen,
  session?: Buffer,
  maxVersion: TlsVersion = 'TLSv1.3',
): Promise<MqttVerdict> {
  return new Promise(resolve => {
    const verdict: MqttVerdict = { resumed: false, accepted: false }
    const socket = open(mqtt, { ...stolen.operational, ca: stolen.ca, maxVersion, ...(session ? { session } : {}) })
    const timer = setTimeout(() => socket.destroy(), timeoutMs)
    socket.on('secureConnect', () => {
      verdict.resumed = socket.isSessionReused()
      socket.write(connectPacket(stolen.serial))
    })
    socket.on('data', (answer: Buffer) => {
      verdict.accepted = answer.length >= 4 && answer[0] === 0x20 && answer[3] === 0
      socket.destroy()
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      clearTimeout(timer)
      resolve(verdict)
    })
  })
}

/** MQTT 3.1.1 3.1: clean session, keep-alive 60 s. Ids have at most 64 bytes, so the remaining length takes one. */
function connectPacket(clientId: string): Buffer {
  const id = Buffer.from(clientId)
  const variable = Buffer.from([0, 4, 0x4d, 0x51, 0x54, 0x54, 4, 2, 0, 60, id.length >> 8, id.length & 0xff])
  return Buffer.concat([Buffer.from([0x10, variable.length + id.length]), variable, id])
}

/** Whether EST resumed the saved session, and the status of a re-enrollment over it. */
export async function estVerdict(
  est: string,
  stolen: Stolen,
  session: Buffer,
  maxVersion: TlsVersion,
): Promise<{ resumed: boolean; status: number }> {
  const resumed = await new Promise<boolean>(resolve => {
    const socket = open(est, { ...stolen.operational, ca: stolen.ca, maxVersion, session })
    socket.on('error', () => resolve(false))
    socket.on('secureConnect', () => {
      resolve(socket.isSessionReused())
      socket.destroy()
    })
  })
  const { status } = await enrollStatus(est, stolen, 'operational', session)
  return { resumed, status }
}

export function pemChain(certificates: Uint8Array[]): string {
  return certificates.map(der => encodePem('CERTIFICATE', der)).join('')
}
