// A chunk of a manifest as it travels to the writer thread: a few long values instead of thousands of small objects, each of which would be
// cloned, and a dictionary for what repeats.

import type { ManifestEntry } from './store.ts'

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

export function packManifest(entries: ManifestEntry[]): PackedManifest {
  const count = entries.length
  const spkis = Buffer.alloc(32 * count)
  const birthHashes = Buffer.alloc(32 * count)
  const kinds: PackedManifest['kinds'] = []
  const kindOf = new Uint16Array(count)
  const known = new Map<string, number>()
  const serials: string[] = []
  for (const [i, { serial, spkiSha256, birthCertificateSha256, groups, keyOrigin, issuerSubject = null }] of entries.entries()) {
    serials.push(serial)
    spkis.write(spkiSha256, 32 * i, 'hex')
    if (birthCertificateSha256) birthHashes.write(birthCertificateSha256, 32 * i, 'hex')
    const hasBirthHash = birthCertificateSha256 !== undefined
    const name = `${keyOrigin}\n${hasBirthHash}\n${issuerSubject ?? ''}\n${groups.join('\n')}`
    let kind = known.get(name)
    if (kind === undefined) {
      kind = kinds.length
      known.set(name, kind)
      kinds.push({ groups, keyOrigin, issuerSubject, hasBirthHash })
    }
    kindOf[i] = kind
  }
  return { count, serials: serials.join('\n'), spkis, birthHashes, kinds, kindOf }
}
