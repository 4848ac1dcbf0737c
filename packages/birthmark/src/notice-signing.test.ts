import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Store } from '@birthmark/est-server'
import { createHeartbeats, heartbeatChain, nodeVerify, noticeKeyId, noticeSha256, openNotice } from '@birthmark/fleet-revocation'
import { expect, test } from 'vitest'
import { heartbeatSecret, noticeKeysOf, noticeSigner, noticeSpki, outboxOf } from './notice-signing.ts'

/** A store that holds notices 1 to `count`. */
function storeOf(count: number): Store {
  const notice = async (_fleet: string, seq: number) =>
    seq >= 1 && seq <= count ? { seq, notice: Uint8Array.of(seq), sha256: new Uint8Array(32), at: 0 } : null
  const newestNotice = (fleet: string) => notice(fleet, count)
  return { notice, newestNotice } as Partial<Store> as Store
}

test('the newest notices come in ascending order, however few there are', async () => {
  const seqs = async (count: number, limit: number): Promise<number[]> =>
    (await outboxOf(storeOf(count), 'f', () => 0, { before: async () => {} }).recent(limit)).map(n => n.seq)
  expect(await seqs(5, 3)).toEqual([3, 4, 5])
  expect(await seqs(2, 64)).toEqual([1, 2])
  expect(await seqs(0, 64)).toEqual([])
})

test('a signed notice verifies, carries the rules and the anchor of its own heartbeats', async () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const secret = randomBytes(32)
  const sign = noticeSigner(noticeKeysOf([privateKey]), createHeartbeats(secret, 'acme'))
  const spki = noticeSpki(privateKey)
  for (const seq of [1, 5]) {
    const { notice, sha256 } = await sign({
      fleet: 'acme',
      seq,
      previousSha256: null,
      floor: 0,
      followed: false,
      issuedAt: 1_790_000_000,
      devices: 1,
      rules: [{ kind: 'group', gid: 3, bound: 17 }],
    })
    openNotice(notice, 'acme', [{ keyId: noticeKeyId(spki), algorithm: -7, spki }], nodeVerify(), (problem, body) => {
      expect(problem).toBeNull()
      expect(body).toMatchObject({ seq, rules: [{ kind: 'group', gid: 3, bound: 17 }] })
      expect(Buffer.from(body?.heartbeatAnchor ?? [])).toEqual(Buffer.from(heartbeatChain(secret, 'acme', seq).anchor))
    })
    expect(sha256).toEqual(noticeSha256(notice))
    expect.assertions(seq === 1 ? 4 : 8)
  }
})

test('the heartbeat secret is made once and is its owner’s alone', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bm-'))
  try {
    const file = join(folder, 'heartbeat.key')
    const secret = heartbeatSecret(file)
    expect(secret).toHaveLength(32)
    expect(Buffer.from(heartbeatSecret(file))).toEqual(Buffer.from(secret))
    expect(statSync(file).mode & 0o777).toBe(0o600)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
