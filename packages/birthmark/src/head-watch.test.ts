// What the broker shows is compared before it is written over, whatever fails meanwhile.

import { generateKeyPairSync } from 'node:crypto'
import type { NoticeRecord } from '@birthmark/est-server'
import { headTopic, heartbeatTopic, noticeSha256, type Rule, ringTopic, signNotice } from '@birthmark/fleet-revocation'
import { beforeEach, expect, test } from 'vitest'
import { watchHead } from './head-watch.ts'
import { noticeKeysOf } from './notice-signing.ts'

const fleet = 'acme'
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const group = (gid: number): Rule => ({ kind: 'group', gid, bound: 10 })

function sign(seq: number, ...gids: number[]): Promise<Uint8Array> {
  const facts = {
    previousSha256: seq === 1 ? null : new Uint8Array(32),
    issuedAt: 1_800_000_000,
    maxAgeSeconds: 30,
    root: null,
    floor: 0,
  }
  return signNotice(
    { fleet, seq, ...facts, heartbeatAnchor: new Uint8Array(16), rules: gids.map(group) },
    noticeKeysOf([privateKey]),
  )
}

let held: Map<number, Uint8Array>
/** How often the store fails before it answers. */
let failures: number
let noted: Uint8Array[]
let fatal: Error[]
let written: string[]
let show: (notice: Uint8Array) => void
let granted: () => void
let isConnected: boolean
let connection: { begin(): void; end(): void }
let sleeping: { seconds: number; wake(): void }[]
let diskIsFull: boolean

beforeEach(() => {
  held = new Map()
  failures = 0
  diskIsFull = false
  isConnected = false
  noted = []
  fatal = []
  written = []
  sleeping = []
})

function wakeAfter(seconds: number): void {
  const [timer] = sleeping.splice(
    sleeping.findIndex(timer => timer.seconds === seconds),
    1,
  )
  timer.wake()
}

function watch() {
  const record = async (seq: number): Promise<NoticeRecord | null> => {
    if (failures-- > 0) throw new Error('the store is away')
    const notice = held.get(seq)
    return notice ? { seq, notice, sha256: noticeSha256(notice), at: 0 } : null
  }
  const watched = watchHead({
    bus: {
      async subscribe(_topic, onMessage, onGranted = () => {}) {
        show = notice => onMessage(headTopic(fleet), notice)
        granted = onGranted
      },
      connected: () => isConnected,
      onConnect(callback) {
        connection = { ...connection, begin: callback }
      },
      onClose(callback) {
        connection = { ...connection, end: () => callback(null) }
      },
    },
    settings: { fleet, notices: { keys: [privateKey], countersignAbove: null } },
    store: {
      newestNotice: () => record(Math.max(0, ...held.keys())),
      notice: (_fleet, seq) => record(seq),
      rules: async () => [{ kind: 'group', gid: 1, bound: 10 }],
      standingSets: async () => ({ floor: 0, issuers: [], blocks: [] }),
    },
    published: {
      note(notice) {
        if (diskIsFull) throw Object.assign(new Error('no space left'), { code: 'ENOSPC', errno: -28 })
        noted.push(notice)
      },
    },
    clock: {
      now: () => 0,
      setTimer(seconds, wake) {
        const timer = { seconds, wake }
        sleeping.push(timer)
        return () => {
          sleeping = sleeping.filter(other => other !== timer)
        }
      },
    },
    log: { info() {}, warn() {}, error() {} },
    onFatal: error => fatal.push(error),
  })
  const bus = watched.behind({
    async publish(topic) {
      written.push(topic)
    },
  })
  const publish = (topic: string, qos: 0 | 1 = 1) => bus.publish(topic, new Uint8Array(), { qos, retain: qos === 1 })
  return { watched, publish }
}

const older = { code: 'store_older' }

test('[F45] a store that is away for a moment does not let an older head be written over the one that shows it', async () => {
  held.set(1, await sign(1, 1))
  const { publish } = watch()
  failures = 2
  const newer = await sign(2, 2)
  show(newer)
  const ours = expect(publish(headTopic(fleet))).rejects.toMatchObject(older)
  // Heartbeats do not wait for a store.
  await publish(heartbeatTopic(fleet), 0)
  for (let i = 0; i < 2; i++) {
    await expect.poll(() => sleeping.map(({ seconds }) => seconds).sort()).toEqual([1, 10])
    expect(fatal).toEqual([])
    wakeAfter(1)
  }
  await ours
  expect(written).toEqual([heartbeatTopic(fleet)])
  expect(noted).toEqual([newer])
  expect(fatal).toMatchObject([older])
  // For good.
  await expect(publish(ringTopic(fleet, 1))).rejects.toMatchObject(older)
})

test('[F45] [F68] a disk that takes no note of it ends the server all the same, and what the broker holds stays there', async () => {
  held.set(1, await sign(1, 1))
  const { publish } = watch()
  diskIsFull = true
  show(await sign(2, 2))
  await expect(publish(headTopic(fleet))).rejects.toMatchObject(older)
  expect(fatal).toMatchObject([older])
  expect(written).toEqual([])
})

