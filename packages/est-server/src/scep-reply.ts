// The signed answers of SCEP: CertRep, and the certificates to come.

import { hash } from 'node:crypto'
import type { Bytes } from '@birthmark/device-sdk/core'
import type { RaKey } from './ca/ra-key.ts'
import { sha256 } from './node-crypto.ts'
import type { RandomBytes } from './ports.ts'
import { draftSigned, type SignedMessage } from './wire/cms-signed.ts'
import { encodeCertificateBag } from './wire/degenerate-data.ts'
import { certRepAttributes, type PkiStatus, type ScepHeader } from './wire/scep.ts'

const empty = new Uint8Array(0)

/** Signed as the client signed, so that it can verify: its hash, and PSS for PSS. `content`: enveloped; null for none. */
export async function signedReply(
  key: RaKey,
  header: ScepHeader,
  asked: SignedMessage | null,
  status: PkiStatus,
  content: Bytes | null,
  random: RandomBytes,
): Promise<Bytes> {
  const digest = asked?.algorithms?.digest ?? 'sha256'
  const signatureAlgorithm = `${asked?.algorithms?.signature.startsWith('rsa-pss') ? 'rsa-pss' : 'rsa-pkcs1'}-${digest}`
  const draft = draftSigned({
    // An empty content where RFC 8894 3.2 leaves it out: OpenSSL's PKCS7_verify, and certmonger with it, verifies nothing without one.
    content: content ?? empty,
    contentDigest: hash(digest, content ?? empty, 'buffer'),
    attributes: certRepAttributes(header, status, random(16)),
    certificates: [key.certificate.der],
    signer: key.certificate,
    digest,
    signatureAlgorithm,
  })
  return draft.assemble(await key.sign(signatureAlgorithm, draft.toBeSigned))
}

/** RFC 8894 4.7.1: signed by the RA that the client knows. */
export async function signedCertificates(key: RaKey, certificates: Bytes[]): Promise<Bytes> {
  const content = encodeCertificateBag(certificates)
  const draft = draftSigned({
    ...{ content, contentDigest: sha256(content), attributes: [], certificates: [key.certificate.der] },
    ...{ signer: key.certificate, digest: 'sha256', signatureAlgorithm: 'rsa-pkcs1-sha256' },
  })
  return draft.assemble(await key.sign('rsa-pkcs1-sha256', draft.toBeSigned))
}
