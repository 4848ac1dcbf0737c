// What is used of Moddable's TLS (its modules `ssl/session` and `ssl/handshake`, version 8): a session that is stepped by hand, and a table of
// handshake messages, each with how it is read and how it is written. This port replaces the entries that decide whom to believe.

import type { Bytes } from '../../core/bytes.ts'
import type { ModdableCertificates } from './tls-certificates.ts'

/** The body of a handshake message that came in. Every call throws beyond its end. */
export interface TlsReader {
  readonly bytesAvailable: number
  readChar(): number
  /** Big-endian, of `count` octets. */
  readChars(count: number): number
  readChunk(count: number): ArrayBuffer
}

/** What of a session its handshake reads and writes. */
export interface TlsState {
  certificateManager: ModdableCertificates
  chosenCipher: { value: number[] }
  clientRandom: ArrayBuffer
  serverRandom: ArrayBuffer
  /** Over all messages so far; `close(true)` lets it go on. */
  handshakeDigests: { SHA256: { close(goOn: true): ArrayBuffer } }
  dhparams: { named_curve: number; dh_Ys: ArrayBuffer }
  /** What the client's Certificate message will carry. Absent: there is none. */
  clientCerts: Bytes[]
  /** Absent until the client has sent its key exchange. */
  masterSecret?: unknown
}

export interface TlsMessage {
  msgType: number
  unpacketize(session: TlsState, body: TlsReader): unknown
  packetize(session: TlsState, argument?: unknown): unknown
}

export interface TlsHandshake {
  /** Frames, digests and returns a record. */
  packetize(session: TlsState, type: number, body: { getChunk(): Bytes }): unknown
  helloRequest: TlsMessage
  clientHello: TlsMessage
  serverHello: TlsMessage
  certificate: TlsMessage
  serverKeyExchange: TlsMessage
  certificateRequest: TlsMessage
  serverHelloDone: TlsMessage
  certificateVerify: TlsMessage
  clientKeyExchange: TlsMessage
  finished: TlsMessage
}

/** ECMA-419's TCP, and two fields that Moddable's TLS keeps there. */
export interface ModdableTcp {
  readable: number
  writable: number
  close(): void
}

/** `ssl/session`. */
export interface ModdableTlsSession {
  /** The message that came last; −1 once the client has answered it. */
  handshakeProcess: number
  alert?: unknown
  /** Of a record that came, until `read` hands it out. */
  applicationData?: unknown
  initiateHandshake(): void
  /** One step; true: over, for better or worse. */
  handshake(tcp: ModdableTcp): boolean
  /** Undefined: not a whole record yet; null: the peer ended the session. */
  read(tcp: ModdableTcp): Bytes | null | undefined
  /** How many octets may follow. */
  write(tcp: ModdableTcp, data: ArrayBuffer | Bytes, options?: object): number
}

export type ModdableTlsSessions = new (options: object) => ModdableTlsSession
