// What revocation weighs on the wire: a notice for a group of any size, a further rule in it, a thousand single devices against a delta CRL,
// and the proof of one device's status at 10 % revoked. Sizes only, the same on every machine.

import {
  checkBlockProof,
  createRevokedTree,
  encodeNoticeBody,
  nodeSha256,
  noticeBytesMax,
  packRules,
  type Rule,
  rulesOfIndices,
  signNotice,
} from '@birthmark/fleet-revocation'
import { createTestNoticeKey } from '../packages/fleet-revocation/src/testing/notice-key.ts'
import { randomSet, seeded } from './revoked-sets.ts'
import { crlBytes } from './snapshot.ts'

const span = 1_000_000
const key = createTestNoticeKey()

/** Numbers of a large fleet after years, so that no later notice is larger. */
function bodyOf(rules: Rule[]) {
  return {
    fleet: 'acme-europe',
    seq: 70_000,
    previousSha256: new Uint8Array(32).fill(1),
    issuedAt: 1_800_000_000,
    maxAgeSeconds: 30,
    heartbeatAnchor: new Uint8Array(16).fill(2),
    rules,
    root: null,
    floor: 0,
  }
}

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const rows: string[] = []
  const line = (what: string, bytes: number | string) => rows.push(`${what.padEnd(66)}${String(bytes).padStart(10)}`)

  let groupNoticeBytes = 0
  for (const size of [1, 1000, span, 2 ** 31]) {
    const notice = await signNotice(bodyOf([{ kind: 'group', gid: 70_000, bound: size, reason: 1 }]), key)
    groupNoticeBytes = Math.max(groupNoticeBytes, notice.length)
    line(`notice that revokes a group of up to ${size.toLocaleString('en')} devices`, notice.length)
  }

  // Every second group of a fleet that has a thousand, their bounds anywhere in a million.
  const random = seeded(5)
  const groups = Array.from(
    { length: 500 },
    (_, n): Rule => ({ kind: 'group', gid: 2 * n + 1, bound: Math.floor(random() * span) }),
  )
  const empty = encodeNoticeBody({ ...bodyOf([]), unknownRules: 0 }).length
  const one = groups.map(rule => encodeNoticeBody({ ...bodyOf([rule]), unknownRules: 0 }).length - empty)
  const alone = one.reduce((sum, bytes) => sum + bytes, 0) / one.length
  const whole = await signNotice(bodyOf(packRules(groups)), key)
  const bytesPerRule = (whole.length - (await signNotice(bodyOf([]), key)).length) / groups.length
  line('a group rule by itself, mean', alone.toFixed(2))
  line(`a group rule among ${groups.length} of one notice (${whole.length} bytes)`, bytesPerRule.toFixed(2))

  const individuals = 1000
  const delta = await signNotice(bodyOf(rulesOfIndices(randomSet(span, individuals, 9).indices, noticeBytesMax)), key)
  const crl = crlBytes(individuals)
  line(`${individuals} single devices of a million in a notice`, delta.length)
  line('  as a delta CRL', crl)

  const tree = createRevokedTree()
  const tenth = randomSet(span, span / 10, 11)
  for (const idx of tenth.indices) tree.add(idx, 1)
  const root = tree.root()
  const revoked = new Set(tenth.indices)
  let largest = 0
  let sum = 0
  let proofs = 0
  for (let idx = 0; idx < span; idx += 977) {
    const proof = tree.prove(70_000, idx)
    if (checkBlockProof(proof, 70_000, root, idx, nodeSha256) !== (revoked.has(idx) ? 'revoked' : 'good'))
      throw new Error(`the proof for ${idx} is wrong`)
    largest = Math.max(largest, proof.length)
    sum += proof.length
    proofs++
  }
  line('proof of one device of a million, 10 % revoked: largest', largest)
  line('  mean', (sum / proofs).toFixed(0))

  const figures = {
    groupNoticeBytes,
    bytesPerRule: Number(bytesPerRule.toFixed(2)),
    deltaOfCrl: Number((crl / delta.length).toFixed(1)),
    proofBytesAt10Percent: largest,
  }
  return { table: rows.join('\n'), figures }
}
