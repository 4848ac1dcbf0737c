// The list of what was born, signed: the enrollment server admits these units and no others, so that "anything under this CA" is not
// enough. JSON lines: a head with the signer's certificates, one line a unit, a foot with the signature over every byte before it.
// One signature for any number of units; a reader verifies first and reads entries only afterwards.

import { isAscii } from 'node:buffer'
import { createHash } from 'node:crypto'
import { fstatSync, readSync } from 'node:fs'
import { type Bytes, codeOf, decodeBase64, parseCertificate, type TrustAnchor, validatePath } from '@birthmark/device-sdk/core'
import { type Authority, MANIFEST_SIGNING } from './authority.ts'
import { FactoryError } from './errors.ts'
import { signatureVerifier, verifySignature } from './signing-key.ts'

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

/** A manifest wherever it lies. It must stay as it is: it is read once to be verified and again for its entries. */
export interface ManifestFile {
  size: number
  /** Fills `into` from that position on; how many bytes, 0 at the end. */
  read(into: Bytes, position: number): number
}

export interface OpenManifest {
  /** Seconds since 1970, as the signer's clock said. */
  made: number
  /** SHA-256 of the whole file, hex: names this manifest in audit records. */
  digest: string
  units: number
  /** SubjectPublicKeyInfo of who signed: the units' first holder. */
  signerKey: Bytes
  /** Read and judged as they are asked for: throws `manifest_malformed` at a line that is no unit. */
  entries(): Generator<ManifestEntry>
}

export interface ManifestRules {
  /** The manufacturers' roots. */
  anchors: TrustAnchor[]
  /** Seconds since 1970. */
  now: number
}

export interface Manifest extends Omit<OpenManifest, 'units' | 'entries' | 'signerKey'> {
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

/** Blocks that are hashed before others get their turn: some four milliseconds. */
const blocksPerTurn = 16

/** Bytes at once: enough to hide the system call, little enough to stay in the processor's cache. */
const blockBytes = 65_536

/**
 * Verifies a manifest against the manufacturers' roots. Before: bytes from anywhere. After: each entry was listed by a manifest signer under
 * one of `anchors`. Whatever its size, a block and a line of it are in memory. Throws `manifest_malformed`, `manifest_untrusted` (signer),
 * `manifest_signature` (content).
 */
export function openManifest(file: ManifestFile, rules: ManifestRules): OpenManifest {
  const opening = openingSteps(file, rules)
  for (;;) {
    const step = opening.next()
    if (step.done) return step.value
  }
}

/** As openManifest(), for a process that has others to answer meanwhile: half a gigabyte takes seconds. */
export async function openManifestInTurns(file: ManifestFile, rules: ManifestRules): Promise<OpenManifest> {
  const opening = openingSteps(file, rules)
  for (;;) {
    const step = opening.next()
    if (step.done) return step.value
    await new Promise<void>(done => setImmediate(done))
  }
}

function* openingSteps(file: ManifestFile, rules: ManifestRules): Generator<void, OpenManifest> {
  if (file.size > manifestBytesMax) throw malformed(`${file.size} bytes; at most ${manifestBytesMax}`)
  const tailAt = Math.max(0, file.size - lineBytesMax - 2)
  const tail = part(file, tailAt, file.size - tailAt)
  if (tail[tail.length - 1] !== 0x0a) throw malformed('the last line is cut off')
  const footAt = tailAt + tail.lastIndexOf(0x0a, tail.length - 2) + 1
  const start = part(file, 0, Math.min(file.size, lineBytesMax + 1))
  const headEnd = start.indexOf(0x0a)
  if (headEnd < 0) throw malformed(`line 1 has more than ${lineBytesMax} bytes`)
  if (footAt === 0 || headEnd >= footAt) throw malformed('a head, units and a foot are expected')
  const head = record(start.subarray(0, headEnd), 1)
  const foot = record(tail.subarray(footAt - tailAt, tail.length - 1), 0)
  if (head.format !== FORMAT) throw malformed(`format '${String(head.format).slice(0, 40)}' is not ${FORMAT}`)
  if (typeof head.made !== 'number' || !Number.isSafeInteger(head.made)) throw malformed('no date')

  const signer = trustedSigner(head.certificates, rules)
  if (typeof foot.signature !== 'string' || typeof foot.algorithm !== 'string') throw malformed('no signature')
  const hash = createHash('sha256')
  let lines = 0
  let n = 0
  for (const block of blocks(file, 0, footAt)) {
    if (++n % blocksPerTurn === 0) yield
    hash.update(block)
    for (let at = block.indexOf(0x0a); at >= 0; at = block.indexOf(0x0a, at + 1)) lines++
  }
  const signed = hash.copy().digest()
  if (!verifySignature(signer.spki, foot.algorithm, signatureInput(signed), base64(foot.signature)))
    throw new FactoryError('manifest_signature', 'the signature does not match: the file was changed after it was signed')
  const units = lines - 1
  if (units > unitsMax) throw malformed(`more than ${unitsMax} units`)
  if (foot.units !== units) throw malformed(`${units} units, the foot says ${String(foot.units)}`)
  const digest = hash.update(tail.subarray(footAt - tailAt)).digest('hex')
  return { made: head.made, digest, units, signerKey: signer.spki, entries: () => manifestEntries(file, headEnd + 1, footAt) }
}

/** As openManifest(), for a file in memory and all of its entries at once. */
export function verifyManifest(bytes: Bytes, rules: ManifestRules): Manifest {
  const { made, digest, entries } = openManifest(manifestInMemory(bytes), rules)
  return { made, digest, entries: [...entries()] }
}

export function manifestInMemory(bytes: Bytes): ManifestFile {
  return {
    size: bytes.length,
    read(into, position) {
      const some = bytes.subarray(position, position + into.length)
      into.set(some)
      return some.length
    },
  }
}

/** `fd`: of a regular file that nobody writes to. */
export function manifestOnDisk(fd: number): ManifestFile {
  return { size: fstatSync(fd).size, read: (into, position) => readSync(fd, into, 0, into.length, position) }
}

function part(file: ManifestFile, from: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let done = 0; done < length; ) {
    const read = file.read(bytes.subarray(done), from + done)
    if (read === 0) throw malformed('the file ended before its size')
    done += read
  }
  return bytes
}

