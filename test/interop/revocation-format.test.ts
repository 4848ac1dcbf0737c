// docs/revocation-format.md is enough to build from: a reader in another language, written from that page alone, reads its examples.

import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { available, run } from './debian.ts'

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url))
// Debian's own, which has Debian's cbor2; another Python may come first in the path.
const python = '/usr/bin/python3'
const cbor2 = '/usr/lib/python3/dist-packages/cbor2'

describe.skipIf(!available({ [python]: 'python3', [cbor2]: 'python3-cbor2', openssl: 'openssl' }))(
  'the format, read by a program that nobody here linked',
  () => {
    it('signatures, history, rules, both codes of lists, heartbeats, proofs and snapshots come out as the page says', async () => {
      const { stdout } = await run(python, [here('python/read_revocations.py'), here('../../docs/revocation-examples.txt')])
      const counted = (from: number, length: number) => Array.from({ length }, (_, i) => from + i)
      const everyThird = Array.from({ length: 600 }, (_, n) => 3 * n)
      const certificates = [10, 11, 15, 1000, ...counted(5000, 64)]
      const rules = { groups: { 7: 1000, 300: 70_000 }, certificates, issuers: ['aa'.repeat(20)] }
      expect(JSON.parse(stdout)).toEqual({
        signers: [1, 2, 1, 1],
        chain: [null, true, true],
        heartbeat: [1, true],
        first: ['example', 1, { groups: { 7: 1000 }, certificates: [], issuers: [] }],
        second: [2, 3, rules, true],
        snapshot: [2, 3, rules],
        lists: {
          'list of 0 1 5 990': [
            [0, 1, 5, 990],
            [0, 1, 5, 990],
          ],
          'list of every third': [everyThird, everyThird],
        },
        proofs: [
          [2, 'revoked'],
          [2, 'good'],
        ],
        answer: true,
        acknowledgement: ['gateway', 2, 1_800_000_003, 12],
      })
    })
  },
)
