// TLS options of a connection by one of our identities, for `socket: { secure }` of ECMA-419's HTTP and MQTT clients over `moddableTlsSocket`.

import type { TlsIdentity, Verify } from '../../agent/ports.ts'
import type { Bytes } from '../../core/bytes.ts'
import { parseCertificate } from '../../core/certificate.ts'
import { fail } from '../../core/errors.ts'
import { anchorOf } from '../../core/trust-anchor.ts'
import type { ModdableKeys } from './keys.ts'
import type { ModdableTlsIdentity } from './tls-certificates.ts'

export interface ModdableTlsSettings {
  /** DER. Whom a server must lead to; its certificate and all above it are of P-256. */
  anchors: Bytes[]
  keys: Pick<ModdableKeys, 'signDigest'>
  verify: Verify
  /** Seconds since 1970, −1 while the time is not trusted. */
  now(): number
  /** The firmware's build: nothing that ended before it is believed. */
  timeFloor: number
}

export interface ModdableSecure {
  birthmark: ModdableTlsIdentity
  cache: false
  tls_signature_algorithms: { hash: number; sig: number }[]
}

/** `untrusted` of what it returns: called before a connection fails because its server was not believed. Throws where an anchor is malformed. */
export function moddableTls(settings: ModdableTlsSettings): (tls: TlsIdentity, untrusted: () => void) => ModdableSecure {
  const anchors = settings.anchors.map(der => anchorOf(parseCertificate(der)))
  const { keys, verify, timeFloor } = settings
  return ({ slot, chain }, untrusted) => ({
    birthmark: {
      anchors,
      chain: slot === null ? [] : chain,
      sign: digest => (slot === null ? fail('key_unavailable', 'none') : keys.signDigest(slot, digest)),
      verify,
      now: () => settings.now(),
      timeFloor,
      untrusted,
    },
    // A resumed session would go on as whoever opened it: the identity before this one.
    cache: false,
    // ECDSA with SHA-256 (RFC 5246 7.4.1.4.1) and nothing else.
    tls_signature_algorithms: [{ hash: 4, sig: 3 }],
  })
}
