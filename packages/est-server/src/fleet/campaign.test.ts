// Campaigns over a real store: who may say what, what happens in which order, and what is left wherever a process dies.

import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { hexOf } from '@birthmark/device-sdk/core'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { EstServerError } from '../errors.ts'
import { numberSet, unpackNumbers } from '../store/number-set.ts'
import { openSqliteStore } from '../store/sqlite.ts'
import type { AuditEntry, Store } from '../store/store.ts'
import { type Campaign, type CampaignPorts, type Campaigns, campaignFailpoints, createCampaigns } from './campaign.ts'
import { canonicalJson, needsApproval, readPlanFile } from './campaign-plan.ts'
import { type Person, peopleProblem, signWord } from './campaign-words.ts'

const fleet = 'meters'
const radius = { site: 'site', owner: 'owner', gateway: { name: 'role', value: 'gateway' } }
const keys: Record<string, KeyObject> = {}
const person = (name: string, type: 'ed25519' | 'ec' = 'ed25519'): Person => {
  const { publicKey, privateKey } =
    type === 'ec' ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('ed25519')
  keys[name] = privateKey
  return { name, spki: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })) }
}
const people = [person('alice'), person('bob', 'ec'), person('carol')]

let folder: string
let store: Store
let at = 1_800_000_000
let revoked: { group?: string; devices?: number[]; campaign?: string }[]
let enforced: number
let timers: (() => void)[]

const audit = (kind: AuditEntry['kind']): AuditEntry => ({
  at,
  kind,
  requestId: '',
  fleet,
  device: '',
  by: '',
  code: '',
  detail: '',
})

function open(change: Partial<CampaignPorts> = {}): Campaigns {
  return createCampaigns({
    ...{ store, fleet, clock: { now: () => at }, log: { info() {}, warn() {}, error() {} } },
    rules: { people, threshold: { devices: 30, share: 1 }, windowSeconds: 600, radius },
    revocation: {
      async revokeGroup({ group }) {
        revoked.push({ group })
        return { seq: 7, gid: 1, bound: 100 }
      },
      async revokeFrozen({ devices, campaign }) {
        revoked.push({ devices: [...unpackNumbers(devices)], campaign })
        return { seq: 7 }
      },
    },
    later: (_seconds, work) => {
      timers.push(work)
      return () => {}
    },
    enforce: async () => {
      enforced++
      return { sessionsCut: 3, connectionsClosed: 0 }
    },
    online: () => 5,
    onRevoked: () => {},
    ...change,
  })
}

const said = (campaign: Campaign, what: 'submit' | 'approve' | 'undo', name: string, signer = name) => ({
  id: campaign.id,
  planSha256: campaign.planSha256,
  said: { by: name, signature: signWord(keys[signer], what, fleet, campaign.planSha256, name) },
})
const nobody = (campaign: Campaign) => ({
  ...{ id: campaign.id, planSha256: campaign.planSha256 },
  said: { by: 'operator at the local socket', signature: null },
})
const refused = (code: string) => expect.objectContaining({ code })
const held = async (id: string) => (await store.device(fleet, id))?.quarantinedBy ?? null

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'birthmark-campaign-'))
  store = await openSqliteStore({ path: join(folder, 'store.db') })
  at = 1_800_000_000
  revoked = []
  enforced = 0
  timers = []
  const entries = Array.from({ length: 40 }, (_, i) => ({
    ...{ serial: `d${i}`, spkiSha256: i.toString(16).padStart(64, '0'), keyOrigin: 'device' as const },
    groups: [`model=${i < 10 ? 'gw-2' : 'gw-3'}`, `batch=${i % 2}`],
  }))
  await store.importManifest(fleet, entries, audit('manifest_imported'))
})
afterEach(async () => {
  await store.close()
  rmSync(folder, { recursive: true })
})

const planOf = (campaigns: Campaigns, select: string, windowSeconds: number | null = null) =>
  campaigns.plan({ select, reason: 'keys leaked', windowSeconds, by: 'alice' })

