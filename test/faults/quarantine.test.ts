// Quarantine where it is enforced: sessions, Wills and queues at the embedded broker, live EST connections at the server; and what a receipt proves.

import { generateKeyPairSync, sign } from 'node:crypto'
import { encodeBase64 } from '@birthmark/device-sdk/core'
import {
  type CampaignPlan,
  canonicalJson,
  keyName,
  packNumbers,
  planSha256,
  type ReceiptBody,
  receiptBytes,
  receiptProblems,
  signWord,
} from '@birthmark/est-server'
import type { Status } from '@birthmark/fleet-revocation'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { createQuarantineView } from '../../packages/birthmark/src/quarantine-view.ts'
import { ended, fleet, startTestBroker, type TestBroker } from '../support/broker.ts'
import { request } from '../support/devices.ts'
import { post } from '../support/raw-http.ts'
import { prepareServing, type Serving } from '../support/serving.ts'

describe('at the broker', () => {
  let test: TestBroker | null = null
  afterEach(() => test?.close())

  it('a device in quarantine is cut and refused, its Will unsaid, and let in again when it is lifted', async () => {
    let held: number[] = []
    let version = 0
    const store = {
      holdsVersion: async () => version,
      holds: async () => [{ campaign: 'c', since: 0, until: null, devices: packNumbers([]), certificates: packNumbers(held) }],
    }
    const view = await createQuarantineView(store, fleet)
    const status = view.over(() => 'good')
    test = await startTestBroker({ status: membership => status(membership, null) as Status })
    const { broker, connect, device, services } = test
    const [one, other] = [device('dev-1', { idx: 5 }), device('dev-2', { idx: 6 })]
    const watcher = await connect('watcher', services.service('watcher'))
    const heard: string[] = []
    watcher.on('message', topic => heard.push(topic))
    await watcher.subscribeAsync('devices/#', { qos: 1 })
    const client = await connect('dev-1', one, {
      will: { topic: 'devices/dev-1/gone', payload: Buffer.from('x'), qos: 1, retain: false },
    })
    await connect('dev-2', other)
    expect(broker.sessions().find(({ id }) => id === 'dev-1')?.idx).toBe(5)

    held = [5]
    version = 1
    expect(await view.refresh()).toBe(true)
    expect(await view.refresh()).toBe(false)
    expect(await broker.enforce()).toMatchObject({ cut: 1 })
    await ended(client)
    await expect(connect('dev-1', one)).rejects.toThrow('Not authorized')
    expect(heard).toEqual([])

    held = []
    version = 2
    await view.refresh()
    expect((await connect('dev-1', one)).connected).toBe(true)
  })
})

describe('at the server', () => {
  let server: Serving
  beforeAll(async () => {
    server = await prepareServing()
    await server.start()
  }, 60_000)
  afterAll(() => server?.remove())

  it('[F12] an open connection of a device in quarantine is answered 403 at its next request, and judged by the other rules again when it is undone', async () => {
    const device = await server.enroll('gw-1', ['model=gw-2'])
    const connection = await server.connect(device)
    const { csr } = await request('gw-1')
    const renew = () => connection.ask(post('/.well-known/est/simplereenroll', encodeBase64(csr, 64), {}))
    const { administration } = server
    const asked = { select: 'id=gw-1', reason: 'stolen', windowSeconds: 600, by: 'alice' }
    const { id, planSha256: hash } = await administration.planCampaign(asked)
    const word = { id, planSha256: hash, by: 'alice', signature: null }
    await administration.submitCampaign(word)
    const refused = await renew()
    expect(refused).toMatchObject({ status: 403 })
    expect(refused?.body).toContain('device_quarantined')
    await administration.undoCampaign({ ...word, reason: 'found again' })
    // The rules behind it are asked again: this CSR names less than its certificate does.
    expect((await renew())?.body).toContain('subject_changed')
  })
})

describe('a receipt', () => {
  const notice = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spkiOf = (key: typeof notice.publicKey) => new Uint8Array(key.export({ type: 'spki', format: 'der' }))
  const people = ['alice', 'bob'].map(name => ({ name, ...generateKeyPairSync('ed25519') }))
  const known = people.map(({ name, publicKey }) => ({ name, spki: spkiOf(publicKey) }))
  const plan = {
    ...{ format: 'birthmark-campaign-plan/1', fleet, select: '', reason: 'leaked', createdAt: 1, expiresAt: 2, windowSeconds: 3 },
    ...{ devices: { count: 1, sha256: '00' }, certificates: 1, online: null, rule: { kind: 'certificates' }, approvalNeeded: true },
  } as unknown as CampaignPlan
  const sha256 = planSha256(canonicalJson(plan))
  const word = (what: 'submit' | 'approve', who: 0 | 1) => ({
    ...{ what, by: people[who].name, at: 1, key: keyName(known[who].spki) },
    signature: signWord(people[who].privateKey, what, fleet, sha256, people[who].name),
  })
  const receiptOf = (words: ReceiptBody['words']) => {
    const body: ReceiptBody = {
      ...{ format: 'birthmark-campaign-receipt/1' as const, id: 'x', planSha256: Buffer.from(sha256).toString('hex'), plan, words },
      people: known.map(({ name, spki }) => ({ name, spki: Buffer.from(spki).toString('base64') })),
      at: { submitted: 1, quarantined: 1, committed: 1 },
      ...{ notices: [], revoked: { devices: 1, certificates: 1, withoutCertificate: 0 }, audit: { n: 1, hash: '' } },
      standardConsumers: { kind: 'not offered' },
      progress: { asOf: 1, sessionsCut: null, told: 0, blockedNotAcked: 1 },
    }
    return { body, signature: sign('sha256', receiptBytes(body), notice.privateKey).toString('base64') }
  }
  const problems = (words: ReceiptBody['words']) => receiptProblems(receiptOf(words), [spkiOf(notice.publicKey)], known)

  it('[F64] proves two people, and is none where one said both, nobody approved, or a signature is of something else', () => {
    expect(problems([word('submit', 0), word('approve', 1)])).toEqual([])
    expect(problems([word('submit', 0), word('approve', 0)])).toEqual(['it needed a second person, and none approved it'])
    expect(problems([word('submit', 0)])).toEqual(['it needed a second person, and none approved it'])
    const forged = { ...word('approve', 1), signature: word('submit', 1).signature }
    expect(problems([word('submit', 0), forged])).toEqual(['bob did not sign "approve" for this plan'])
    const stranger = receiptProblems(receiptOf([word('submit', 0), word('approve', 1)]), [spkiOf(notice.publicKey)], [known[0]])
    expect(stranger).toEqual(['bob, who said approve, is not known here'])
    expect(receiptProblems(receiptOf([]), [known[0].spki], known)[0]).toBe('no notice key that is known here signed it')
  })
})
