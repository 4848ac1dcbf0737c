// What the revoked of a million certificates weigh: our list against the entropy bound of such sets, a CRL, a Token Status List and the least
// that a two-level filter can take. Sizes are exact and the same on every machine; times are the median of five.

import { deflateSync } from 'node:zlib'
import { encodeElement, encodeSequence, encodeUnsigned, utf8Bytes } from '@birthmark/device-sdk/core'
import { createRuleSet, encodeList, listSpanMax, readList, runsOf } from '@birthmark/fleet-revocation'
import { groupedSet, mixedSet, type RevokedSet, randomSet } from './revoked-sets.ts'

const span = 1_000_000

/** Serial of 16 bytes and a date, no reason: what an entry takes at least. Around them some 200 bytes. */
const crlEntry = encodeSequence([encodeUnsigned(new Uint8Array(16).fill(0x5a)), encodeElement(0x17, [utf8Bytes('261122193000Z')])])
export const crlBytes = (count: number): number => 200 + count * crlEntry.length

/** draft-ietf-oauth-status-list: one bit each, DEFLATE at its best. */
function statusListBytes({ indices }: RevokedSet): number {
  const bits = new Uint8Array(span / 8)
  for (const idx of indices) bits[idx >> 3] |= 1 << (idx & 7)
  return deflateSync(bits, { level: 9 }).length
}

/** A filter with false positives at 2^-k, and a bit for everyone it lets through; both without any overhead, at the best k. */
function filterBytes(count: number): number {
  let best = span
  for (let k = 0; k < 24; k++) best = Math.min(best, k * count + count + (span - count) * 2 ** -k)
  return Math.ceil(best / 8)
}

function medianMs(run: () => void): number {
  const times = [0, 1, 2, 3, 4].map(() => {
    const began = performance.now()
    run()
    return performance.now() - began
  })
  return times.sort((a, b) => a - b)[2]
}

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const counts = [100, 1000, 10_000, 100_000, 250_000, 500_000]
  const kinds: [string, (count: number) => RevokedSet][] = [
    ['random', count => randomSet(span, count, 1 + count)],
    ['grouped', count => groupedSet(span, count, Math.max(2, count / 1000), 2 + count)],
    ['mixed', count => mixedSet(span, count, Math.max(2, count / 1000), 3 + count)],
  ]
  const figures: Record<string, number> = { worstRatioFrom1k: 0, ratioAt100: 0, worstMixedRatio: 0 }
  const line = (cells: (string | number)[]) =>
    cells.map((cell, i) => (i === 0 ? String(cell).padEnd(8) : String(cell).padStart(11))).join('')
  const rows = [line(['set', 'revoked', 'bound B', 'ours B', 'ratio', 'CRL B', 'status B', 'filter B', 'encode ms', 'decode ms'])]
  for (const [kind, make] of kinds)
    for (const count of counts) {
      const set = make(count)
      const runs = runsOf(set.indices)
      const { codec, coded } = encodeList(span, runs)
      const ratio = coded.length / set.boundBytes
      const encodeMs = medianMs(() => encodeList(span, runs))
      const decodeMs = medianMs(() => readList(span, codec, coded, listSpanMax, () => {}))
      if (kind === 'random' && count === 100) figures.ratioAt100 = ratio
      if (kind === 'random' && count >= 1000) figures.worstRatioFrom1k = Math.max(figures.worstRatioFrom1k, ratio)
      if (kind === 'mixed' && count >= 1000) figures.worstMixedRatio = Math.max(figures.worstMixedRatio, ratio)
      if (kind === 'random' && count === 500_000) Object.assign(figures, { encode500kMs: encodeMs, decode500kMs: decodeMs })
      const sizes = [
        Math.ceil(set.boundBytes),
        coded.length,
        ratio.toFixed(3),
        crlBytes(count),
        statusListBytes(set),
        filterBytes(count),
      ]
      rows.push(line([kind, count, ...sizes, encodeMs.toFixed(1), decodeMs.toFixed(1)]))
    }

  // The question that every request asks, with 100,000 revoked by lists and 1,000 groups beside them.
  const { indices } = randomSet(span, 100_000, 7)
  const rules = createRuleSet([
    { kind: 'list', base: 0, span, ...encodeList(span, runsOf(indices)) },
    ...Array.from({ length: 1000 }, (_, n) => ({ kind: 'group' as const, gid: n + 1, bound: 500 })),
  ])
  const asked = Array.from({ length: 4096 }, (_, n) => ({ idx: (n * 7919) % span, gids: [1 + (n % 1000), 5000, 6000] }))
  let revoked = 0
  const rounds = 250
  const askMs = medianMs(() => {
    for (let round = 0; round < rounds; round++) for (const member of asked) if (rules.isRevoked(member, null)) revoked++
  })
  figures.isRevokedNs = (askMs * 1e6) / (rounds * asked.length)
  rows.push(
    '',
    `isRevoked with 100,000 certificates and 1,000 groups: ${figures.isRevokedNs.toFixed(0)} ns (${revoked} asked and revoked)`,
  )
  for (const name of Object.keys(figures)) figures[name] = Number(figures[name].toFixed(4))
  return { table: rows.join('\n'), figures }
}
