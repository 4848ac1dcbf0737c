// Who holds the units of a manifest: a chain of hand-overs, each signed by the holder before it, beginning with the manifest's own signer. A file of
// JSON lines that travels beside the manifest and grows by a line a sale. Promises that nobody but the holder can hand over, that no hand-over
// can be changed, left out or put in another order, and that one for another manifest is none. What it cannot tell: a holder who hands over twice
// makes two chains, each good; ask for the chain from whom you buy, and keep the one that you accepted.
//
//   {"payload": base64, "algorithm": "ecdsa-sha256", "signature": base64}
//   payload: JSON {"format", "manifest": SHA-256, "previous": SHA-256 of the payload before or null, "made": seconds, "to": {"name", "key": SPKI in base64}}

import { type Bytes, equalBytes } from '@birthmark/device-sdk/core'
import { FactoryError } from './errors.ts'
import { type SigningKey, sha256Hex, verifySignature } from './signing-key.ts'

export interface Holder {
  /** As the one before called them; the key is who they are. */
  name: string
  /** SubjectPublicKeyInfo, DER. */
  key: Bytes
}

export interface HandOver {
  to: Holder
  /** Seconds since 1970, as the giver's clock said. */
  made: number
}

/** What a chain is about: from openManifest(). */
export interface HeldManifest {
  digest: string
  signerKey: Bytes
}

const FORMAT = 'birthmark-handover/1'
/** Every line is a sale of the same units; devices are not sold a hundred times. */
const handOversMax = 100
/** An ML-DSA-65 key and signature in base64 twice over have about 12 KB. */
const lineCharactersMax = 32_768
export const ownersBytesMax = handOversMax * lineCharactersMax
const HOLDER_NAME = /^[\p{L}\p{N} ._&,()/-]{1,64}$/u
const DIGEST = /^[0-9a-f]{64}$/
// A domain of its own: a signature for a manifest or a journal is none for a hand-over.
const signed = (payload: Bytes): Bytes => Buffer.concat([Buffer.from(`${FORMAT}\n`), payload])

/**
 * Adds a line to `chain` ('' at first): the units of `manifest` go to `to`. Throws `handover_refused` when `key` is not the holder's,
 * and what readOwners() throws about the chain so far.
 */
export async function handOver(chain: string, manifest: HeldManifest, to: Holder, key: SigningKey, now: number): Promise<string> {
  if (!HOLDER_NAME.test(to.name)) throw malformed('a name is 1 to 64 letters, digits, spaces and . _ & , ( ) / -')
  const { holder, previous, handOvers } = walk(chain, manifest)
  if (handOvers.length >= handOversMax) throw malformed(`more than ${handOversMax} hand-overs`)
  if (!equalBytes(holder, key.spki))
    throw new FactoryError('handover_refused', 'only their holder hands units over, and this key is not the last holder’s')
  const payload = Buffer.from(
    JSON.stringify({
      format: FORMAT,
      manifest: manifest.digest,
      previous,
      made: now,
      to: { name: to.name, key: Buffer.from(to.key).toString('base64') },
    }),
  )
  const signature = Buffer.from(await key.sign(signed(payload))).toString('base64')
  return `${chain}${JSON.stringify({ payload: payload.toString('base64'), algorithm: key.algorithm, signature })}\n`
}

/**
 * The holders after the manufacturer, in order. Before: a chain from anywhere, and a manifest that was verified. After: each holder was named by
 * the one before. Throws `handover_malformed`, `handover_signature` (changed, or by somebody else), `handover_order` (a line is missing, moved
 * or of another manifest).
 */
export function readOwners(chain: string, manifest: HeldManifest): HandOver[] {
  return walk(chain, manifest).handOvers
}

function walk(chain: string, manifest: HeldManifest): { holder: Bytes; previous: string | null; handOvers: HandOver[] } {
  if (chain !== '' && !chain.endsWith('\n')) throw malformed('the last line is cut off')
  const lines = chain.split('\n').slice(0, -1)
  if (lines.length > handOversMax) throw malformed(`more than ${handOversMax} hand-overs`)
  let holder = manifest.signerKey
  let previous: string | null = null
  const handOvers: HandOver[] = []
  lines.forEach((line, index) => {
    const number = index + 1
    const { payload, algorithm, signature } = record(line, number)
    if (typeof payload !== 'string' || typeof algorithm !== 'string' || typeof signature !== 'string')
      throw malformed(`line ${number}: payload, algorithm, signature`)
    const bytes = base64(payload, number)
    const said = record(Buffer.from(bytes).toString('utf8'), number)
    const to = said.to as { name?: unknown; key?: unknown } | undefined
    if (said.format !== FORMAT || typeof said.manifest !== 'string' || !DIGEST.test(said.manifest))
      throw malformed(`line ${number} is no hand-over`)
    if (
      !Number.isSafeInteger(said.made) ||
      typeof to?.key !== 'string' ||
      typeof to.name !== 'string' ||
      !HOLDER_NAME.test(to.name)
    )
      throw malformed(`line ${number}: made, to`)
    // The order first: it says more about a line that belongs elsewhere than its signature does.
    if (said.manifest !== manifest.digest) throw disorder(number, 'it is about another manifest')
    if ((said.previous ?? null) !== previous) throw disorder(number, 'it does not follow the line before')
    if (!verifySignature(holder, algorithm, signed(bytes), base64(signature, number)))
      throw new FactoryError(
        'handover_signature',
        `line ${number} is not signed by the holder before it, or was changed afterwards`,
      )
    holder = base64(to.key, number)
    previous = sha256Hex(bytes)
    handOvers.push({ to: { name: to.name, key: holder }, made: said.made as number })
  })
  return { holder, previous, handOvers }
}

/** One spelling only: what does not change the bytes would else change the file unnoticed. */
function base64(text: string, number: number): Bytes {
  const bytes = Buffer.from(text, 'base64')
  if (bytes.toString('base64') !== text) throw malformed(`line ${number}: base64`)
  return bytes
}

function record(text: string, number: number): Record<string, unknown> {
  if (text.length > lineCharactersMax) throw malformed(`line ${number} has more than ${lineCharactersMax} characters`)
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  } catch {
    // Said below.
  }
  throw malformed(`line ${number} is not a JSON object`)
}

function malformed(detail: string): FactoryError {
  return new FactoryError('handover_malformed', detail)
}

function disorder(number: number, why: string): FactoryError {
  return new FactoryError('handover_order', `line ${number}: ${why}`)
}
