// Whether standard consumers are told: certificates that were revoked are looked for on the very lists and in the very answers that anybody who asks
// is given. It signs nothing itself and keeps nothing; a list that nobody had asked for since the revocation is signed by being asked for here.

import { hash } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { type Bytes, contentOf, hexOf, INTEGER, partsOf, readElement, readWhole, SEQUENCE } from '@birthmark/device-sdk/core'
import type { Issuer } from './ca/issuer-key.ts'
import { publicKeyBits } from './ca/ocsp-signer.ts'
import type { OcspResponder } from './ocsp-responder.ts'
import type { Clock } from './ports.ts'
import type { RevocationLists, SignedList } from './revocation-lists.ts'
import { issuerName, shardBits, shardOf } from './status-urls.ts'
import { numberSet } from './store/number-set.ts'
import type { Store } from './store/store.ts'
import { encodeOcspRequest, parseOcspResponse } from './wire/ocsp.ts'

/** One list and one answer about a certificate on it. Times are seconds since 1970. */
export interface ListProof {
  /** As the list's URL names them. */
  issuer: string
  shard: number
  crlNumber: number
  thisUpdate: number
  /** Of the certificates asked about, those that should be on it, and those that are. */
  certificates: number
  listed: number
  /** What OCSP says of the first of them, and since when. */
  ocsp: 'revoked' | 'good' | 'unknown' | 'unavailable'
  ocspThisUpdate: number | null
}

export interface ConsumerProof {
  /** When they were asked. */
  at: number
  /** Certificates asked about that have not ended; and those of them on no list of this server, whose issuer has none here: nobody is told of them. */
  live: number
  unlisted: number
  /** Of those that have not ended, the ones on the lists that were read; and how many of these the lists name. */
  certificates: number
  listed: number
  /** Lists that speak of the certificates, one for each issuer and shard; of many, `read` evenly chosen ones were read, and as many OCSP answers. */
  lists: number
  read: number
  ocspRevoked: number
  /** The oldest, the newest and some between, at most shownMax. */
  shown: ListProof[]
}

export type ConsumerAnswer = { kind: 'seen'; proof: ConsumerProof } | { kind: 'unavailable'; detail: string }

/** Read for one proof, 200 KB the largest: a quarter of a million certificates in a row. Of more, these tell. */
const listsMax = 64
const shownMax = 8
/** As revocation-lists.ts reads: what is given is small enough to be forgotten soon. */
const pieceIndices = 1024

export interface ConsumerProofParts {
  store: Pick<Store, 'placedSerials' | 'placedIssuers'>
  issuers: readonly Issuer[]
  lists: Pick<RevocationLists, 'shard'>
  ocsp: Pick<OcspResponder, 'answer'>
  clock: Clock
}

