// The list of what was born, signed: the enrollment server admits these units and no others, so that "anything under this CA" is not
// enough. JSON lines: a head with the signer's certificates, one line a unit, a foot with the signature over every byte before it.
// One signature for any number of units; a reader verifies first and reads entries only afterwards.

import { createHash } from 'node:crypto'
import { type Bytes, codeOf, decodeBase64, parseCertificate, type TrustAnchor, validatePath } from '@birthmark/device-sdk/core'
import { type Authority, MANIFEST_SIGNING } from './authority.ts'
import { FactoryError } from './errors.ts'
import { sha256, sha256Hex, signatureVerifier, verifySignature } from './signing-key.ts'

export interface ManifestEntry {
  serial: string
  /** DER Name of the issuing CA, hex. */
  issuerSubject?: string
  birthCertificateSha256?: string
  /** SHA-256 of the SubjectPublicKeyInfo, hex. */
  spkiSha256: string
  groups: string[]
  keyOrigin: 'device' | 'host'
}

export interface Manifest {
  /** Seconds since 1970, as the signer's clock said. */
  made: number
  /** SHA-256 of the whole file, hex: names this manifest in audit records. */
  digest: string
  entries: ManifestEntry[]
}

// A million units of about 300 bytes each fit; a larger order comes as several manifests.
export const manifestBytesMax = 512 * 1024 * 1024
const unitsMax = 1_000_000
// A unit's line has fixed fields and at most 8 groups of 97 characters; the head carries up to three certificates.
const lineBytesMax = 32_768
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const FORMAT = 'birthmark-manifest/1'

/**
 * Lines of a manifest, one after another, so that a million units pass through and are never held. `units` are taken as they come;
 * the foot follows the last.
 */
export async function* manifestLines(entries: Iterable<ManifestEntry>, signer: Authority, now: number): AsyncGenerator<string> {
  // The root is the reader's to know, not ours to send.
  const certificates = [signer.certificate, ...signer.chain.slice(0, -1)].map(der => Buffer.from(der).toString('base64'))
  const digest = createHash('sha256')
  let units = 0
  const head = `${JSON.stringify({ format: FORMAT, made: now, certificates })}\n`
  digest.update(head)
  yield head
  for (const entry of entries) {
    const line = `${JSON.stringify(entry)}\n`
    digest.update(line)
    units++
    yield line
  }
  // The digest is signed rather than the file, so that a smart card or HSM sees 32 bytes of any list.
  const signature = await signer.key.sign(signatureInput(digest.digest()))
  yield `${JSON.stringify({ units, algorithm: signer.key.algorithm, signature: Buffer.from(signature).toString('base64') })}\n`
}

/** A domain prefix: a signature made for anything else is never a manifest's. */
function signatureInput(digest: Bytes): Bytes {
  return Buffer.concat([Buffer.from(`${FORMAT}\n`), digest])
}

/**
 * Verifies a manifest against the manufacturers' roots and returns its entries. Before: bytes from anywhere. After: each entry was listed
 * by a manifest signer under one of `anchors`. Throws `manifest_malformed`, `manifest_untrusted` (signer), `manifest_signature` (content).
 */
export function verifyManifest(file: Bytes, rules: { anchors: TrustAnchor[]; now: number }): Manifest {
  if (file.length > manifestBytesMax) throw malformed(`${file.length} bytes; at most ${manifestBytesMax}`)
  const text = Buffer.from(file.buffer, file.byteOffset, file.byteLength)
  if (text[text.length - 1] !== 0x0a) throw malformed('the last line is cut off')
  const footAt = text.lastIndexOf(0x0a, text.length - 2) + 1
  const headEnd = text.indexOf(0x0a)
  if (footAt === 0) throw malformed('a head, units and a foot are expected')
  const head = record(text.subarray(0, headEnd), 1)
  const foot = record(text.subarray(footAt, text.length - 1), 0)
  if (head.format !== FORMAT) throw malformed(`format '${String(head.format).slice(0, 40)}' is not ${FORMAT}`)
  if (typeof head.made !== 'number' || !Number.isSafeInteger(head.made)) throw malformed('no date')

  const signer = trustedSigner(head.certificates, rules)
  if (typeof foot.signature !== 'string' || typeof foot.algorithm !== 'string') throw malformed('no signature')
  if (!verifySignature(signer.spki, foot.algorithm, signatureInput(sha256(text.subarray(0, footAt))), base64(foot.signature)))
    throw new FactoryError('manifest_signature', 'the signature does not match: the file was changed after it was signed')

  const entries: ManifestEntry[] = []
  for (let at = headEnd + 1; at < footAt; ) {
    const end = text.indexOf(0x0a, at)
    if (entries.length >= unitsMax) throw malformed(`more than ${unitsMax} units`)
    entries.push(entryOf(record(text.subarray(at, end), entries.length + 2), entries.length + 2))
    at = end + 1
  }
  if (foot.units !== entries.length) throw malformed(`${entries.length} units, the foot says ${String(foot.units)}`)
  return { made: head.made, digest: sha256Hex(file), entries }
}

