// The time trust of agent/time-trust.ts with this runtime's clock, and public keys in the forms in which people have them.

import { createHash, createPublicKey } from 'node:crypto'
import type { Clock, Http, Rng, Store, Verify } from '../../agent/ports.ts'
import { type TimeTrust, type TrustedClock, trustedClock } from '../../agent/time-trust.ts'
import { COSE_EDDSA, COSE_ES256 } from '../../core/cose.ts'
import type { TimeSigner } from '../../core/signed-time.ts'
import { nodeRng, nodeVerify } from './crypto.ts'

/** Public keys (SPKI, DER or PEM) as signers of the time. TypeError for what is no P-256 or Ed25519 key. */
export function timeSigners(keys: readonly (string | Uint8Array)[]): TimeSigner[] {
  return keys.map(one => {
    const key =
      typeof one === 'string' ? createPublicKey(one) : createPublicKey({ key: Buffer.from(one), format: 'der', type: 'spki' })
    const ed = key.asymmetricKeyType === 'ed25519'
    if (!ed && key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw new TypeError('time.signers: P-256 or Ed25519 keys')
    const spki = new Uint8Array(key.export({ type: 'spki', format: 'der' }))
    const keyId = new Uint8Array(createHash('sha256').update(spki).digest().subarray(0, 8))
    return { keyId, algorithm: ed ? COSE_EDDSA : COSE_ES256, spki }
  })
}

export interface NodeTimeOptions {
  trust: TimeTrust
  clock: Clock
  floor: number
  store: Store
  http: Http
  fleet: string
  signers: TimeSigner[]
  rng?: Rng | undefined
  verify?: Verify | undefined
  /** Seconds that only grow. Default: this process's; Linux stops it while the machine sleeps, which makes a signed time late, never early. */
  elapsed?: (() => number) | undefined
}

/** Throws `store_read`. */
export function nodeTime(options: NodeTimeOptions): TrustedClock {
  const { trust, clock, floor, store, http, fleet, signers } = options
  return trustedClock({
    ...{ trust, clock, floor, store },
    elapsed: options.elapsed ?? (() => performance.now() / 1000),
    source: { http, signers, fleet, verify: options.verify ?? nodeVerify, rng: options.rng ?? nodeRng },
  })
}
