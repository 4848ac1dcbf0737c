// Snapshots, their signatures and the pull, from the publisher's rules to a relying party that has missed everything.
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Bytes } from '@birthmark/device-sdk/core'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { openNotice } from './notice.ts'
import { createPull, createPullHandler, httpsGet, type PullGet } from './pull.ts'
import { createRelyingParty, type RelyingPartyEvent, type RelyingPartyOptions } from './relying-party.ts'
import type { Rule } from './rule.ts'
import { rulesOfIndices } from './rule-packing.ts'
import { createRuleSet } from './rule-set.ts'
import { type NoticeKey, noticeSha256, signNotice } from './sign-notice.ts'
import { createSnapshots, openSnapshot, signSnapshot, snapshotBytesMax } from './snapshot.ts'
import { createTestAuthority } from './testing/authority.ts'
import { createTestHistory, historyStart } from './testing/history.ts'
import { createManualClock, settle } from './testing/manual-clock.ts'
import { createMemoryBus, quietLog } from './testing/memory-bus.ts'
import { createTestNoticeKey } from './testing/notice-key.ts'
import { nodeVerify } from './verify.ts'

const key = createTestNoticeKey()
const second = createTestNoticeKey()
const group = (gid: number, bound: number): Rule => ({ kind: 'group', gid, bound })

async function party(more: Partial<RelyingPartyOptions> = {}) {
  const state = { saved: null as Bytes | null }
  const events: RelyingPartyEvent[] = []
  const options: RelyingPartyOptions = {
    name: 'gateway',
    fleet: 'acme',
    signers: [key.signer, second.signer],
    state: {
      load: async () => state.saved,
      save: async bytes => {
        state.saved = bytes
      },
    },
    clock: createManualClock(historyStart + 100),
    log: quietLog,
    onEvent: event => events.push(event),
    ...more,
  }
  return { state, events, options, party: await createRelyingParty(options) }
}

/** Notices, and the rules of them all. */
async function fleetOf(count: number, individuals: number[] = []) {
  const history = createTestHistory(key)
  const rules: Rule[] = individuals.length > 0 ? rulesOfIndices(individuals, 8192) : []
  for (let seq = 1; seq <= count; seq++) {
    const told = seq === 1 ? [...rules, group(1, 1)] : [group(seq, seq)]
    if (seq > 1) rules.push(group(seq, seq))
    else rules.push(group(1, 1))
    await history.add(told, { issuedAt: historyStart + 100 })
  }
  const at = (seq: number) => history.notices[seq - 1].notice
  const facts = (seq: number) => ({ seq, noticeSha256: noticeSha256(at(seq)), rules: createRuleSet(rules) })
  return { history, rules, at, facts }
}