describe('a plan', () => {
  it('freezes what it shows, and changes nothing', async () => {
    const campaigns = open()
    const { plan, state, planSha256 } = await planOf(campaigns, 'model=gw-2')
    expect(state).toBe('planned')
    expect(plan).toMatchObject({
      devices: { count: 10 },
      online: 5,
      rule: { kind: 'group', group: 'model=gw-2' },
      approvalNeeded: false,
    })
    expect(plan.radius.fleetDevices).toBe(40)
    expect(readPlanFile(JSON.stringify({ plan, sha256: hexOf(planSha256) })).text).toBe(canonicalJson(plan))
    expect(await held('d0')).toBeNull()
    expect(enforced).toBe(0)
    await expect(planOf(campaigns, 'model=nothing')).rejects.toEqual(refused('selection_empty'))
    await expect(planOf(campaigns, 'model=')).rejects.toEqual(refused('selector_invalid'))
  })

  it('[F64] of a file that was edited is not read', async () => {
    const { plan, planSha256 } = await planOf(open(), 'model=gw-2')
    const edited = { plan: { ...plan, select: 'model=gw-3' }, sha256: hexOf(planSha256) }
    expect(() => readPlanFile(JSON.stringify(edited))).toThrow(refused('plan_changed'))
  })

  it('does not grow: who joins the selection later is not in it', async () => {
    const campaigns = open()
    const planned = await planOf(campaigns, 'model=gw-2', 0)
    const late = { serial: 'late', spkiSha256: 'f'.repeat(64), groups: ['model=gw-2'], keyOrigin: 'device' as const }
    await store.importManifest(fleet, [late], audit('manifest_imported'))
    await campaigns.submit(said(planned, 'submit', 'alice'))
    await campaigns.settled()
    expect(await held('late')).toBeNull()
    // The group is no longer what was planned, so its devices are revoked one by one.
    expect(revoked).toEqual([{ devices: expect.any(Array), campaign: planned.id }])
    expect(revoked[0].devices).toHaveLength(10)
  })
})

describe('a group that its rule would not reach', () => {
  it('is revoked by its certificates', async () => {
    const campaigns = open({
      revocation: {
        revokeGroup: async () => {
          throw new EstServerError('group_not_covered', 'two joined late')
        },
        async revokeFrozen({ devices }) {
          revoked.push({ devices: [...unpackNumbers(devices)] })
          return { seq: 7 }
        },
      },
    })
    const planned = await planOf(campaigns, 'model=gw-2', 0)
    expect(planned.plan.rule.kind).toBe('group')
    await campaigns.submit(said(planned, 'submit', 'alice'))
    await campaigns.settled()
    expect((await campaigns.get(planned.id)).state).toBe('committed')
    expect(revoked.map(one => one.devices?.length)).toEqual([10])
  })
})