/** `indices`: ascending. `unavailable` where a list cannot be had now; it can be asked again. Rejects with the store's errors. */
export async function proveToConsumers(
  { store, issuers, lists, ocsp, clock }: ConsumerProofParts,
  fleet: string,
  indices: Uint32Array,
): Promise<ConsumerAnswer> {
  const now = Math.floor(clock.now())
  const wanted = numberSet(indices)
  const known = new Map(issuers.map(issuer => [hexOf(issuer.keyId), issuer]))

  /** What the store says piece by piece of the wanted certificates in a shard. */
  async function inShard<T extends { idx: number }>(
    shard: number,
    ask: (piece: { fleet: string; from: number; to: number; since: number }) => Promise<T[]>,
  ): Promise<T[]> {
    const found: T[] = []
    const start = shard << shardBits
    for (let from = start; from < start + 2 ** shardBits; from += pieceIndices) {
      for (const one of await ask({ fleet, from, to: from + pieceIndices, since: now })) if (wanted.has(one.idx)) found.push(one)
      await nextTurn()
    }
    return found
  }

  /** Every list that speaks of a wanted certificate, by what the store has issued and not by whose keys are here. */
  async function placesOf(): Promise<{ places: { issuer: Issuer; shard: number }[]; live: number; unlisted: number }> {
    const places: { issuer: Issuer; shard: number }[] = []
    let [live, unlisted] = [0, 0]
    for (const shard of new Set(Array.from(indices, shardOf))) {
      const here = new Set<Issuer>()
      for (const { issuer } of await inShard(shard, piece => store.placedIssuers(piece))) {
        live++
        const listing = known.get(hexOf(issuer))
        if (listing) here.add(listing)
        else unlisted++
      }
      places.push(...issuers.filter(issuer => here.has(issuer)).map(issuer => ({ issuer, shard })))
    }
    return { places, live, unlisted }
  }

  async function answered(issuer: Issuer, serial: Bytes): Promise<Pick<ListProof, 'ocsp' | 'ocspThisUpdate'>> {
    const { subject, spki } = issuer.certificate
    const hashes = [subject, publicKeyBits(spki)].map(bytes => hash('sha256', bytes, 'buffer'))
    const { body } = await ocsp.answer(encodeOcspRequest(hashes[0], hashes[1], serial, null))
    const read = parseOcspResponse(body)
    if (typeof read === 'string') return { ocsp: 'unavailable', ocspThisUpdate: null }
    const [{ status, thisUpdate }] = read.responses
    return { ocsp: status.kind, ocspThisUpdate: thisUpdate }
  }

  const proofs: ListProof[] = []
  const { places, live, unlisted } = await placesOf()
  for (const { issuer, shard } of evenly(places, listsMax)) {
    const placed = await inShard(shard, piece => store.placedSerials({ ...piece, issuer: issuer.keyId }))
    // An intent that was given up since.
    if (placed.length === 0) continue
    const name = issuerName(issuer.keyId)
    const given = await lists.shard(name, fleet, shard)
    if (given.kind !== 'list') {
      const why = given.kind === 'unavailable' ? given.detail : 'no such list'
      return { kind: 'unavailable', detail: `CRL ${name}/${fleet}/${shard}: ${why}` }
    }
    const { number, thisUpdate } = given.list
    const named = listedSerials(given.list)
    const listed = placed.reduce((count, { serial }) => count + (named.has(hexOf(serial)) ? 1 : 0), 0)
    const about = { issuer: name, shard, crlNumber: number, thisUpdate, certificates: placed.length, listed }
    proofs.push({ ...about, ...(await answered(issuer, placed[0].serial)) })
  }
  const sum = (of: (proof: ListProof) => number) => proofs.reduce((total, proof) => total + of(proof), 0)
  return {
    kind: 'seen',
    proof: {
      ...{ at: now, live, unlisted },
      ...{ certificates: sum(proof => proof.certificates), listed: sum(proof => proof.listed) },
      ...{ lists: places.length, read: proofs.length },
      ocspRevoked: sum(proof => (proof.ocsp === 'revoked' ? 1 : 0)),
      shown: evenly(proofs, shownMax),
    },
  }
}

/** Whether no certificate is left that nobody here could tell of, and everybody who was asked said so. Where none is left at all, nothing is to be said. */
export function isProven({ live, unlisted, certificates, listed, read, ocspRevoked }: ConsumerProof): boolean {
  if (live === 0) return true
  return unlisted === 0 && read > 0 && listed === certificates && ocspRevoked === read
}

/** Content octets of the serials on a list that this process has made or verified, in hex. */
function listedSerials({ der }: Pick<SignedList, 'der'>): Set<string> {
  const [tbs] = partsOf(readWhole(der, SEQUENCE), SEQUENCE, 3, 3)
  const serials = new Set<string>()
  // version, algorithm, issuer, thisUpdate, nextUpdate; then the entries, if there are any (RFC 5280 5.1).
  let field = readElement(der, tbs.content, tbs.end)
  for (let i = 0; i < 5; i++) field = readElement(der, field.end, tbs.end)
  if (field.tag !== SEQUENCE) return serials
  for (let at = field.content; at < field.end; ) {
    const entry = readElement(der, at, field.end)
    const serial = readElement(der, entry.content, entry.end)
    if (serial.tag === INTEGER) serials.add(hexOf(contentOf(serial)))
    at = entry.end
  }
  return serials
}

/** At most `most`, the first and the last among them. */
function evenly<T>(all: readonly T[], most: number): T[] {
  if (all.length <= most) return [...all]
  return Array.from({ length: most }, (_, i) => all[Math.round((i * (all.length - 1)) / (most - 1))])
}
