// Which bearer tokens (RFC 6750, a signed JWT of RFC 7519) stand for a device: whose keys sign them, under which algorithms, for whom, and
// which claim names the device. A rule, parsed once; bearer-token.ts applies it. A token does not show that its sender holds the
// requested key (the CSR does) and says nothing about what may be issued (decide() does).

import { EstServerError } from '../errors.ts'

/** What signs; asymmetric only, so that whoever checks a token cannot make one (RFC 8725 3.1, 3.5). */
export const tokenAlgorithms = ['ES256', 'ES384', 'EdDSA', 'Ed25519', 'RS256', 'PS256', 'RS384', 'PS384', 'RS512', 'PS512'] as const

export interface TokenRule {
  /** `file:` or `https:` URL of a JWKS (RFC 7517 5). */
  readonly keys: URL
  /** Of tokenAlgorithms; what a token's header says outside of it is refused before any key is looked for. */
  readonly algorithms: readonly string[]
  /** `iss`, exactly. */
  readonly issuer: string
  /** `aud` has to hold it. */
  readonly audience: string
  /** The claim that is the device id. */
  readonly deviceClaim: string
  /** Seconds that a token may live at most, `exp` less `iat`. */
  readonly lifetimeSecondsMax: number
  /** `jti` must be there and serves one key of one device: the same request again is answered again, any other refused. */
  readonly oneUse: boolean
}

export interface TokenRuleOptions {
  keys: string | URL
  algorithms?: readonly string[]
  issuer: string
  audience: string
  /** 'sub' unless told. */
  deviceClaim?: string
  /** A day unless told. */
  lifetimeSecondsMax?: number
  /** On unless told. */
  oneUse?: boolean
}

/** Throws `profile_invalid` with what is wrong. */
export function tokenRule(o: TokenRuleOptions): TokenRule {
  const wrong = (detail: string) => new EstServerError('profile_invalid', `tokens: ${detail}`)
  let keys: URL
  try {
    keys = new URL(o.keys)
  } catch {
    throw wrong('keys: a file: or https: URL of a JWKS')
  }
  if (keys.protocol !== 'file:' && keys.protocol !== 'https:') throw wrong('keys: a file: or https: URL, no other')
  if (keys.username !== '' || keys.password !== '') throw wrong('keys: no credentials in the URL')
  const algorithms = [...(o.algorithms ?? ['ES256', 'EdDSA', 'RS256'])]
  const known: readonly string[] = tokenAlgorithms
  const unknown = algorithms.find(name => !known.includes(name))
  if (unknown !== undefined || algorithms.length === 0)
    throw wrong(`algorithms: ${unknown ?? 'none'} is none of ${known.join(', ')}`)
  for (const name of ['issuer', 'audience'] as const)
    if (typeof o[name] !== 'string' || o[name].length === 0 || o[name].length > 512) throw wrong(`${name}: 1 to 512 characters`)
  const deviceClaim = o.deviceClaim ?? 'sub'
  if (!/^[\x21-\x7e]{1,128}$/.test(deviceClaim)) throw wrong('deviceClaim: the name of a claim')
  const lifetimeSecondsMax = o.lifetimeSecondsMax ?? 86_400
  if (!(lifetimeSecondsMax >= 10 && lifetimeSecondsMax <= 90 * 86_400)) throw wrong('lifetimeSecondsMax: 10 seconds to 90 days')
  return {
    ...{ keys, algorithms, issuer: o.issuer, audience: o.audience, deviceClaim, lifetimeSecondsMax },
    oneUse: o.oneUse ?? true,
  }
}