/** Who signs under one of `anchors`: certificates in base64, the signer's first. Throws `manifest_untrusted`. */
export function trustedSigner(certificates: unknown, rules: { anchors: TrustAnchor[]; now: number }): { spki: Bytes } {
  if (!Array.isArray(certificates) || certificates.length < 1 || certificates.length > 4)
    throw malformed('1 to 4 signer certificates are expected')
  try {
    const [leaf, ...intermediates] = certificates.map(der => parseCertificate(base64(String(der))))
    // A path without the stated purpose is not enough: birth certificates have the same issuer (see MANIFEST_SIGNING).
    if (!leaf.extendedKeyUsage?.includes(MANIFEST_SIGNING)) throw new Error("the signer's certificate is not for manifests")
    let outcome: Error | null | undefined
    validatePath(
      leaf,
      intermediates,
      {
        anchors: rules.anchors,
        time: rules.now,
        algorithms: ['ecdsa-sha256', 'ecdsa-sha384', 'rsa-pkcs1-sha256', 'ed25519', 'ml-dsa-44', 'ml-dsa-65'],
        purpose: MANIFEST_SIGNING,
        understoodCritical: [],
        depthMax: 4,
        signaturesMax: 8,
      },
      signatureVerifier,
      error => {
        outcome = error
      },
    )
    if (outcome) throw outcome
    if (outcome === undefined) throw new Error('no verdict')
    return leaf
  } catch (error) {
    if (error instanceof FactoryError) throw error
    throw new FactoryError(
      'manifest_untrusted',
      `the signer does not lead to a known manufacturer: ${(error as Error).message}`,
      error,
    )
  }
}

function record(line: Buffer, number: number): Record<string, unknown> {
  const where = number ? `line ${number}` : 'the last line'
  if (line.length > lineBytesMax) throw malformed(`${where} has more than ${lineBytesMax} bytes`)
  let value: unknown
  try {
    value = JSON.parse(utf8.decode(line))
  } catch {
    value = null
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw malformed(`${where} is not a JSON object`)
  return value as Record<string, unknown>
}

const HEX_DIGEST = /^[0-9a-f]{64}$/

/** The shape only: what a serial or a group may look like is the server's to say, and it checks. */
function entryOf(value: Record<string, unknown>, number: number): ManifestEntry {
  const { serial, issuerSubject, birthCertificateSha256, spkiSha256, groups, keyOrigin } = value
  if (typeof serial !== 'string' || typeof spkiSha256 !== 'string' || !HEX_DIGEST.test(spkiSha256))
    throw malformed(`line ${number}: serial, spkiSha256`)
  if (!Array.isArray(groups) || !groups.every(group => typeof group === 'string')) throw malformed(`line ${number}: groups`)
  if (keyOrigin !== 'device' && keyOrigin !== 'host') throw malformed(`line ${number}: keyOrigin`)
  const entry: ManifestEntry = { serial, spkiSha256, groups, keyOrigin }
  if (typeof issuerSubject === 'string') entry.issuerSubject = issuerSubject
  if (typeof birthCertificateSha256 === 'string' && HEX_DIGEST.test(birthCertificateSha256))
    entry.birthCertificateSha256 = birthCertificateSha256
  return entry
}

function base64(text: string): Bytes {
  try {
    return decodeBase64(Buffer.from(text), lineBytesMax)
  } catch (error) {
    if (codeOf(error) === null) throw error
    throw malformed('base64')
  }
}

function malformed(detail: string): FactoryError {
  return new FactoryError('manifest_malformed', detail)
}
