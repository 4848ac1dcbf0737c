// What is asked of the store about many notices at once.

import { generateKeyPairSync } from 'node:crypto'
import { noticeSha256, signNotice } from '@birthmark/fleet-revocation'
import { expect, test } from 'vitest'
import { noticeKeysOf } from './notice-signing.ts'
import { unfit } from './published-notice.ts'

const fleet = 'acme'
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })

async function published(seq: number, gid: number) {
  const facts = { issuedAt: 1_800_000_000, maxAgeSeconds: 30, root: null, heartbeatAnchor: new Uint8Array(16), floor: 0 }
  const body = { ...facts, fleet, seq, previousSha256: seq === 1 ? null : new Uint8Array(32) }
  const rules = [{ kind: 'group' as const, gid, bound: 10 }]
  return { notice: await signNotice({ ...body, rules }, noticeKeysOf([privateKey])), body: { seq, rules, floor: 0 } }
}

test('[F45] the rules of the store, of which there may be millions, are read once for all notices, and only where one is another', async () => {
  const held = await Promise.all([1, 2, 3, 4].map(seq => published(seq, 1)))
  let read = 0
  const store: Parameters<typeof unfit>[0] = {
    newestNotice: () => store.notice(fleet, 4),
    async notice(_fleet, seq) {
      const { notice } = held[seq - 1]
      return { seq, notice, sha256: noticeSha256(notice), at: 0 }
    },
    rules: async () => [
      { kind: 'group', gid: 1, bound: 10 },
      { kind: 'group', gid: 2, bound: 10 },
    ],
    async standingSets() {
      read++
      return { floor: 0, issuers: [], blocks: [] }
    },
  }
  expect(await unfit(store, fleet, held)).toBeNull()
  expect(read).toBe(0)
  const others = await Promise.all([1, 2, 3].map(seq => published(seq, 2)))
  expect(await unfit(store, fleet, [...others, held[3]])).toBeNull()
  expect(read).toBe(1)
  expect(await unfit(store, fleet, [...others, await published(2, 3)])).toMatch(/notice 2 .* fork/)
  expect(await unfit(store, fleet, [await published(4, 2)])).toMatch(/notice 4 .* fork/)
  expect(await unfit(store, fleet, [await published(5, 1)])).toMatch(/older copy/)
})