/** Each block is overwritten by the next. */
function* blocks(file: ManifestFile, from: number, to: number): Generator<Buffer> {
  const bytes = Buffer.alloc(blockBytes)
  for (let at = from; at < to; ) {
    const read = file.read(bytes.subarray(0, Math.min(blockBytes, to - at)), at)
    if (read === 0) throw malformed('the file ended before its size')
    yield bytes.subarray(0, read)
    at += read
  }
}

/** The units of the lines from `from` to `to`, whose signature counts elsewhere; the first one is called line 2. */
export function* manifestEntries(file: ManifestFile, from: number, to: number): Generator<ManifestEntry> {
  let number = 2
  let rest: Buffer = Buffer.alloc(0)
  for (const block of blocks(file, from, to)) {
    const end = block.lastIndexOf(0x0a) + 1
    const lines = block.subarray(0, end)
    const whole = end > 0 && rest.length > 0 ? Buffer.concat([rest, lines]) : lines
    // Where all is ASCII, as nearly always, text needs no decoding; elsewhere every byte is judged.
    const text = isAscii(whole) ? whole.toString('latin1') : utf8Text(whole)
    for (let at = 0; at < text.length; ) {
      const lineEnd = text.indexOf('\n', at)
      yield entryOf(parsed(text.slice(at, lineEnd), number), number)
      number++
      at = lineEnd + 1
    }
    rest = end === 0 ? Buffer.concat([rest, block]) : Buffer.from(block.subarray(end))
    if (rest.length > lineBytesMax) throw malformed(`line ${number} has more than ${lineBytesMax} bytes`)
  }
}

function utf8Text(bytes: Bytes): string {
  try {
    return utf8.decode(bytes)
  } catch {
    throw malformed('units that are not UTF-8')
  }
}

/** Who signs under one of `anchors`: certificates in base64, the signer's first. Throws `manifest_untrusted`. */
export function trustedSigner(certificates: unknown, rules: ManifestRules): { spki: Bytes } {
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

const place = (number: number) => (number ? `line ${number}` : 'the last line')

function record(line: Buffer, number: number): Record<string, unknown> {
  if (line.length > lineBytesMax) throw malformed(`${place(number)} has more than ${lineBytesMax} bytes`)
  let text: string
  try {
    text = utf8.decode(line)
  } catch {
    throw malformed(`${place(number)} is not UTF-8`)
  }
  return parsed(text, number)
}

function parsed(line: string, number: number): Record<string, unknown> {
  if (line.length > lineBytesMax) throw malformed(`${place(number)} has more than ${lineBytesMax} bytes`)
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    value = null
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw malformed(`${place(number)} is not a JSON object`)
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