describe('[F64] two people', () => {
  it('one submits, another approves, and only then is anything denied', async () => {
    const campaigns = open()
    const planned = await planOf(campaigns, 'batch in (0,1)')
    expect(planned.plan.approvalNeeded).toBe(true)
    await expect(campaigns.submit(nobody(planned))).rejects.toEqual(refused('approval_refused'))
    expect((await campaigns.submit(said(planned, 'submit', 'alice'))).state).toBe('submitted')
    expect(await held('d0')).toBeNull()
    await expect(campaigns.approve(said(planned, 'approve', 'alice'))).rejects.toEqual(refused('approval_refused'))
    await expect(campaigns.approve(said(planned, 'approve', 'bob', 'alice'))).rejects.toEqual(refused('approval_refused'))
    await expect(campaigns.approve(said(planned, 'approve', 'mallory', 'bob'))).rejects.toEqual(refused('approval_refused'))
    await expect(campaigns.approve(nobody(planned))).rejects.toEqual(refused('approval_refused'))
    // A signature over something else that Bob once said.
    const other = said(planned, 'submit', 'bob')
    await expect(campaigns.approve(other)).rejects.toEqual(refused('approval_refused'))
    expect((await campaigns.approve(said(planned, 'approve', 'bob'))).state).toBe('quarantined')
    expect(await held('d0')).toBe(planned.id)
  })

  it('an approval of one plan is none of another, and nothing is executed twice', async () => {
    const campaigns = open()
    const [first, second] = [await planOf(campaigns, 'batch in (0,1)'), await planOf(campaigns, 'id!=d39')]
    await campaigns.submit(said(first, 'submit', 'alice'))
    await campaigns.submit(said(second, 'submit', 'alice'))
    const word = said(first, 'approve', 'bob')
    await expect(campaigns.approve({ ...word, id: second.id })).rejects.toEqual(refused('plan_changed'))
    await expect(campaigns.approve({ ...word, id: second.id, planSha256: second.planSha256 })).rejects.toEqual(
      refused('approval_refused'),
    )
    const both = await Promise.allSettled([campaigns.approve(word), campaigns.approve(said(first, 'approve', 'carol'))])
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    await campaigns.settled()
    at += 601
    const again = open()
    await Promise.all([again.resume(), campaigns.resume()])
    await expect(campaigns.approve(word)).rejects.toEqual(refused('campaign_refused'))
    expect((await campaigns.get(first.id)).state).toBe('committed')
  })

  it('cannot be one human with two names or one key', () => {
    expect(peopleProblem(people)).toBeNull()
    expect(peopleProblem([...people, { ...person('x'), name: 'Alice' }])).toBe('alice is named twice')
    expect(peopleProblem([...people, { name: 'alice-2', spki: people[0].spki }])).toBe('alice and alice-2 have one key')
  })

  it('is too late a day later', async () => {
    const campaigns = open()
    const planned = await planOf(campaigns, 'batch in (0,1)')
    await campaigns.submit(said(planned, 'submit', 'alice'))
    at += 24 * 3600
    await expect(campaigns.approve(said(planned, 'approve', 'bob'))).rejects.toEqual(refused('campaign_refused'))
    await campaigns.resume()
    expect((await campaigns.get(planned.id)).state).toBe('expired')
  })
})

describe('[F65] a bulk revocation', () => {
  it('of everything needs a second person and can be undone until its window closes', async () => {
    const campaigns = open()
    await expect(planOf(campaigns, '', 0)).rejects.toEqual(refused('window_refused'))
    const planned = await planOf(campaigns, '')
    expect(planned.plan).toMatchObject({ devices: { count: 40 }, windowSeconds: 600, approvalNeeded: true })
    await campaigns.submit(said(planned, 'submit', 'alice'))
    await campaigns.approve(said(planned, 'approve', 'bob'))
    await campaigns.settled()
    at += 599
    await campaigns.resume()
    expect(revoked).toEqual([])
    expect((await campaigns.undo({ ...said(planned, 'undo', 'carol'), reason: 'the wrong batch' })).state).toBe('undone')
    expect(await held('d0')).toBeNull()
    at += 10
    timers.at(-1)?.()
    await new Promise(next => setTimeout(next, 50))
    expect(revoked).toEqual([])
  })

  it('where nobody is named has the window all the same', async () => {
    const campaigns = open({ rules: { people: [], threshold: { devices: 30, share: 1 }, windowSeconds: 600, radius } })
    await expect(planOf(campaigns, '', 10)).rejects.toEqual(refused('window_refused'))
    const planned = await planOf(campaigns, '')
    expect((await campaigns.submit(nobody(planned))).state).toBe('quarantined')
    await campaigns.settled()
    expect(revoked).toEqual([])
  })

  it('is large by number or by share, and a handful never is', () => {
    expect(needsApproval(25, 30, { devices: 1000, share: 0.1 })).toBe(false)
    expect(needsApproval(26, 30, { devices: 1000, share: 0.1 })).toBe(true)
    expect(needsApproval(101, 1000, { devices: 1000, share: 0.1 })).toBe(true)
    expect(needsApproval(1001, 1_000_000, { devices: 1000, share: 0.1 })).toBe(true)
    expect(needsApproval(5, 5, { devices: 0, share: 0 })).toBe(true)
    expect(needsApproval(1_000_000, 1_000_000, null)).toBe(false)
  })
})

