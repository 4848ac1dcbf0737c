// Campaigns whose server is killed: a real process, SIGKILL at each step that a campaign and its revocation take, and a new process that finds what
// the dead one left. A gateway listens by MQTT through all of it.

import { type ChildProcess, fork } from 'node:child_process'
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Membership, membershipOf } from '@birthmark/device-sdk/core'
import {
  campaignFailpoints,
  openPostgresStore,
  openSqliteStore,
  type Receipt,
  receiptProblems,
  type Saying,
  signWord,
} from '@birthmark/est-server'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { CampaignView } from '../../packages/birthmark/src/campaign-administration.ts'
import { receiptKey } from '../../packages/birthmark/src/campaign-desk.ts'
import type { CommandError } from '../../packages/birthmark/src/command-error.ts'
import { storePath } from '../../packages/birthmark/src/open-store.ts'
import { until } from '../support/broker.ts'
import { startPostgres, type TestPostgres } from '../support/postgres.ts'
import { joinRelyingParty, noticeKeyOf, serviceAuthority } from '../support/relying-party.ts'
import type { Beginning } from '../support/serve-child.ts'
import { prepareServing, type Serving } from '../support/serving.ts'

/** What a campaign goes through, with the steps of the revocation that it commits. */
const allSteps = [...campaignFailpoints.filter(name => name !== 'campaign-undone'), 'notice-signed', 'revocation-recorded']
const stores = [
  { name: 'SQLite', steps: allSteps },
  // Those around its transactions; what lies between them is the same program.
  { name: 'PostgreSQL', steps: ['campaign-quarantined', 'campaign-revoked', 'notice-signed', 'revocation-recorded'] },
]
const program = fileURLToPath(new URL('../support/serve-child.ts', import.meta.url))
const fleet = 'acme'
/** Half of the campaigns are about a group, which one rule revokes, the others about a label, and so about certificates one by one. */
const isGroup = (i: number) => i % 2 === 0
const people = new Map<string, KeyObject>(['alice', 'bob'].map(name => [name, generateKeyPairSync('ed25519').privateKey]))
const publicKey = (name: string) => createPublicKey(people.get(name) as KeyObject)
const members = new Map<string, Membership>()

let database: TestPostgres | null = null
let serving: Serving
let child: ChildProcess
/** Who serves next: it loads while the other serves. */
let spare: ChildProcess
let ended: Promise<unknown[]>
let party: Awaited<ReturnType<typeof joinRelyingParty>>
let noticeSpki: Uint8Array
/** Notices that revoked something that was good before. */
let grew = 0
let deaths = 0

function load(): ChildProcess {
  return fork(program, [], {
    execArgv: ['--conditions=source', '--disable-warning=ExperimentalWarning'],
    env: { ...process.env, NODE_COMPILE_CACHE: join(serving.folder, 'compiled') },
  })
}

async function start(dieAt = ''): Promise<void> {
  child = spare
  child.send({ path: serving.config, dieAt } satisfies Beginning)
  ended = once(child, 'exit')
  const said = await Promise.race([once(child, 'message'), ended])
  // Who goes on with a campaign may be at its step before it has said that it serves.
  if (said[0] !== 'serving' && dieAt === '') throw new Error(`the server ended: ${said.join(' ')}`)
  spare = load()
}

/** After a call that had no answer: the process is dead, as it was told to be, and another one takes its place. */
async function startAgain(failure: unknown, dieAt = ''): Promise<void> {
  const [, signal] = await Promise.race([ended, new Promise<never>((_, no) => setTimeout(no, 5000, failure))])
  if (signal !== 'SIGKILL') throw failure
  expect((failure as CommandError).code).toMatch(/^(answer_lost|not_running|unanswered)$/)
  deaths++
  await start(dieAt)
}

const word = ({ id, planSha256 }: CampaignView, what: Saying, by: string) => ({
  ...{ id, planSha256, by },
  signature: signWord(people.get(by) as KeyObject, what, fleet, new Uint8Array(Buffer.from(planSha256, 'hex')), by),
})

