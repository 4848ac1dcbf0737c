// Applies a TokenRule to a bearer token: signature by a key of the JWKS under a pinned algorithm, issuer, audience, times, device. After it
// the token is known to be the issuer's word about that device; whether it was spent is the store's to say.

import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { Bytes } from '@birthmark/device-sdk/core'
import { createLocalJWKSet, errors, type JSONWebKeySet, jwtVerify } from 'jose'
import type { Outbound } from './outbound-request.ts'
import type { Clock, Log } from './ports.ts'
import { isDeviceId } from './registrar/profile.ts'
import { type Refusal, refusal } from './registrar/refusal.ts'
import type { TokenRule } from './registrar/token-rule.ts'
import { UnavailableError } from './unavailability.ts'

/** What a good token says. */
export interface TokenStatement {
  deviceId: string
  /** SHA-256 of issuer and `jti`; null where the rule does not ask for one. */
  use: Bytes | null
  /** Seconds since 1970 at which it is refused: `exp` and the tolerance. */
  expiresAt: number
}

export interface BearerTokens {
  /** Throws UnavailableError where the keys cannot be had. */
  verify(token: string, rule: TokenRule): Promise<TokenStatement | Refusal>
}

/** A JWT with an RSA-4096 signature and a page of claims; longer ones cost hashing for nothing. */
export const tokenCharactersMax = 8192
/** Clocks of issuer and server. */
const toleranceSeconds = 60
/** Keys roll over within this; a key id that is not known asks sooner. */
const keysSeconds = 600
/** An unknown key id is free to invent, so that asking again has a pace. */
const reloadSeconds = 30
/** Without an answer of its source a key set stays good this long: the issuer being down is no reason to stop a line. */
const staleSeconds = 86_400
const keysBytesMax = 262_144

interface KeySet {
  keys: ReturnType<typeof createLocalJWKSet>
  loadedAt: number
  triedAt: number
}

export function createBearerTokens({ outbound, clock, log }: { outbound: Outbound; clock: Clock; log: Log }): BearerTokens {
  const sets = new Map<string, KeySet>()
  const loading = new Map<string, Promise<KeySet>>()

  async function read({ keys }: TokenRule): Promise<KeySet['keys']> {
    let text: string
    if (keys.protocol === 'file:') {
      const file = fileURLToPath(keys)
      if ((await stat(file)).size > keysBytesMax) throw new Error(`${file} is no JWKS: more than 256 KB`)
      text = await readFile(file, 'utf8')
    } else {
      const { status, body } = await outbound({
        url: keys,
        method: 'GET',
        headers: { accept: 'application/jwk-set+json, application/json' },
        body: null,
        timeoutSeconds: 5,
        answerBytesMax: keysBytesMax,
        allowLoopback: false,
        anchors: null,
      })
      if (status !== 200) throw new Error(`${keys.host}: status ${status}`)
      text = body.toString('utf8')
    }
    return createLocalJWKSet(JSON.parse(text) as JSONWebKeySet)
  }

  async function load(rule: TokenRule): Promise<KeySet> {
    const name = rule.keys.href
    const known = sets.get(name)
    const now = clock.now()
    try {
      const set = { keys: await read(rule), loadedAt: now, triedAt: now }
      sets.set(name, set)
      return set
    } catch (error) {
      log.warn({ url: name, err: error }, 'the keys of bearer tokens cannot be read')
      if (!known || now - known.loadedAt > staleSeconds)
        throw new UnavailableError('token_keys_unavailable', reloadSeconds, 'the keys that tokens are checked with cannot be had')
      const set = { ...known, triedAt: now }
      sets.set(name, set)
      return set
    }
  }

  /** `newer`: a key id was not found in what is here. */
  async function keysFor(rule: TokenRule, newer: boolean): Promise<KeySet> {
    const name = rule.keys.href
    const known = sets.get(name)
    const age = known ? clock.now() - known.triedAt : Number.POSITIVE_INFINITY
    if (known && age >= 0 && age < (newer ? reloadSeconds : keysSeconds)) return known
    let load_ = loading.get(name)
    if (!load_) {
      load_ = load(rule).finally(() => loading.delete(name))
      loading.set(name, load_)
    }
    return load_
  }

  async function checked(token: string, rule: TokenRule, set: KeySet) {
    return jwtVerify(token, set.keys, {
      algorithms: [...rule.algorithms],
      issuer: rule.issuer,
      audience: rule.audience,
      requiredClaims: ['exp', 'iat', rule.deviceClaim, ...(rule.oneUse ? ['jti'] : [])],
      clockTolerance: toleranceSeconds,
      currentDate: new Date(clock.now() * 1000),
    })
  }

  return {
    async verify(token, rule) {
      const refused = (detail: string) => refusal('token_refused', `the bearer token ${detail}`)
      if (token.length > tokenCharactersMax) return refused('is too long')
      try {
        const set = await keysFor(rule, false)
        const verified = checked(token, rule, set).catch(async error => {
          if (!(error instanceof errors.JWKSNoMatchingKey)) throw error
          const newer = await keysFor(rule, true)
          if (newer.loadedAt === set.loadedAt) throw error
          return checked(token, rule, newer)
        })
        const { payload } = await verified
        const device = payload[rule.deviceClaim]
        if (typeof device !== 'string' || !isDeviceId(device)) return refused(`names no device in ${rule.deviceClaim}`)
        const { exp = 0, iat = 0, jti } = payload
        if (exp - iat > rule.lifetimeSecondsMax)
          return refused(`lives ${exp - iat} seconds; at most ${rule.lifetimeSecondsMax} are allowed`)
        // Dated ahead, a token of any age would be within the lifetime that the rule allows.
        if (iat > clock.now() + toleranceSeconds) return refused('was made in the future')
        // A length in front of each, so that no two pairs run together.
        const use = rule.oneUse
          ? new Uint8Array(
              createHash('sha256')
                .update(JSON.stringify([rule.issuer, String(jti)]))
                .digest(),
            )
          : null
        return { deviceId: device, use, expiresAt: exp + toleranceSeconds }
      } catch (error) {
        if (error instanceof errors.JWTExpired) return refusal('token_expired', 'the bearer token has expired')
        if (error instanceof errors.JWTClaimValidationFailed) return refused(`has a wrong or missing ${error.claim}`)
        if (error instanceof errors.JOSEAlgNotAllowed) return refused(`is signed otherwise than by ${rule.algorithms.join(', ')}`)
        if (error instanceof errors.JOSEError) return refused(`does not verify (${error.code})`)
        throw error
      }
    },
  }
}
