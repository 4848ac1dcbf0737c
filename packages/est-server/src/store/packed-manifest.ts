// A chunk of a manifest as it travels to the writer thread: a few long values instead of thousands of small objects, each of which would be
// cloned, and a dictionary for what repeats. Entries are judged while they are packed, a character at a time: of a million rows nothing is
// left but bytes.

import { EstServerError } from '../errors.ts'
import { type ManifestEntry, manifestEntriesMax } from './store.ts'

export interface PackedManifest {
  count: number
  /** Serials, a line each. */
  serials: string
  /** 32 bytes each. */
  spkis: Uint8Array
  /** 32 bytes each; zeros for none. */
  birthHashes: Uint8Array
  /** What repeats, and which of these each entry has. */
  kinds: { groups: string[]; keyOrigin: 'device' | 'host'; issuerSubject: string | null; hasBirthHash: boolean }[]
  kindOf: Uint16Array
}

type Kind = PackedManifest['kinds'][number]

export interface ManifestPacker {
  readonly count: number
  /** Why the entry cannot be taken, or null: it is in. At most manifestEntriesMax go into one chunk. */
  add(entry: ManifestEntry): string | null
  /** What was added since the last time. */
  take(): PackedManifest
}

/** Values of lower-case hexadecimal digits; 16 for every other character below 128. */
const digits = Uint8Array.from({ length: 128 }, (_, code) => {
  const value = '0123456789abcdef'.indexOf(String.fromCharCode(code))
  return value < 0 ? 16 : value
})

/** Puts 32 bytes of lower-case hexadecimal at `at`. False: it is something else. */
function putDigest(text: unknown, into: Uint8Array, at: number): boolean {
  if (typeof text !== 'string' || text.length !== 64) return false
  let wrong = 0
  for (let i = 0; i < 32; i++) {
    const high = text.charCodeAt(2 * i)
    const low = text.charCodeAt(2 * i + 1)
    const h = digits[high & 127]
    const l = digits[low & 127]
    wrong |= high | low | ((h | l) << 3)
    into[at + i] = (h << 4) | l
  }
  return wrong < 128
}

function isOfKind(kind: Kind, e: ManifestEntry): boolean {
  const { groups } = kind
  if (e.keyOrigin !== kind.keyOrigin || (e.birthCertificateSha256 !== undefined) !== kind.hasBirthHash) return false
  if ((e.issuerSubject ?? null) !== kind.issuerSubject || !Array.isArray(e.groups) || e.groups.length !== groups.length)
    return false
  for (let i = 0; i < groups.length; i++) if (e.groups[i] !== groups[i]) return false
  return true
}

/** What is wrong with an entry's serial, and with what many entries share, or null. */
export interface EntryJudge {
  serial(serial: unknown): string | null
  kind(entry: ManifestEntry): string | null
}

/** `judge`: null for entries that were judged before. */
export function createManifestPacker(judge: EntryJudge | null): ManifestPacker {
  let serials: string[] = []
  let spkis = new Uint8Array(32 * manifestEntriesMax)
  let birthHashes = new Uint8Array(32 * manifestEntriesMax)
  let kindOf = new Uint16Array(manifestEntriesMax)
  let kinds: Kind[] = []
  let known = new Map<string, number>()
  let last = 0

  /** The number of the entry's kind, or what is wrong with it. What has been seen in the chunk is not judged again. */
  function kindNumber(e: ManifestEntry): number | string {
    if (kinds.length > 0 && isOfKind(kinds[last], e)) return last
    const problem = judge && judge.kind(e)
    if (problem !== null) return problem
    const { groups, keyOrigin, issuerSubject = null } = e
    const hasBirthHash = e.birthCertificateSha256 !== undefined
    const name = JSON.stringify([groups, keyOrigin, issuerSubject, hasBirthHash])
    let kind = known.get(name)
    if (kind === undefined) {
      kind = kinds.length
      known.set(name, kind)
      kinds.push({ groups, keyOrigin, issuerSubject, hasBirthHash })
    }
    return kind
  }

  return {
    get count() {
      return serials.length
    },
    add(e) {
      const i = serials.length
      const problem = judge && judge.serial(e.serial)
      if (problem !== null) return problem
      if (!putDigest(e.spkiSha256, spkis, 32 * i)) return 'spkiSha256 is not 64 lower-case hex digits'
      if (e.birthCertificateSha256 === undefined) birthHashes.fill(0, 32 * i, 32 * i + 32)
      else if (!putDigest(e.birthCertificateSha256, birthHashes, 32 * i))
        return 'birthCertificateSha256 is not 64 lower-case hex digits'
      const kind = kindNumber(e)
      if (typeof kind === 'string') return kind
      last = kind
      kindOf[i] = kind
      serials.push(e.serial)
      return null
    },
    take() {
      const count = serials.length
      const packed = {
        ...{ count, serials: serials.join('\n'), kinds, kindOf },
        ...{ spkis: spkis.subarray(0, 32 * count), birthHashes: birthHashes.subarray(0, 32 * count) },
      }
      serials = []
      // A driver may keep the chunk for as long as it likes.
      spkis = new Uint8Array(32 * manifestEntriesMax)
      birthHashes = new Uint8Array(32 * manifestEntriesMax)
      kindOf = new Uint16Array(manifestEntriesMax)
      kinds = []
      known = new Map()
      last = 0
      return packed
    },
  }
}

/** Throws `manifest_invalid` for an entry whose hashes are none, and for more than fit. */
export function packManifest(entries: readonly ManifestEntry[]): PackedManifest {
  if (entries.length > manifestEntriesMax)
    throw new EstServerError('manifest_invalid', `more than ${manifestEntriesMax} entries at once`)
  const packer = createManifestPacker(null)
  for (const entry of entries) {
    const problem = packer.add(entry)
    if (problem !== null) throw new EstServerError('manifest_invalid', problem)
  }
  return packer.take()
}

/** The entries of a chunk, each with its bytes. */
export function* packedEntries(chunk: PackedManifest) {
  let from = 0
  for (let i = 0; i < chunk.count; i++) {
    const end = chunk.serials.indexOf('\n', from)
    const id = chunk.serials.slice(from, end < 0 ? undefined : end)
    from = end + 1
    const { hasBirthHash, ...kind } = chunk.kinds[chunk.kindOf[i]]
    const birthSpki = chunk.spkis.subarray(32 * i, 32 * i + 32)
    yield { id, birthSpki, birthHash: hasBirthHash ? chunk.birthHashes.subarray(32 * i, 32 * i + 32) : null, ...kind }
  }
}