describe('a snapshot', () => {
  it('makes a relying party that has missed everything complete, in whatever order its shards come, and over a restart', async () => {
    const { at, facts, rules } = await fleetOf(70, [5, 131_072, 300_000])
    const shards = await signSnapshot('acme', facts(66), historyStart, [key])
    expect(shards).toHaveLength(3)
    await fc.assert(
      fc.asyncProperty(fc.shuffledSubarray([0, 1, 2], { minLength: 3 }), async order => {
        const { party: its, state, options } = await party()
        await its.receive(at(70))
        expect(its.fresh()).toBe(false)
        for (const shard of order) expect((await its.receiveSnapshot(shards[shard])).kind).toBe('applied')
        expect(its.progress()).toMatchObject({ through: 66, newest: 70 })
        for (const seq of [67, 68, 69]) await its.receive(at(seq))
        expect(its.progress()).toMatchObject({ through: 70, newest: 70 })
        expect(its.fresh()).toBe(true)
        expect(its.rules.rules()).toEqual(createRuleSet(rules).rules())
        expect(its.status({ fleet: 'acme', idx: 300_000, gids: [] }, null)).toBe('revoked')
        expect((await its.receiveSnapshot(shards[0])).kind).toBe('known')
        expect(state.saved).not.toBeNull()
        const again = await createRelyingParty(options)
        expect(again.rules.rules()).toEqual(createRuleSet(rules).rules())
        expect(again.progress()).toMatchObject({ through: 70 })
      }),
      { numRuns: 4 },
    )
  })

  it('with a shard missing revokes what it says, and makes nobody complete', async () => {
    const { at, facts } = await fleetOf(70, [5, 131_072, 300_000])
    const shards = await signSnapshot('acme', facts(70), historyStart, [key])
    const { party: its } = await party()
    await its.receive(at(70))
    await its.receiveSnapshot(shards[0])
    await its.receiveSnapshot(shards[2])
    expect(its.status({ fleet: 'acme', idx: 5, gids: [] }, null)).toBe('revoked')
    expect(its.fresh()).toBe(false)
    await its.receiveSnapshot(shards[1])
    expect(its.fresh()).toBe(true)
  })

  it('[F45] of another history than the one that was taken in raises the alarm', async () => {
    const { at } = await fleetOf(3)
    const other = await fleetOf(3, [9])
    const { party: its, events } = await party()
    for (const seq of [1, 2, 3]) await its.receive(at(seq))
    expect(its.fresh()).toBe(true)
    for (const shard of await signSnapshot('acme', other.facts(3), historyStart, [key])) await its.receiveSnapshot(shard)
    expect(its.fresh()).toBe(false)
    expect(events).toContainEqual({ type: 'alarm', reason: 'forked' })
    expect(its.status({ fleet: 'acme', idx: 9, gids: [] }, null)).toBe('revoked')
  })

  it('[F47] unsigned, of another key, another fleet, or a notice in its place, is refused; and so is a snapshot as a notice', async () => {
    const { at, facts } = await fleetOf(2)
    const { party: its, state } = await party()
    const [good] = await signSnapshot('acme', facts(2), historyStart, [key])
    const refused: [string, Bytes][] = [
      ['notice_signature', good.map((byte, i) => (i === good.length - 9 ? byte ^ 1 : byte))],
      ['notice_signer_unknown', (await signSnapshot('acme', facts(2), historyStart, [createTestNoticeKey()]))[0]],
      ['notice_other_fleet', (await signSnapshot('other', facts(2), historyStart, [key]))[0]],
      ['notice_too_large', new Uint8Array(snapshotBytesMax + 1)],
      // Each kind signs its own name along: neither can stand for the other.
      ['notice_signature', at(2)],
    ]
    for (const [problem, bytes] of refused) expect(await its.receiveSnapshot(bytes)).toEqual({ kind: 'refused', problem })
    expect(await its.receive(good)).toEqual({ kind: 'refused', problem: 'notice_signature' })
    expect(state.saved).toBeNull()
  })

  it('[F44] [F49] that is older changes nothing', async () => {
    const { at, facts } = await fleetOf(4)
    const { party: its } = await party()
    for (const shard of await signSnapshot('acme', facts(4), historyStart, [key])) await its.receiveSnapshot(shard)
    await its.receive(at(4))
    const before = its.rules.rules()
    for (const shard of await signSnapshot('acme', facts(2), historyStart, [key])) await its.receiveSnapshot(shard)
    expect(its.progress()).toMatchObject({ through: 4, newest: 4 })
    expect(its.rules.rules()).toEqual(before)
    expect(its.fresh()).toBe(true)
  })

  it('fits a broker’s packet at its fullest: every other certificate, and every group with a reason', async () => {
    const rules: Rule[] = Array.from({ length: 2048 }, (_, n) => ({ kind: 'group', gid: n + 1, bound: 2 ** 31 - n, reason: 9 }))
    const set = createRuleSet(rules)
    let state = 7
    const some: number[] = []
    for (let idx = 0; idx < 1 << 17; idx++) {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0
      if (state >>> 31) some.push(idx)
    }
    set.merge(rulesOfIndices(some, 60_000))
    const facts = { seq: 1, noticeSha256: new Uint8Array(32), rules: set }
    for (const shard of await signSnapshot('a'.repeat(32), facts, historyStart, [key])) {
      expect(shard.length).toBeLessThanOrEqual(snapshotBytesMax)
      openSnapshot(shard, 'a'.repeat(32), [key.signer], nodeVerify(), problem => expect(problem).toBeNull())
    }
  })
})

