import type { Bytes, DeviceError, Membership } from '@birthmark/device-sdk/core'
import { deviceError } from '@birthmark/device-sdk/core'
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import { createDeviceReceiver, type DeviceReceiver, type DeviceStore } from './device.ts'
import { signNotice } from './sign-notice.ts'
import { createTestHistory } from './testing/history.ts'
import { createTestNoticeKey } from './testing/notice-key.ts'
import { nodeVerify } from './verify.ts'

const key = createTestNoticeKey()
const history = createTestHistory(key)
const own: Membership = { fleet: 'acme', idx: 10, gids: [7, 9] }
const noticeAt = (seq: number): Bytes => history.notices[seq - 1].notice

beforeAll(async () => {
  // 100 notices: number 50 bounds group 7 just below this device, number 90 just above it.
  for (let seq = 1; seq <= 100; seq++)
    await history.add([{ kind: 'group', gid: seq === 50 || seq === 90 ? 7 : 1000 + seq, bound: seq === 50 ? 10 : 11 }])
})

interface MemoryStore extends DeviceStore {
  record: Bytes | null
  failure: DeviceError | null
}

function memoryStore(): MemoryStore {
  const store: MemoryStore = {
    record: null,
    failure: null,
    get: () => store.record,
    put: (_name, value) => {
      if (store.failure) throw store.failure
      store.record = value
    },
  }
  return store
}

function receiver(store: DeviceStore = memoryStore(), membership: Membership | null = own): DeviceReceiver {
  return createDeviceReceiver({ fleet: 'acme', membership: () => membership, signers: [key.signer], verify: nodeVerify(), store })
}

function give(device: DeviceReceiver, notice: Bytes): { error: string | null; revoked: boolean } {
  let result = { error: 'not answered' as string | null, revoked: false }
  device.receive('fr/1/acme/head', notice, (error, revoked) => {
    result = { error: error ? error.message : null, revoked }
  })
  return result
}

const ring = (seq: number) => `fr/1/acme/n/${seq % 64}`

