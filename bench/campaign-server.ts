// The process of `campaign`: store, revocation, notice key, rule set and campaigns as `birthmark serve` joins them, without devices. It watches its own
// event loop, and appends a record every few milliseconds as enrollments would.

import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { createCampaigns, createRevocation, openSqliteStore, signWord } from '@birthmark/est-server'
import { createHeartbeats, createRuleSet, statusOf } from '@birthmark/fleet-revocation'
import { noticeKeysOf, noticeSigner } from '../packages/birthmark/src/notice-signing.ts'
import { createQuarantineView } from '../packages/birthmark/src/quarantine-view.ts'
import { listCoder, mergeRecorded } from '../packages/birthmark/src/recorded-rules.ts'
import type { CampaignMeasured } from './campaign.ts'
import { fleet, now } from './campaign-fleet.ts'

const folder = process.argv[2]
const store = await openSqliteStore({ path: join(folder, 'store.db') })
const started = performance.now()
/** The window is not waited for. */
let skipped = 0
const windowSeconds = 600
const clock = { now: () => now + skipped + (performance.now() - started) / 1000 }
const log = { info() {}, warn() {}, error: (fields: object, message: string) => console.error(message, fields) }
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const heartbeats = createHeartbeats(randomBytes(32), fleet)
await heartbeats.chain(1)
const rules = createRuleSet()
const revocation = createRevocation({
  ...{ store, fleet, clock, log, coder: listCoder },
  signNotice: noticeSigner(noticeKeysOf([privateKey]), heartbeats),
  onRecorded: what => void mergeRecorded(rules, what),
})
const quarantine = await createQuarantineView(store, fleet)
const status = quarantine.over(statusOf(rules, fleet))
const people = ['alice', 'bob'].map(name => {
  const keys = generateKeyPairSync('ed25519')
  return { name, key: keys.privateKey, spki: new Uint8Array(keys.publicKey.export({ type: 'spki', format: 'der' })) }
})
const campaigns = createCampaigns({
  ...{ store, fleet, clock, log, revocation },
  rules: {
    ...{ people, threshold: { devices: 1000, share: 0.1 }, windowSeconds: 3 },
    radius: { site: 'site', owner: 'owner', gateway: { name: 'role', value: 'gateway' } },
  },
  later: (seconds, work) => {
    const timer = setTimeout(work, seconds * 1000)
    return () => clearTimeout(timer)
  },
  enforce: async () => {
    await quarantine.refresh()
    return { sessionsCut: 0, connectionsClosed: 0 }
  },
  online: () => 0,
  onRevoked: () => {},
})

let [maxStallMs, maxWorkMs, maxRecordMs, rss] = [0, 0, 0, 0]
// What this thread worked between two of its turns stands beside how long they were apart: on a busy machine the rest was others'.
const worked = () => {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}
let last = { at: performance.now(), worked: worked() }
const beat = setInterval(() => {
  const now = { at: performance.now(), worked: worked() }
  maxStallMs = Math.max(maxStallMs, now.at - last.at - 5)
  maxWorkMs = Math.max(maxWorkMs, now.worked - last.worked)
  last = now
}, 5)
const memory = setInterval(() => {
  rss = Math.max(rss, process.memoryUsage.rss())
}, 20)
let recording = true
const records = (async () => {
  while (recording) {
    const at = performance.now()
    const entry = {
      at: now,
      kind: 'failure',
      requestId: '',
      fleet,
      device: '',
      by: '',
      code: '',
      detail: 'a record of the benchmark',
    } as const
    await store.appendAudit(entry)
    maxRecordMs = Math.max(maxRecordMs, performance.now() - at)
    await new Promise(next => setTimeout(next, 10))
  }
})()

const timed = async <T>(work: () => Promise<T>): Promise<[T, number]> => {
  const from = performance.now()
  return [await work(), performance.now() - from]
}
const [planned, planMs] = await timed(() =>
  campaigns.plan({ select: 'model in (gw-1,gw-2),firmware<2.3', reason: 'benchmark', windowSeconds, by: 'alice' }),
)
const { id, planSha256 } = planned
const word = (what: 'submit' | 'approve', who: number) => ({
  ...{ id, planSha256 },
  said: { by: people[who].name, signature: signWord(people[who].key, what, fleet, planSha256, people[who].name) },
})
await campaigns.submit(word('submit', 0))
const [, quarantineMs] = await timed(async () => {
  await campaigns.approve(word('approve', 1))
  await campaigns.settled()
})
if (status({ fleet, idx: 1, gids: [1] }, null) !== 'quarantined') throw new Error('nothing is in quarantine')
skipped = windowSeconds
const [, commitMs] = await timed(async () => {
  await campaigns.resume()
  await campaigns.settled()
})
const done = await campaigns.get(id)
if (done.state !== 'committed') throw new Error(`the campaign is ${done.state}`)
for (const [idx, wanted] of [
  [1, 'revoked'],
  [3, 'good'],
] as const)
  if (status({ fleet, idx, gids: [] }, null) !== wanted)
    throw new Error(`certificate ${idx} is ${status({ fleet, idx, gids: [] }, null)}`)
recording = false
await records
clearInterval(beat)
clearInterval(memory)
campaigns.close()
let noticeBytes = 0
for (let seq = 1; seq <= (done.story.commit?.seq ?? 0); seq++) noticeBytes += (await store.notice(fleet, seq))?.notice.length ?? 0
const measured: CampaignMeasured = {
  ...{
    devices: planned.plan.devices.count,
    planMs,
    quarantineMs,
    commitMs,
    maxStallMs,
    maxWorkMs,
    maxRecordMs,
    rssMb: rss / 1_048_576,
  },
  ...{ notices: done.story.commit?.seq ?? 0, noticeBytes },
}
await store.close()
process.send?.(measured, () => process.disconnect())
