import type { Bytes, Membership } from '@birthmark/device-sdk/core'
import { encodeCbor } from '@birthmark/device-sdk/core'
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import { decodeQuestion, encodeQuestion, openAnswer } from './answer.ts'
import { checkBlockProof } from './block-proof.ts'
import { createDeviceReceiver } from './device.ts'
import { createResponder } from './responder.ts'
import { createRevokedTree, nodeSha256 } from './revoked-tree.ts'
import { noticeSha256 } from './sign-notice.ts'
import { createTestHistory, historyStart } from './testing/history.ts'
import { createManualClock, settle } from './testing/manual-clock.ts'
import { createMemoryBus, quietLog } from './testing/memory-bus.ts'
import { createTestNoticeKey } from './testing/notice-key.ts'
import { nodeVerify } from './verify.ts'

const key = createTestNoticeKey()
const history = createTestHistory(key)
const own: Membership = { fleet: 'acme', idx: 10, gids: [7] }
const nonce = (n: number) => new Uint8Array(16).fill(n)

beforeAll(async () => {
  for (let seq = 1; seq <= 5; seq++) await history.add([{ kind: 'group', gid: seq === 4 ? 7 : 100, bound: 20 }])
})

async function setting(more: { prove?: (seq: number, idx: number) => Bytes | null } = {}) {
  const clock = createManualClock(historyStart + 500)
  const bus = createMemoryBus()
  const newest = async () => ({ seq: 5, sha256: noticeSha256(history.notices[4].notice) })
  const responder = await createResponder({ bus, fleet: 'acme', newest, keys: [key], clock, log: quietLog, ...more })
  let record: Bytes | null = null
  const device = createDeviceReceiver({
    fleet: 'acme',
    membership: () => own,
    signers: [key.signer],
    verify: nodeVerify(),
    store: {
      get: () => record,
      put: (_name, value) => {
        record = value
      },
    },
  })
  const give = (topic: string, payload: Bytes): [string | null, boolean] => {
    let result: [string | null, boolean] = ['not answered', false]
    device.receive(topic, payload, (error, revoked) => {
      result = [error ? error.message : null, revoked]
    })
    return result
  }
  const answers = () => bus.published.filter(({ topic }) => topic.startsWith('fr/1/acme/rsp/'))
  return { clock, bus, responder, device, give, answers }
}

describe('a device without a clock', () => {
  it('[F55] learns from a signed answer to its own nonce what time it is and which notices it has missed', async () => {
    const { bus, device, give, answers } = await setting()
    expect(give('fr/1/acme/head', history.notices[2].notice)).toEqual([null, false])
    const question = device.ask('unit-1', nonce(1))
    expect(device.topics).toContain('fr/1/acme/rsp/unit-1')
    await bus.publish(question.topic, question.payload, { qos: 1, retain: false })
    await settle()
    const [{ topic, payload, retain }] = answers()
    expect([topic, retain]).toEqual(['fr/1/acme/rsp/unit-1', false])
    expect(give(topic, payload)).toEqual([null, false])
    expect(device.answered()).toEqual({ seq: 5, issuedAt: historyStart + 500, proof: null })
    // Suppressed so far: now it knows, and asks the ring.
    expect(device.topics).toEqual(['fr/1/acme/head', ...[1, 2, 4, 5].map(seq => `fr/1/acme/n/${seq}`)])
    expect(give('fr/1/acme/n/4', history.notices[3].notice)).toEqual([null, true])
    expect(device.progress()).toEqual({ seq: 5, missing: 3 })
  })

  it('[F44] believes no answer to another question, an older one, another device’s, or of another key', async () => {
    const { bus, device, give, answers } = await setting()
    const first = device.ask('unit-1', nonce(1))
    await bus.publish(first.topic, first.payload, { qos: 1, retain: false })
    await settle()
    const old = answers()[0].payload
    device.ask('unit-1', nonce(2))
    await bus.publish('fr/1/acme/req', encodeQuestion({ device: 'unit-2', nonce: nonce(2), idx: -1 }), { qos: 1, retain: false })
    await settle()
    for (const payload of [old, answers()[1].payload]) expect(give('fr/1/acme/rsp/unit-1', payload)).toEqual([null, false])
    expect(device.answered()).toBeNull()
    expect(give('fr/1/acme/rsp/unit-1', history.notices[4].notice)[0]).toBe('notice_rejected: notice_signature')
    expect(give('fr/1/acme/rsp/unit-1', new Uint8Array(4000))[0]).toBe('notice_rejected: notice_too_large')
    // Nor is an answer a notice.
    expect(give('fr/1/acme/head', old)[0]).toBe('notice_rejected: notice_signature')
    expect(device.progress().seq).toBe(0)
  })

  it('gets a proof of a peer’s status with the answer, where there is a tree', async () => {
    const tree = createRevokedTree()
    tree.add(500, 3)
    const { bus, answers } = await setting({ prove: (seq, idx) => tree.prove(seq, idx) })
    await bus.publish('fr/1/acme/req', encodeQuestion({ device: 'unit-1', nonce: nonce(3), idx: 501 }), { qos: 1, retain: false })
    await settle()
    openAnswer(answers()[0].payload, 'acme', [key.signer], nodeVerify(), (problem, body) => {
      expect(problem).toBeNull()
      expect(body?.proof && checkBlockProof(body.proof, 5, tree.root(), 501, nodeSha256)).toBe('revoked')
    })
    expect.assertions(2)
  })
})

describe('the responder', () => {
  it('signs no more than so many answers a second, whoever asks', async () => {
    const { bus, clock, responder, answers } = await setting()
    const flood = async (count: number) => {
      for (let n = 0; n < count; n++)
        await bus.publish('fr/1/acme/req', encodeQuestion({ device: `d${n}`, nonce: nonce(n & 255), idx: -1 }), {
          qos: 1,
          retain: false,
        })
      await settle(20)
    }
    for (let n = 0; n < 20; n++) await flood(30)
    expect(answers()).toHaveLength(200)
    expect(responder.dropped()).toBe(400)
    await clock.advance(1)
    await flood(60)
    expect(responder.answered()).toBe(250)
  })

  it('[F7] answers nothing that is not a question', async () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 140 }), bytes => {
        const question = decodeQuestion(bytes)
        if (question) expect(encodeQuestion(question)).toEqual(bytes)
      }),
    )
    const entries: [number, Parameters<typeof encodeCbor>[0]][] = [
      [1, 'unit-1'],
      [2, nonce(1)],
    ]
    expect(decodeQuestion(encodeCbor({ map: entries }))).toEqual({ device: 'unit-1', nonce: nonce(1), idx: -1 })
    for (const bad of [
      [[1, 'a/b'], entries[1]],
      [entries[0], [2, new Uint8Array(8)]],
      [...entries, [3, -1]],
      [...entries, [4, 1]],
      [entries[0]],
    ] as (typeof entries)[])
      expect(decodeQuestion(encodeCbor({ map: bad }))).toBeNull()
    const { bus, answers } = await setting()
    await bus.publish('fr/1/acme/req', new Uint8Array(9), { qos: 1, retain: false })
    await settle()
    expect(answers()).toEqual([])
  })
})