describe('a device', () => {
  it('learns from one notice that its group is revoked, and knows it after a restart', () => {
    const store = memoryStore()
    const device = receiver(store)
    expect(device.revoked()).toBe(false)
    expect(give(device, noticeAt(90))).toEqual({ error: null, revoked: true })
    expect(receiver(store).revoked()).toBe(true)
    expect(give(receiver(store), noticeAt(91)).revoked).toBe(true)
  })

  it('is not revoked by a bound that its idx has reached, nor by another group', () => {
    const device = receiver()
    expect(give(device, noticeAt(50))).toEqual({ error: null, revoked: false })
    expect(give(device, noticeAt(51))).toEqual({ error: null, revoked: false })
  })

  it('is revoked by a floor above its idx', async () => {
    const floors = createTestHistory(key)
    expect(give(receiver(), await floors.add([], { floor: 10 })).revoked).toBe(false)
    expect(give(receiver(), await floors.add([], { floor: 11 })).revoked).toBe(true)
  })

  it('works again with a new certificate, which has a higher idx', () => {
    const store = memoryStore()
    give(receiver(store), noticeAt(90))
    expect(receiver(store, { ...own, idx: 200 }).revoked()).toBe(false)
  })

  it('[F47] refuses what is unsigned, of another key, fleet or size, and its state stays', async () => {
    const store = memoryStore()
    const device = receiver(store)
    give(device, noticeAt(3))
    const before = store.record
    const other = createTestNoticeKey()
    const bad: [string, Bytes][] = [
      ['notice_malformed', new Uint8Array(0)],
      ['notice_malformed', new Uint8Array([0xd2, 0x84])],
      ['notice_too_large', new Uint8Array(10 << 20)],
      ['notice_signer_unknown', await createTestHistory(other).add([{ kind: 'group', gid: 7, bound: 99 }])],
      ['notice_other_fleet', await createTestHistory(key, { fleet: 'other' }).add([{ kind: 'group', gid: 7, bound: 99 }])],
      ['notice_signature', Buffer.from(noticeAt(90)).fill(0, noticeAt(90).length - 8)],
    ]
    for (const [problem, notice] of bad)
      expect(give(device, notice)).toEqual({ error: `notice_rejected: ${problem}`, revoked: false })
    expect(store.record).toBe(before)
  })

  it('[F44] ignores an older notice and a repeated one, also after a restart', () => {
    const store = memoryStore()
    const device = receiver(store)
    for (let seq = 1; seq <= 5; seq++) give(device, noticeAt(seq))
    const before = store.record
    for (const seq of [5, 4, 1]) {
      expect(give(device, noticeAt(seq)).error).toBeNull()
      expect(give(receiver(store), noticeAt(seq)).error).toBeNull()
    }
    expect(store.record).toBe(before)
    expect(device.progress()).toEqual({ seq: 5, missing: 0 })
  })

  it('[F45] obeys a number that comes again with other rules: a publisher came back from a backup', async () => {
    const store = memoryStore()
    const device = receiver(store)
    for (let seq = 1; seq <= 5; seq++) give(device, noticeAt(seq))
    const again = createTestHistory(key)
    for (const bound of [1, 10, 11]) {
      const notice = await again.add([{ kind: 'group', gid: 9, bound }])
      expect(give(device, notice)).toEqual({ error: null, revoked: bound === 11 })
      expect(device.progress()).toEqual({ seq: 5, missing: 0 })
    }
    expect(receiver(store).revoked()).toBe(true)
    const { record } = store
    for (const { notice } of again.notices) give(device, notice)
    expect(store.record).toBe(record)
  })

  it('asks the ring for what is missing, and no longer once it has it', () => {
    const device = receiver()
    for (const seq of [1, 2, 5]) give(device, noticeAt(seq))
    expect(device.topics).toEqual(['fr/1/acme/head', ring(3), ring(4)])
    give(device, noticeAt(4))
    expect(device.topics).toEqual(['fr/1/acme/head', ring(3)])
    give(device, noticeAt(3))
    expect(device.topics).toEqual(['fr/1/acme/head'])
  })

  it('does not ask for what has left the ring', () => {
    const device = receiver()
    give(device, noticeAt(1))
    give(device, noticeAt(100))
    expect(device.progress()).toEqual({ seq: 100, missing: 63 })
    expect(device.topics).toHaveLength(64)
    expect(give(device, noticeAt(20)).error).toBeNull()
    expect(device.progress().missing).toBe(63)
    expect(give(device, noticeAt(90)).revoked).toBe(true)
    expect(device.progress().missing).toBe(62)
  })

  it('[F53] comes to the same end whatever the order and however often', () => {
    fc.assert(
      fc.property(
        fc.shuffledSubarray(
          [...Array(12).keys()].map(n => n + 82),
          { minLength: 6 },
        ),
        fc.integer({ min: 0, max: 5 }),
        (order, again) => {
          const device = receiver()
          for (const seq of [...order, order[again]]) give(device, noticeAt(seq))
          expect(device.revoked()).toBe(order.includes(90))
          expect(device.progress().seq).toBe(Math.max(...order))
        },
      ),
      { numRuns: 30 },
    )
  })

  it('keeps its record under 2 KB at its largest', async () => {
    const store = memoryStore()
    const gids = [1, 2, 3, 4, 5, 6, 7, 8].map(n => 2 ** 31 - n).sort((a, b) => a - b)
    const far = await signNotice(
      {
        fleet: 'a'.repeat(32),
        seq: 2 ** 53 - 1,
        previousSha256: new Uint8Array(32),
        issuedAt: 1,
        maxAgeSeconds: 30,
        heartbeatAnchor: new Uint8Array(16),
        rules: gids.map(gid => ({ kind: 'group', gid, bound: 2 ** 31 })),
        root: null,
        floor: 2 ** 31,
      },
      key,
    )
    const device = createDeviceReceiver({
      fleet: 'a'.repeat(32),
      membership: () => ({ fleet: 'a'.repeat(32), idx: 1, gids }),
      signers: [key.signer],
      verify: nodeVerify(),
      store,
    })
    expect(give(device, far)).toEqual({ error: null, revoked: true })
    expect(store.record?.length).toBeLessThan(2048)
    expect(device.topics).toHaveLength(64)
  })

  it('[F57] says when its record could not be written, and believes nothing that it would forget', () => {
    const store = memoryStore()
    const device = receiver(store)
    store.failure = deviceError('store_write', 'full')
    expect(give(device, noticeAt(90))).toEqual({ error: 'store_write: full', revoked: false })
    store.failure = null
    expect(give(device, noticeAt(90))).toEqual({ error: null, revoked: true })
  })

  it('begins anew with a damaged record or one of another fleet', () => {
    for (const record of [new Uint8Array([1, 2, 3]), new Uint8Array(0), new Uint8Array([0x86, 1, 0x61, 0x78, 0, 0x80, 0, 0x80])]) {
      const store = memoryStore()
      store.record = record
      const device = receiver(store)
      expect(device.progress()).toEqual({ seq: 0, missing: 0 })
      expect(give(device, noticeAt(90)).revoked).toBe(true)
    }
  })

  it('has nothing to lose before it is enrolled', () => {
    const device = receiver(memoryStore(), null)
    expect(give(device, noticeAt(90))).toEqual({ error: null, revoked: false })
    expect(device.progress().seq).toBe(0)
  })
})