describe('two keys', () => {
  const failing: NoticeKey = { ...key, sign: () => Promise.reject(new Error('the token is away')) }
  const body = {
    fleet: 'acme',
    seq: 1,
    previousSha256: null,
    issuedAt: historyStart + 100,
    maxAgeSeconds: 30,
    heartbeatAnchor: new Uint8Array(16),
    rules: [{ kind: 'range' as const, start: 0, length: 5000 }],
    root: null,
    floor: 0,
  }

  it('the one that stands by signs when the first can’t; when none can, the error is the key’s', async () => {
    const { party: its } = await party()
    expect((await its.receive(await signNotice(body, [failing, second]))).kind).toBe('applied')
    await expect(signNotice(body, [failing])).rejects.toThrow(/token is away/)
    await expect(signNotice(body, [failing, second], { countersign: true })).rejects.toThrow(/token is away/)
    await expect(signNotice(body, [key], { countersign: true })).rejects.toMatchObject({ code: 'configuration_invalid' })
  })

  it('both sign what is too much for one, and a receiver that asks for it refuses less', async () => {
    const oneSignature = { most: 1000, groupSize: (gid: number) => (gid === 7 ? 3000 : 10) }
    const { party: its } = await party({ oneSignature })
    const one = { kind: 'refused', problem: 'notice_one_signature' }
    expect(await its.receive(await signNotice(body, key))).toEqual(one)
    for (const rules of [
      [{ kind: 'issuer' as const, keyId: new Uint8Array(20) }],
      [group(7, 9)],
      rulesOfIndices(
        [...Array(1001).keys()].map(n => 3 * n),
        8192,
      ),
    ])
      expect(await its.receive(await signNotice({ ...body, rules }, key))).toEqual(one)
    expect(await its.receive(await signNotice({ ...body, rules: [], floor: 1001 }, key))).toEqual(one)
    expect((await its.receive(await signNotice({ ...body, rules: [group(8, 9)], floor: 900 }, key))).kind).toBe('applied')
    const both = await signNotice({ ...body, seq: 2, previousSha256: null }, [key, second], { countersign: true })
    expect((await its.receive(both)).kind).toBe('applied')
    expect(its.status({ fleet: 'acme', idx: 4999, gids: [] }, null)).toBe('revoked')
    const facts = { seq: 2, noticeSha256: noticeSha256(both), rules: its.rules }
    expect(await its.receiveSnapshot((await signSnapshot('acme', facts, historyStart, [key, second]))[0])).toEqual(one)
    expect((await its.receiveSnapshot((await signSnapshot('acme', facts, historyStart, [key, second], true))[0])).kind).not.toBe(
      'refused',
    )
  })

  it('[F47] a countersignature by the same key, an unknown key, over another notice or broken counts for none', async () => {
    const countersigned = async (keys: readonly [NoticeKey, ...NoticeKey[]], change = (bytes: Bytes) => bytes) => {
      const notice = change(await signNotice(body, keys, { countersign: true }))
      let result: [string | null, boolean] = ['not answered', false]
      openNotice(notice, 'acme', [key.signer, second.signer], nodeVerify(), (problem, _body, also) => {
        result = [problem, also]
      })
      return result
    }
    expect(await countersigned([key, second])).toEqual([null, true])
    expect(await countersigned([second, key])).toEqual([null, true])
    expect(await countersigned([key, key])).toEqual([null, false])
    expect(await countersigned([key, createTestNoticeKey()])).toEqual([null, false])
    // The last byte of the countersignature lies before the payload: unprotected header first.
    const broken = (bytes: Bytes) => {
      const at = bytes.findIndex((byte, i) => byte === 0x58 && bytes[i + 1] === 64) + 10
      return bytes.map((byte, i) => (i === at ? byte ^ 1 : byte))
    }
    expect(await countersigned([key, second], broken)).toEqual([null, false])
  })
})