/** What an operator does next about a campaign; whoever is called after a crash looks first. */
async function goOn(select: string, windowSeconds: number): Promise<CampaignView> {
  const { administration } = serving
  const { campaigns } = await administration.campaigns({ limit: 3 })
  const view = campaigns.find(({ plan }) => plan.select === select)
  if (!view) return administration.planCampaign({ select, reason: 'keys leaked', windowSeconds, by: 'alice' })
  if (view.state === 'planned') return administration.submitCampaign(word(view, 'submit', 'alice'))
  if (view.state === 'submitted') return administration.approveCampaign(word(view, 'approve', 'bob'))
  return view
}

/** Takes it as far as `wanted`, with a new process for each that dies. `dieAgainAt`: where the first of these dies in its turn. */
async function comesTo(wanted: CampaignView['state'], select: string, dieAgainAt = ''): Promise<CampaignView> {
  for (let next = dieAgainAt; ; )
    try {
      const view = await goOn(select, wanted === 'quarantined' ? 3600 : 0)
      if (view.state === wanted && (wanted !== 'quarantined' || view.stages.blocked !== null)) return view
      await new Promise(later => setTimeout(later, 20))
    } catch (failure) {
      await startAgain(failure, next)
      next = ''
    }
}

const isRevoked = (device: string) => party.rules.isRevoked(members.get(device) as Membership, null)

async function enroll(device: string, groups: string[] = []): Promise<void> {
  const { certificate } = await serving.enroll(device, groups)
  members.set(device, membershipOf(certificate) as Membership)
}

async function label(devices: string[], wave: string): Promise<void> {
  await serving.administration.labelDevices({ changes: devices.map(id => ({ id, set: { wave }, unset: [] })) })
}

async function setUp(name: string, steps: string[]): Promise<void> {
  members.clear()
  grew = 0
  if (name === 'PostgreSQL') database = await startPostgres()
  const store = database
    ? `store:\n  postgres: { host: ${database.folder}, database: postgres, user: birthmark, schema: acme }\n`
    : ''
  serving = await prepareServing(
    yaml => `${yaml.replace('  services: ', '  services:\n    gateway: relying-party\n    away: relying-party ')}
revocation:
  people: [{ name: alice, key: alice.pub }, { name: bob, key: bob.pub }]
  approval: { devices: 1 }
  window: 0s
${store}`,
  )
  for (const name of people.keys())
    writeFileSync(join(serving.folder, `${name}.pub`), publicKey(name).export({ type: 'spki', format: 'pem' }))
  const services = serviceAuthority(serving)
  spare = load()
  await start()
  noticeSpki = noticeKeyOf(serving)
  party = await joinRelyingParty(serving, services, 'gateway', event => {
    if (event.type === 'applied' && event.grew) grew++
  })
  for (const [i, name] of steps.entries())
    for (const end of ['a', 'b']) await enroll(`${name}-${end}`, isGroup(i) ? [`batch=${name}`] : [])
  for (const device of ['undone-a', 'undone-b', 'late']) await enroll(device)
  for (const [i, wave] of [...steps, 'undone'].entries())
    if (wave === 'undone' || !isGroup(i)) await label([`${wave}-a`, `${wave}-b`], wave)
}

async function tearDown(): Promise<void> {
  await party?.leave()
  for (const one of [child, spare]) if (one?.kill('SIGKILL')) await once(one, 'exit')
  await serving?.remove()
  await database?.remove()
}

