// What an engine lends to the agent: keys, hash, verification, storage, network, bus and clock. Everything is passed in, so that
// the same agent runs on Node, Bun, XS and Espruino and every failure can be replayed. Callbacks, since not every engine has promises
// that survive a constrained heap. A callback is called exactly once, now or later.

import type { Bytes } from '../core/bytes.ts'
import type { DeviceError } from '../core/errors.ts'
import type { HttpRequest, HttpResponse } from '../core/http-message.ts'

export type { HttpRequest, HttpResponse } from '../core/http-message.ts'
export type { Verify } from '../core/verify.ts'

export interface Hash {
  sha256(bytes: Bytes): Bytes
}

/** Keys are handles: nothing here returns a private key. A slot is a name such as `birth`, `op-0`, `op-1`. */
export interface KeyStore {
  /** Signature algorithm of the keys that `generate` makes, by its name in core/algorithm.ts: `ecdsa-sha256`, … */
  algorithm: string
  /** `spki`: DER SubjectPublicKeyInfo of a fresh key in `slot`; what was in the slot is gone. */
  generate(slot: string, done: (error: DeviceError | null, spki: Bytes | null) => void): void
  /** SubjectPublicKeyInfo of the key in `slot`, or null when there is none. */
  publicKey(slot: string, done: (error: DeviceError | null, spki: Bytes | null) => void): void
  /** Signs `message` (hashing it as the key's algorithm says); the signature in X.509 form. */
  sign(slot: string, message: Bytes, done: (error: DeviceError | null, signature: Bytes | null) => void): void
}

export interface Rng {
  /** Throws `random_unavailable` where there is no cryptographic source. */
  random(length: number): Bytes
}

/** Small named records. `put` and `remove` have reached the medium when they return; each is atomic. Throws `store_read`, `store_write`. */
export interface Store {
  get(name: string): Bytes | null
  put(name: string, value: Bytes): void
  remove(name: string): void
}

/** Which identity opens TLS. `slot` null: no client certificate. */
export interface TlsIdentity {
  slot: string | null
  /** DER, leaf first. */
  chain: Bytes[]
}

/** HTTPS to one server, whose address and trust anchors the port was made with; TLS has authenticated it when a response arrives. */
export interface Http {
  /**
   * One exchange on a connection of its own. `done` comes later, never during the call. Fails with `network`, `timeout`,
   * `server_untrusted` or `est_response_malformed`. The returned function gives up; then `done` may or may not be called.
   */
  request(
    request: HttpRequest,
    tls: TlsIdentity,
    done: (error: DeviceError | null, response: HttpResponse | null) => void,
  ): () => void
}

export interface Bus {
  subscribe(topic: string, onMessage: (payload: Bytes) => void): () => void
}

export interface Clock {
  /** Seconds since 1970, or −1 while the time is not trusted. */
  now(): number
  /** Calls back once after `seconds`; the returned function cancels. */
  setTimer(seconds: number, callback: () => void): () => void
}

/** Judges revocation notices for this device. `@birthmark/fleet-revocation/device` provides one. */
export interface NoticeReceiver {
  /** What to be subscribed to now; look again after each notice. */
  topics: string[]
  /** `revoked`: whether this device is revoked by all that was received so far. An invalid notice is an error and changes nothing. */
  receive(topic: string, payload: Bytes, done: (error: DeviceError | null, revoked: boolean) => void): void
}
