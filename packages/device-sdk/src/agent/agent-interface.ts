// What goes into an agent and what comes out of it: ports, settings, status, events. Types only; they weigh nothing on a device.

import type { Bytes } from '../core/bytes.ts'
import type { DeviceError } from '../core/errors.ts'
import type { BasicSecret } from '../core/est-request.ts'
import type { Identity } from './identity-slots.ts'
import type { Clock, Hash, Http, KeyStore, Rng, Store, Verify } from './ports.ts'
import type { renewalTime } from './schedule.ts'

export interface AgentPorts {
  hash: Hash
  verify: Verify
  keys: KeyStore
  rng: Rng
  store: Store
  http: Http
  clock: Clock
}

export interface AgentSettings {
  label: string | null
  /** DER. Whom our own birth certificate must chain to; empty: whatever its stored chain ends in. Its form and key are checked either way. */
  birthAnchors: Bytes[]
  /** DER. Whom an issued certificate must chain to; empty: what /cacerts says, each time, over authenticated TLS (RFC 7030 4.1.3). */
  operationalAnchors: Bytes[]
  /** Answers a 401 once. `user` is the device id. */
  secret: BasicSecret | null
  /** DER Name to ask for with the secret, such as `encodeDeviceName(secret.user)`. A certificate that is shown gives its own name. */
  name: Bytes
  /** Signature algorithms accepted in a path. */
  algorithms: string[]
  /** Seconds since 1970 that have surely passed: the firmware's build. An earlier clock is not trusted. */
  timeFloor: number
  /**
   * Proves a new identity before the old one is let go; null: /cacerts over mutual TLS with it. Answering `est_refused`,
   * `est_unauthorized` or `key_unavailable` throws it away; with any other error it is proven again later.
   */
  prove: ((identity: Identity, done: (error: DeviceError | null) => void) => void) | null
  /** When to renew, in place of `renewalTime` and with its arguments: for a port that knows what the server asked for. */
  renewAt?: typeof renewalTime
}

export type AgentState = 'unenrolled' | 'enrolling' | 'active' | 'renewing' | 'expired' | 'revoked'

export interface AgentStatus {
  state: AgentState
  /** '' until a certificate told. */
  deviceId: string
  /** 0 without an operational identity. */
  generation: number
  /** Seconds since 1970; 0 without an operational identity. */
  notAfter: number
  renewAt: number
  /** Whether the clock is believed. Otherwise a lower bound stands in for it, and renewal counts from the last one. */
  timeTrusted: boolean
  lastError: DeviceError | null
}

export interface AgentEvents {
  /** The birth certificate was checked; the device id. */
  birth: string
  /** A request for this identity goes out. The same generation again: it was recorded by an earlier attempt. */
  request: Identity
  /** Its certificate was validated and stored; it is not in use yet. */
  issued: Identity
  /** It is proven and in use from now on. */
  active: Identity
  /** It was refused when it was to prove itself, and thrown away. */
  dropped: Identity
  /** An attempt ended; nothing about the identity in use has changed. */
  failed: DeviceError
  /** Who said so: `notice` or `server`. */
  revoked: string
  /** Seconds until the next attempt or look at the clock. */
  scheduled: number
}

export type OnEvent = <T extends keyof AgentEvents>(type: T, value: AgentEvents[T]) => void

export type Done = (error: DeviceError | null) => void

export interface Agent {
  /** Keeps the device enrolled from here on: enrolls, renews, retries. */
  start(): void
  /**
   * One attempt to hold a valid operational identity; at once when there is one. `readmitted`: ask again although revoked.
   * A call while another operation runs waits for that one.
   */
  enroll(readmitted: boolean, done: Done): void
  /** One attempt to replace the operational identity, due or not. */
  renew(done: Done): void
  status(): AgentStatus
  /** The identity in use; null when there is none, or it is revoked. */
  identity(): Identity | null
  /** A notice that a NoticeReceiver found valid says that this device is revoked. Survives a reboot. */
  revoke(by: string): void
  /** Ends the running operation with `aborted`; the next one resumes it. */
  abort(): void
  /** Ends everything and forgets the timer. */
  stop(): void
}
