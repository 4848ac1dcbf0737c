// Takes the place of Moddable's `ssl/cert`: whom a TLS session believes, and as whom it shows itself. The server's chain is validated by the core,
// strictly: every link, anchors, purposes, CA flags, lengths, names, time. Moddable's own module is more lenient, and reads RSA client keys alone.

import type { Verify } from '../../agent/ports.ts'
import type { Bytes } from '../../core/bytes.ts'
import { DIGITAL_SIGNATURE, parseCertificate } from '../../core/certificate.ts'
import { codeOf, type DeviceErrorCode, deviceError, fail } from '../../core/errors.ts'
import type { TrustAnchor } from '../../core/trust-anchor.ts'
import { validatePath } from '../../core/validate-path.ts'
import { serverIsNamed } from './server-name.ts'

/** id-kp-serverAuth, 1.3.6.1.5.5.7.3.1 */
const SERVER_AUTH = '2b06010505070301'
// As everywhere in this SDK; a server's chain has two or three.
const pathDepthMax = 4
const pathSignaturesMax = 8

/** Who opens a TLS session, and whom it believes. It travels in a session's options as `birthmark`. */
export interface ModdableTlsIdentity {
  anchors: TrustAnchor[]
  /** DER, leaf first; empty: no client certificate is shown. */
  chain: Bytes[]
  /** An ECDSA signature, DER, over a SHA-256 digest, by the key of `chain`'s leaf. Throws `key_unavailable`. */
  sign(digest: Bytes): Bytes
  /** Of P-256; must answer during the call. */
  verify: Verify
  /** Seconds since 1970, −1 while the time is not trusted; then `timeFloor` stands in for it. */
  now(): number
  timeFloor: number
  /** Told why a server was not believed, before its session fails. */
  untrusted(code: DeviceErrorCode): void
}

/** One a session. */
export class ModdableCertificates {
  identity: ModdableTlsIdentity
  /** The handshake message heard last; −1: none. */
  heard = -1
  /** SubjectPublicKeyInfo of a server whose chain was good; it has yet to prove that it holds the key. */
  serverKey: Bytes | null = null
  proven = false

  constructor(options: { birthmark?: ModdableTlsIdentity }) {
    // Any other TLS of the same firmware comes here too, and is not let through unjudged.
    this.identity = options.birthmark ?? fail('server_untrusted', 'no trust anchors')
  }

  /** `certs`: as the server sent them, leaf first. */
  verify(certs: Bytes[], options: { tls_server_name?: string }): boolean {
    const { anchors, verify, now, timeFloor, untrusted } = this.identity
    try {
      const [leaf, ...others] = certs.map(parseCertificate)
      if (!leaf || !serverIsNamed(leaf, options.tls_server_name ?? '') || !(leaf.keyUsage & DIGITAL_SIGNATURE))
        throw deviceError('server_untrusted', 'name or usage')
      const time = now()
      const rules = {
        anchors,
        time,
        timeFloor,
        algorithms: ['ecdsa-sha256'],
        purpose: SERVER_AUTH,
        understoodCritical: [],
        depthMax: pathDepthMax,
        signaturesMax: pathSignaturesMax,
      }
      validatePath(leaf, others, rules, verify, error => {
        if (error) throw error
        this.serverKey = leaf.spki
      })
    } catch (error) {
      untrusted(codeOf(error) ?? 'internal')
    }
    return this.serverKey !== null
  }

  /** Of the server's certificate, which `verify` was given before: there is nothing more to remember. */
  register(): void {}

  /** What is shown to a server that takes an ECDSA signature. */
  findPreferredCert(): Bytes[] {
    return this.identity.chain
  }

  /** Moddable asks for the server's key where it encrypts to it (RSA key exchange), which this port does not do. */
  getKey(): never {
    fail('server_untrusted', 'RSA key exchange')
  }
}
