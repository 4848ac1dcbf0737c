// From what a CSR shows as its challenge to the hash that enrollment looks up. Most were minted here. Two kinds were not: the static one of
// development, and those that the owner's system answers for when it is asked. Either gets a one-time challenge of its own, bound to the device and
// derived from what is asked, so that the same request finds it again and no other does.

import { createHash, timingSafeEqual } from 'node:crypto'
import {
  type Bytes,
  CHALLENGE_PASSWORD,
  COMMON_NAME,
  type Csr,
  csrInfo,
  encodeAttribute,
  encodeBits,
  encodeSequence,
  encodingOf,
  nameAttribute,
  SERIAL_NUMBER,
  wholeParts,
} from '@birthmark/device-sdk/core'
import { sha256 } from './node-crypto.ts'
import type { Clock, RandomBytes } from './ports.ts'
import { challengeHash } from './registrar/challenge.ts'
import { type EnrollmentProfile, isDeviceId } from './registrar/profile.ts'
import type { WebhookRule } from './registrar/webhook-rule.ts'
import type { EnclosedCsr } from './scep-envelope.ts'
import type { ScepOrigin } from './scep-message.ts'
import type { Store } from './store/store.ts'
import type { Webhook } from './webhook.ts'

export interface ChallengeAdmissionParts {
  store: Pick<Store, 'secret' | 'mintSecret'>
  /** For profiles whose owner is asked. */
  webhook: Webhook | undefined
  clock: Clock
  random: RandomBytes
}

export interface ChallengeAdmission {
  /** The hash under which the store may know it; of nothing where there is no challenge. Throws UnavailableError when the owner cannot be asked. */
  hashOf(origin: ScepOrigin, profile: EnrollmentProfile, csr: EnclosedCsr): Promise<Bytes>
}

/** As long as a client repeats its request after a lost answer. */
const derivedSeconds = 3600

export function createChallengeAdmission({ store, webhook, clock, random }: ChallengeAdmissionParts): ChallengeAdmission {
  function isStatic(profile: EnrollmentProfile, challenge: string): boolean {
    const expected = profile.scep?.staticChallenge
    return expected != null && timingSafeEqual(sha256(Buffer.from(expected)), sha256(Buffer.from(challenge)))
  }

  /** Mints the derived challenge when `admits` says so and it was not minted before; null where it is not. */
  async function derived(
    profile: EnrollmentProfile,
    { subject, spki, challenge }: EnclosedCsr,
    admits: (deviceId: string) => Promise<string | null>,
  ): Promise<Bytes | null> {
    const { fleet, label } = profile
    const deviceId = nameAttribute(subject, SERIAL_NUMBER) ?? nameAttribute(subject, COMMON_NAME) ?? ''
    if (!isDeviceId(deviceId)) return null
    const token = createHash('sha256').update(`${challenge}\0${deviceId}\0`).update(spki).digest('base64url')
    const hash = challengeHash(fleet, label, token)
    if (hash === null || (await store.secret(hash)) !== null) return hash
    const by = await admits(deviceId)
    if (by === null) return null
    const at = Math.floor(clock.now())
    const groups = [...profile.groups]
    const audit = {
      at,
      kind: 'secret_minted',
      requestId: '',
      fleet,
      device: deviceId,
      by,
      code: '',
      detail: 'SCEP challenge',
    } as const
    const outcome = await store.mintSecret({ hash, fleet, deviceId, groups, expiresAt: at + derivedSeconds, at, audit })
    return outcome.kind === 'minted' ? hash : null
  }

  /** Null: not minted here, and the owner does not answer for it. */
  function asked(rule: WebhookRule, origin: ScepOrigin, profile: EnrollmentProfile, csr: EnclosedCsr): Promise<Bytes | null> {
    return derived(profile, csr, async device => {
      const { requestId, address, label } = origin
      const spkiSha256 = Buffer.from(sha256(csr.spki)).toString('hex')
      const of = { requestId, operation: 'enroll', label, fleet: profile.fleet, device, identity: 'challenge', address }
      const denied = await webhook?.ask(rule, { ...of, keyAlgorithm: 'RSA', spkiSha256, challenge: csr.challenge ?? '' })
      return denied === null ? rule.url.host : null
    })
  }

  return {
    async hashOf(origin, profile, csr) {
      const given = csr.challenge ?? ''
      const hash = given === '' ? null : challengeHash(profile.fleet, profile.label, given)
      if (hash === null) return sha256(random(32))
      if (isStatic(profile, given)) return (await derived(profile, csr, async () => 'static challenge')) ?? hash
      const rule = profile.scep?.webhook ?? null
      if (rule === null || (await store.secret(hash)) !== null) return hash
      return (await asked(rule, origin, profile, csr)) ?? hash
    },
  }
}

/**
 * What may be kept of a CSR: all but its challenge, which may wait unspent for weeks, or be the owner's for more than one device. The signature,
 * which covers it and by which it could be guessed, goes with it. DER; a copy.
 */
export function withoutChallenge(csr: Csr): Bytes {
  if (!csr.attributes.some(({ oid }) => oid === CHALLENGE_PASSWORD)) return new Uint8Array(csr.der)
  const others = csr.attributes.filter(({ oid }) => oid !== CHALLENGE_PASSWORD)
  const info = csrInfo(
    csr.subject,
    csr.spki,
    others.map(({ oid, values }) => encodeAttribute(oid, values)),
  )
  // The algorithm as received: whether it is one of ours is for enrollment to say.
  const [, algorithm] = wholeParts(csr.der, 3, 3)
  return encodeSequence([info, encodingOf(algorithm), encodeBits(new Uint8Array(1))])
}