describe.each(stores)('a campaign whose server with $name is killed', ({ name, steps }) => {
  const carriedOut: CampaignView[] = []
  beforeAll(() => setUp(name, steps), 120_000)
  afterAll(tearDown)

  for (const [i, step] of steps.entries())
    test(`at ${step} comes to the same end`, async () => {
      const select = isGroup(i) ? `batch=${step}` : `wave=${step}`
      const before = deaths
      child.send(step)
      const planned = step === 'campaign-planned' ? null : await goOn(select, 0)
      // Who joins once it is planned is not in it.
      if (planned && !isGroup(i)) await label(['late'], step)
      // Once more at the same step, in the process that goes on.
      const dieAgainAt = database === null && step === 'campaign-revoked' ? step : ''
      const view = await comesTo('committed', select, dieAgainAt)
      // At the last step there may have been an answer.
      if (deaths === before) await startAgain({ code: 'unanswered' })
      expect(deaths - before).toBe(dieAgainAt ? 2 : 1)
      if (planned) expect(view).toMatchObject({ id: planned.id, planSha256: planned.planSha256 })
      expect(view.words.map(({ what, by }) => `${what} ${by}`)).toEqual(['submit alice', 'approve bob'])
      const { ids } = await serving.administration.campaignDevices({ id: view.id, after: -1 })
      expect(ids).toEqual([`${step}-a`, `${step}-b`])
      await until(() => ids.every(isRevoked), 'the gateway has the notice')
      expect(isRevoked('late')).toBe(false)
      carriedOut.push(view)
    }, 120_000)

  if (name === 'SQLite')
    test('can be undone by the next one until its window closes, and stays undone if that is killed too', async () => {
      const select = 'wave=undone'
      const secret = await serving.administration.mintSecret({ device: 'undone-a', groups: [], minutes: 60 })
      const ask = async () => {
        const connection = await serving.connect()
        const answer = await serving.ask(connection, secret)
        connection.close()
        return answer
      }
      child.send('campaign-quarantined')
      const view = await comesTo('quarantined', select)
      expect((await ask())?.body).toContain('device_quarantined')
      child.send('campaign-undone')
      const undo = serving.administration.undoCampaign({ ...word(view, 'undo', 'bob'), reason: 'the wrong wave' })
      await startAgain(await undo.catch((error: unknown) => error))
      expect(await serving.administration.campaign({ id: view.id })).toMatchObject({ state: 'undone', undone: 'the wrong wave' })
      expect((await ask())?.status).toBe(200)
      expect(isRevoked('undone-a')).toBe(false)
    }, 120_000)

  test('has told everybody, and left a receipt that is proven', async () => {
    const { administration } = serving
    for (const { id } of carriedOut) {
      // The gateway said so to a broker that died with what it kept; it says it again.
      await until(async () => {
        const { undelivered, relyingParties } = (await administration.campaign({ id })).stages
        return undelivered === 0 && relyingParties?.confirmed === 1
      }, 'every notice is out and in force at the gateway')
      const { relyingParties } = (await administration.campaign({ id })).stages
      expect(relyingParties).toEqual({ confirmed: 1, of: 2, missing: ['away'] })
      const receipt = (await administration.campaignReceipt({ id })) as Receipt
      const known = [...people.keys()].map(name => ({ name, spki: receiptKey(people.get(name) as KeyObject) }))
      expect(receiptProblems(receipt, [noticeSpki], known)).toEqual([])
      expect(receipt.body).toMatchObject({ id, revoked: { devices: 2, certificates: 2 } })
    }
  })

  test('has revoked nobody twice', async () => {
    // A notice that revokes what was good, one for each campaign.
    expect(grew).toBe(steps.length)
    child.kill('SIGKILL')
    await ended
    const store = await (database
      ? openPostgresStore(database.address('acme'))
      : openSqliteStore({ path: storePath(serving.state) }))
    const records = await store.audit(0, 1000)
    expect(await store.check()).toEqual([])
    await store.close()
    const count = (kind: string, about: string) =>
      records.filter(record => record.kind === kind && `${record.detail},`.includes(`${about},`)).length
    for (const [i, { id }] of carriedOut.entries())
      if (isGroup(i)) expect(count('group_revoked', `group batch=${steps[i]}`)).toBe(1)
      else expect(count('certificates_revoked', `campaign ${id}`)).toBe(1)
    const committed = records.filter(({ kind, code }) => kind === 'campaign_moved' && code === 'committed')
    expect(committed).toHaveLength(steps.length)
  })
})
