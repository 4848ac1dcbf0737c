import { generateKeyPairSync } from 'node:crypto'
import type { NoticeInput } from '@birthmark/est-server'
import { createHeartbeats, type NoticeKey, nodeVerify, noticeKeyId, openNotice } from '@birthmark/fleet-revocation'
import { expect, it } from 'vitest'
import { CountersignInput, namedBy, takesTwoKeys } from './countersigning.ts'
import { noticeKeysOf, noticeSigner, noticeSpki } from './notice-signing.ts'

const ask = (written: unknown, devices: number, known = 1000) =>
  takesTwoKeys(CountersignInput.parse(written), devices, async () => known)

it('two keys sign above a number, a share of the fleet, or whichever of both is less', async () => {
  expect([await ask(100, 100), await ask(100, 101)]).toEqual([false, true])
  expect([await ask('5%', 50), await ask('5%', 51), await ask('0.5%', 6)]).toEqual([false, true, true])
  const both = { devices: 100, share: '5%' }
  expect([await ask(both, 51), await ask(both, 101, 10_000), await ask(both, 50)]).toEqual([true, true, false])
  expect([await ask(0, 1), await ask(0, 0), await ask('100%', 1000)]).toEqual([true, false, false])
  expect(await takesTwoKeys(null, 1e9, async () => 1)).toBe(false)
  for (const wrong of ['5', '101%', -1, 1.5, { part: 1 }]) expect(CountersignInput.safeParse(wrong).success).toBe(false)
})

it('[F40] when the first key is gone the one that stands by signs, and who knows both believes it; above the share it needs both', async () => {
  const pairs = [1, 2].map(() => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
  const [first, standby] = noticeKeysOf(pairs)
  const signers = pairs.map(noticeSpki).map(spki => ({ keyId: noticeKeyId(spki), algorithm: -7 as const, spki }))
  const dead: NoticeKey = { ...first, sign: () => Promise.reject(new Error('the token was taken away')) }
  const heartbeats = createHeartbeats(new Uint8Array(32), 'acme')
  const input = {
    ...{ fleet: 'acme', seq: 1, previousSha256: null, issuedAt: 1_800_000_000, floor: 0, followed: false },
    rules: [{ kind: 'range' as const, start: 5, length: 60 }],
  }
  const judged = (notice: Uint8Array) => {
    let out: unknown = null
    openNotice(notice, 'acme', signers, nodeVerify(), (problem, body, countersigned) => {
      out = [problem, body?.rules.length, countersigned]
    })
    return out
  }
  const above = (devices: number) => ask('5%', devices)
  const alone = noticeSigner([dead, standby], heartbeats, { countersign: above })
  expect(judged((await alone({ ...input, devices: 1 })).notice)).toEqual([null, 1, false])
  await expect(alone({ ...input, devices: 60 })).rejects.toThrow('taken away')
  expect(
    judged((await noticeSigner([first, standby], heartbeats, { countersign: above })({ ...input, devices: 60 })).notice),
  ).toEqual([null, 1, true])
  // What it repeats is worth two signatures where there are two keys, and holds up no revocation where there is one.
  const repeating = { ...input, devices: 1, floor: 500 }
  const options = { countersign: above, namedBy: (all: NoticeInput) => namedBy(all, async () => []) }
  expect(judged((await noticeSigner([first, standby], heartbeats, options)(repeating)).notice)).toEqual([null, 1, true])
  expect(judged((await noticeSigner([dead, standby], heartbeats, options)(repeating)).notice)).toEqual([null, 1, false])
})