test('[F45] the same number with another notice is a fork; the same notice under another signature is not', async () => {
  held.set(1, await sign(1, 1))
  const { publish } = watch()
  show(await sign(1, 1))
  await publish(headTopic(fleet))
  expect(fatal).toEqual([])
  show(await sign(1, 2))
  await expect(publish(headTopic(fleet))).rejects.toMatchObject(older)
  expect(fatal).toMatchObject([{ ...older, message: expect.stringContaining('fork') }])
})

test('[F45] so is a lower number, unless all that it revokes stands here, as after a restore', async () => {
  for (const seq of [1, 2, 3]) held.set(seq, await sign(seq, 1))
  const { publish } = watch()
  const unsigned = new TextEncoder().encode('nonsense')
  for (const harmless of [await sign(3, 1), await sign(1, 1), unsigned]) show(harmless)
  held.set(2, await sign(2, 1, 1))
  show(await sign(2, 1))
  await publish(headTopic(fleet))
  expect(fatal).toEqual([])
  show(await sign(2, 7))
  await expect(publish(headTopic(fleet))).rejects.toMatchObject(older)
})

test('[F45] while the store is away a notice waits ten seconds and fails, also when it is tried again, and what was shown is compared once the store is back', async () => {
  held.set(1, await sign(1, 1))
  const { publish } = watch()
  failures = 100
  for (let i = 0; i < 100; i++) show(await sign(1, 1))
  const newer = await sign(2, 2)
  show(newer)
  for (let i = 0; i < 2; i++) {
    const ours = expect(publish(headTopic(fleet))).rejects.toMatchObject({
      code: 'head_uncompared',
      message: expect.stringContaining('the store does not answer'),
    })
    await expect.poll(() => sleeping.map(({ seconds }) => seconds).sort()).toEqual([1, 10])
    wakeAfter(10)
    await ours
  }
  expect([written, fatal]).toEqual([[], []])
  failures = 0
  wakeAfter(1)
  await expect.poll(() => fatal).toMatchObject([older])
  expect(noted).toEqual([newer])
  expect(sleeping).toEqual([])
})

test('when it is closed while the store is away nothing is written any more', async () => {
  held.set(1, await sign(1, 1))
  const { watched, publish } = watch()
  failures = 100
  show(await sign(2, 2))
  const ours = expect(publish(headTopic(fleet))).rejects.toMatchObject({ code: 'bus_closed' })
  await expect.poll(() => sleeping.map(({ seconds }) => seconds).sort()).toEqual([1, 10])
  watched.close()
  wakeAfter(1)
  await ours
  expect(fatal).toEqual([])
})

test('[F45] nothing is written before the broker has shown what it holds, where that comes within a second of the grant', async () => {
  held.set(1, await sign(1, 1))
  isConnected = true
  const { publish } = watch()
  const ours = [ringTopic(fleet, 1), headTopic(fleet)].map(topic => expect(publish(topic)).rejects.toMatchObject(older))
  granted()
  show(await sign(2, 2))
  await Promise.all(ours)
  expect(written).toEqual([])
})

test('[F45] a connection that began while the head of the one before was compared is waited for as well', async () => {
  const first = await sign(1, 1)
  held.set(1, first)
  isConnected = true
  const { publish } = watch()
  failures = 1
  show(first)
  await expect.poll(() => sleeping.length).toBe(1)
  const ours = expect(publish(headTopic(fleet))).rejects.toMatchObject(older)
  connection.end()
  connection.begin()
  wakeAfter(1)
  await expect.poll(() => sleeping.map(({ seconds }) => seconds)).toEqual([10])
  show(await sign(2, 2))
  await ours
  expect(written).toEqual([])
})

test('a broker that holds nothing delays a notice by a second, once on each connection', async () => {
  isConnected = true
  const { publish } = watch()
  const first = publish(ringTopic(fleet, 1))
  granted()
  // That connection ends, and what was granted on it says nothing of the next.
  connection.begin()
  wakeAfter(1)
  await Promise.resolve()
  expect(written).toEqual([])
  granted()
  wakeAfter(1)
  await first
  await publish(headTopic(fleet))
  expect(written).toEqual([ringTopic(fleet, 1), headTopic(fleet)])
  expect(sleeping).toEqual([])
  connection.begin()
  const without = publish(ringTopic(fleet, 2))
  // Left to the bus, which says by itself that there is no connection.
  connection.end()
  await without
})

test('[F45] a broker that shows it to nobody is told nothing, and the operator what to do', async () => {
  isConnected = true
  const { publish } = watch()
  const ours = expect(publish(headTopic(fleet))).rejects.toMatchObject({
    code: 'head_unread',
    next: expect.stringContaining(headTopic(fleet)),
  })
  await publish(heartbeatTopic(fleet), 0)
  wakeAfter(10)
  await ours
  expect(written).toEqual([heartbeatTopic(fleet)])
  expect(fatal).toEqual([])
})