describe('a campaign that is interrupted', () => {
  for (const name of campaignFailpoints.filter(step => step !== 'campaign-undone'))
    it(`at ${name} goes on where it was, and revokes what was planned`, async () => {
      let dying = true
      // What a process that dies here leaves: everything behind it does not happen, at any later step either.
      const dead = new Promise<never>(() => {})
      let die = () => {}
      const died = new Promise<void>(resolve => {
        die = resolve
      })
      const first = open({
        failpoint(step) {
          if (!dying || step !== name) return
          die()
          return dead
        },
      })
      const run = async (campaigns: Campaigns): Promise<void> => {
        const known = (await campaigns.list(1))[0] ?? (await planOf(campaigns, 'batch in (0,1)'))
        if (known.state === 'planned') await campaigns.submit(said(known, 'submit', 'alice'))
        if ((await campaigns.get(known.id)).state === 'submitted') await campaigns.approve(said(known, 'approve', 'bob'))
      }
      await Promise.race([died, run(first)])
      at += 601
      void first.resume()
      await died
      first.close()
      dying = false
      const second = open()
      await run(second)
      at += 601
      await second.resume()
      for (let i = 0; i < 100 && (await second.list(1))[0].state !== 'committed'; i++) {
        timers.at(-1)?.()
        await new Promise(next => setTimeout(next, 20))
      }
      const [campaign] = await second.list(1)
      expect(campaign.state).toBe('committed')
      expect(campaign.story.words.map(word => `${word.what} ${word.by}`)).toEqual(['submit alice', 'approve bob'])
      // Said twice where the answer was lost; the revocation itself answers the second time what it said the first.
      expect(new Set(revoked.map(one => one.devices?.length))).toEqual(new Set([40]))
      second.close()
    })

  it('and can not go on is tried at growing distances, says why once for each reason, and goes on when it can', async () => {
    const lines: string[] = []
    const note = (_fields: object, message: string) => void lines.push(message)
    let why: string | null = 'the key is away'
    let attempts = 0
    const fail = async () => {
      attempts++
      if (why !== null) throw new Error(why)
      return { seq: 7, gid: 1, bound: 100 }
    }
    const campaigns = open({
      log: { info: note, warn: note, error: note },
      revocation: { revokeGroup: fail, revokeFrozen: fail },
    })
    const planned = await planOf(campaigns, 'model=gw-2', 0)
    await campaigns.submit(said(planned, 'submit', 'alice'))
    await campaigns.settled()
    await campaigns.resume()
    const looks = async (count: number) => {
      for (let i = 0; i < count; i++) {
        const before = timers.length
        timers.at(-1)?.()
        for (let wait = 0; wait < 200 && timers.length === before; wait++) await new Promise(next => setTimeout(next, 2))
      }
    }
    await looks(63)
    // 1 s, 2, 4 … 32 apart, where every second would be 65.
    expect(attempts).toBeLessThanOrEqual(8)
    expect(attempts).toBeGreaterThanOrEqual(6)
    expect(lines).toEqual(['a campaign could not go on; it is tried again'])
    why = 'the disk is full'
    await looks(60)
    expect(lines).toHaveLength(2)
    why = null
    await looks(60)
    expect((await campaigns.get(planned.id)).state).toBe('committed')
    expect(lines.at(-1)).toBe('a campaign goes on')
    campaigns.close()
  })

  it('covers a certificate that was made in the moment between the plan and the quarantine', async () => {
    const campaigns = open()
    const planned = await planOf(campaigns, 'batch in (0,1)')
    const facts = await store.enrollmentFacts(fleet, 'd3', new Uint8Array(32), new Uint8Array(32))
    await store.recordIntent({
      ...{
        issuer: new Uint8Array(20),
        serial: new Uint8Array(16),
        fleet,
        device: facts.device?.key ?? 0,
        deviceVersion: 0,
        idx: 12,
      },
      ...{
        gids: [],
        spkiSha256: new Uint8Array(32),
        contentSha256: new Uint8Array(32),
        epoch: 0,
        notBefore: at,
        notAfter: at + 9999,
      },
      ...{ secret: null, requestId: '', tbs: new Uint8Array(1), at, hold: null },
    })
    await campaigns.submit(said(planned, 'submit', 'alice'))
    await campaigns.approve(said(planned, 'approve', 'bob'))
    await campaigns.settled()
    const [hold] = await store.holds(fleet)
    expect(numberSet(unpackNumbers(hold.certificates)).has(12)).toBe(true)
  })
})