describe('the pull', () => {
  async function source(count: number) {
    const { history, rules, at, facts } = await fleetOf(count, [5, 200_000])
    const newest = async () => ({ seq: count, notice: at(count), sha256: noticeSha256(at(count)) })
    const snapshots = createSnapshots({
      fleet: 'acme',
      newest,
      rules: async () => createRuleSet(rules),
      keys: [key],
      now: () => historyStart,
    })
    const notice = async (seq: number) => history.notices[seq - 1] ?? null
    return { answer: createPullHandler({ fleet: 'acme', newest, notice, snapshots }), at, facts }
  }

  it('answers each path in one spelling, and says what the asker already has', async () => {
    const { answer, at } = await source(3)
    const head = await answer('/.well-known/fr/1/acme/head')
    expect(head).toMatchObject({
      status: 200,
      body: at(3),
      headers: { 'content-type': 'application/cose; cose-type="cose-sign1"' },
    })
    expect(await answer('/.well-known/fr/1/acme/head', `W/"x", ${head?.headers.etag}`)).toMatchObject({ status: 304, body: null })
    expect(await answer('/.well-known/fr/1/acme/n/2')).toMatchObject({ status: 200, body: at(2) })
    expect(await answer('/.well-known/fr/1/acme/snap/1')).toMatchObject({ status: 200 })
    for (const missing of ['n/4', 'n/0', 'snap/2', 'n/999999999999999'])
      expect(await answer(`/.well-known/fr/1/acme/${missing}`)).toMatchObject({ status: 404 })
    for (const nothing of [
      'n/02',
      'n/',
      'n/+1',
      'n',
      'head/1',
      'snap',
      'snap/-1',
      'snap/1e3',
      'n/1/',
      '',
      '../head',
      'n/9999999999999999',
    ])
      expect(await answer(`/.well-known/fr/1/acme/${nothing}`)).toBeNull()
    expect(await answer('/.well-known/fr/1/other/head')).toBeNull()
  })

  it('[F48] closes any gap over HTTPS alone: a few notices, or a snapshot and the notices after it', async () => {
    const authority = createTestAuthority('Pull root')
    const { keyPem, certPem } = authority.server()
    for (const count of [40, 100]) {
      const { answer } = await source(count)
      const asked: string[] = []
      const server = createServer({ key: keyPem, cert: certPem }, (request, response) => {
        asked.push(request.url ?? '')
        answer(request.url ?? '').then(given => {
          response.writeHead(given?.status ?? 404, given?.headers)
          response.end(given?.body)
        })
      })
      await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
      const { port } = server.address() as AddressInfo
      const get = httpsGet({ url: `https://127.0.0.1:${port}`, tls: { ca: authority.certPem } })
      const { party: its } = await party({ pull: createPull('acme', get) })
      for (let turn = 0; turn < 400 && !its.fresh(); turn++) await new Promise(resolve => setTimeout(resolve, 20))
      expect(its.progress()).toMatchObject({ through: count, newest: count })
      expect(its.status({ fleet: 'acme', idx: 200_000, gids: [] }, null)).toBe('revoked')
      expect(asked.some(path => path.includes('/snap/'))).toBe(count === 100)
      expect(asked.length).toBeLessThan(70)
      await new Promise(resolve => server.close(resolve))
    }
  })

  it('[F58] takes no more than it asked for, no redirect, no encoding, no drip', async () => {
    const authority = createTestAuthority('Pull root')
    const { keyPem, certPem } = authority.server()
    const server = createServer({ key: keyPem, cert: certPem }, (request, response) => {
      if (request.url === '/redirect') response.writeHead(302, { location: '/large' }).end()
      else if (request.url === '/encoded') response.writeHead(200, { 'content-encoding': 'gzip' }).end('x')
      else if (request.url === '/large') response.writeHead(200).end(Buffer.alloc(5000))
      else if (request.url === '/drip') response.writeHead(200).write('x')
      else if (request.url === '/cut') response.writeHead(200, { 'content-length': 99 }).write('x', () => response.destroy())
      else response.writeHead(404).end()
    })
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const get = httpsGet({ url: `https://127.0.0.1:${port}`, tls: { ca: authority.certPem }, timeoutSeconds: 1 })
    for (const path of ['/redirect', '/encoded', '/large', '/drip', '/cut'])
      await expect(get(path, 4096), path).rejects.toMatchObject({ code: 'pull_failed' })
    expect(await get('/nothing', 4096)).toBeNull()
    const stranger = httpsGet({ url: `https://127.0.0.1:${port}`, tls: { ca: createTestAuthority('Other').certPem } })
    await expect(stranger('/large', 9000)).rejects.toMatchObject({ code: 'pull_failed' })
    expect(() => httpsGet({ url: 'http://127.0.0.1', tls: { ca: '' } })).toThrow(/configuration_invalid/)
    server.closeAllConnections()
    await new Promise(resolve => server.close(resolve))
  })

  it('asks for no more than it can use, whatever the server claims', async () => {
    const asked: string[] = []
    const history = createTestHistory(key)
    const claimed = await signNotice(
      {
        fleet: 'acme',
        seq: 2 ** 52,
        previousSha256: new Uint8Array(32),
        issuedAt: 1,
        maxAgeSeconds: 30,
        heartbeatAnchor: new Uint8Array(16),
        rules: [],
        root: null,
        floor: 0,
      },
      key,
    )
    const get: PullGet = async path => {
      asked.push(path)
      return path.endsWith('/head') ? claimed : null
    }
    expect((await createPull('acme', get)(history.notices.length)).notices).toEqual([claimed])
    expect(asked.length).toBeLessThan(140)
  })
})

describe('a bus', () => {
  it('brings snapshots to a relying party by itself', async () => {
    const { at, facts } = await fleetOf(90, [5])
    const bus = createMemoryBus()
    const { party: its } = await party({ bus })
    await bus.publish('fr/1/acme/head', at(90), { qos: 1, retain: true })
    for (const [shard, bytes] of (await signSnapshot('acme', facts(90), historyStart, [key])).entries())
      await bus.publish(`fr/1/acme/snap/${shard}`, bytes, { qos: 1, retain: true })
    await settle(20)
    expect(its.fresh()).toBe(true)
  })
})
