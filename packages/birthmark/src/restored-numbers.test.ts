// A store that was put back takes in what was published, on either store, whatever number it was published under.

import { randomBytes } from 'node:crypto'
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openPostgresStore, openSqliteStore, type Store } from '@birthmark/est-server'
import { createRuleSet, noticeSha256, type Rule, signNotice } from '@birthmark/fleet-revocation'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { startPostgres, type TestPostgres } from '../../../test/support/postgres.ts'
import { runCommandLine } from './command-line.ts'
import { readConfiguration, type Settings } from './configuration.ts'
import { readDoubled } from './doubled-notices.ts'
import { noticeKeysOf } from './notice-signing.ts'
import { readMark } from './published.ts'
import { unfit } from './published-notice.ts'
import { storedRules } from './recorded-rules.ts'
import { type VerifiedNotice, verifiedNotices } from './restored-notices.ts'
import { goOn, type Known } from './restored-numbers.ts'
import { ensureTwoTier } from './server-certificate.ts'
import { createTerminal } from './terminal.ts'

const fleet = 'acme'
const group = (gid: number): Rule => ({ kind: 'group', gid, bound: 10 })
const nowhere = { write() {} }
let folder: string
let settings: Settings
let server: TestPostgres

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bm-'))
  const terminal = createTerminal({ stdout: nowhere, stderr: nowhere, env: {}, now: () => 0 })
  expect(await runCommandLine(['init', folder, '--fleet', fleet, '--host', 'est.acme.test'], terminal)).toBe(0)
  await ensureTwoTier(join(folder, 'maker'), 'Acme', 'device', randomBytes)
  copyFileSync(join(folder, 'maker', 'root.pem'), join(folder, 'birth-anchors.pem'))
  settings = readConfiguration(join(folder, 'birthmark.yaml'))
  server = await startPostgres()
})
afterAll(async () => {
  await server.remove()
  rmSync(folder, { recursive: true })
})

async function published(seq: number, before: VerifiedNotice | null, rules: Rule[], floor = 0): Promise<VerifiedNotice> {
  const facts = { fleet, seq, issuedAt: 1_800_000_000, maxAgeSeconds: 30, root: null, heartbeatAnchor: new Uint8Array(16) }
  const previousSha256 = before === null ? null : noticeSha256(before.notice)
  const notice = await signNotice({ ...facts, previousSha256, rules, floor }, noticeKeysOf(settings.notices.keys))
  const { verified } = await verifiedNotices(settings, [notice])
  return verified[0]
}

/** To a machine whose mark is beyond all of them. */
const known = (...notices: VerifiedNotice[]): Known => ({
  ...{ seen: readMark(settings.state), isMarked: true, notices, lists: [], above: null },
  doubled: readDoubled(settings.state),
})

describe.each(['sqlite', 'postgres'] as const)('%s', kind => {
  let store: Store
  let count = 0

  beforeEach(async () => {
    const name = `restored_${count++}`
    const state = join(folder, kind, name)
    mkdirSync(state, { recursive: true })
    settings = { ...settings, state }
    store =
      kind === 'sqlite'
        ? await openSqliteStore({ path: join(state, 'fleet.db'), onStopped() {} })
        : await openPostgresStore(server.address(name))
    return () => store.close()
  })

  test('[F45] [F69] what a notice revokes whose number another has, of every kind, is recorded and signed again above both; once', async () => {
    const first = await published(1, null, [group(1)])
    const ours = await published(2, first, [group(2)])
    const outcome = await goOn(store, settings, known(first, ours))
    expect(outcome).toMatchObject({ seq: 2, adopted: 2, taken: [], missing: null, isForked: false })

    const others: Rule[] = [
      group(3),
      { kind: 'range', start: 40, length: 9 },
      { kind: 'issuer', keyId: new Uint8Array(20).fill(7) },
    ]
    const theirs = await published(2, first, others, 6)
    expect(await unfit(store, fleet, [theirs])).toMatch(/fork/)
    const after = await goOn(store, settings, known(first, theirs))
    expect(after).toMatchObject({ seq: 4, adopted: 1, taken: [2], missing: null, isForked: true })
    // How far the other life of this machine went, nobody knows.
    expect(after.idx).toBeGreaterThan(outcome.idx + 4_000_000)
    expect((await storedRules(store, fleet)).merge([group(1), group(2), ...theirs.body.rules], 6)).toBe(false)
    // Whoever holds either of them hears the other.
    const shown = await Promise.all([3, 4].map(async seq => (await store.notice(fleet, seq))!.notice))
    const { verified } = await verifiedNotices(settings, shown)
    const heard = createRuleSet()
    for (const { body } of verified) heard.merge(body.rules, body.floor)
    expect(heard.merge([group(2), ...theirs.body.rules], 6)).toBe(false)
    const details = (await store.audit(0, 10)).slice(-2).map(({ detail }) => detail)
    expect(details).toEqual([
      expect.stringMatching(/^notice 3, .* for notice 2/),
      expect.stringMatching(/^notice 4, .* for a published notice 2/),
    ])
    expect(await unfit(store, fleet, [theirs])).toBeNull()

    const again = await goOn(store, settings, known(first, theirs))
    expect(again).toMatchObject({ seq: 4, adopted: 0, taken: [2], isForked: false, lost: null })
    expect(again.idx).toBeLessThan(after.idx + 100_000)
  })

  test('[F45] a number that was spent twice moves the numbers far up, once for each of its notices, also where neither says anything new', async () => {
    const first = await published(1, null, [group(1)])
    const second = await published(2, first, [])
    const outcome = await goOn(store, settings, known(first, second, await published(3, second, [])))
    const theirs = await published(2, first, [group(1)])
    expect(await unfit(store, fleet, [theirs])).toBeNull()
    const wide = await goOn(store, settings, known(theirs))
    expect(wide).toMatchObject({ isForked: true, lost: { from: outcome.idx, to: wide.idx - 1 } })
    expect(wide.idx).toBeGreaterThan(outcome.idx + 4_000_000)
    const narrow = await goOn(store, settings, known(theirs))
    expect(narrow).toMatchObject({ isForked: false, lost: null })
    expect(narrow.idx).toBeLessThan(wide.idx + 100_000)
    // The other of the two was in the store alone, and turns up.
    expect(await goOn(store, settings, known(second, theirs))).toMatchObject({ isForked: false, lost: null })
    // A third life.
    const third = await published(2, first, [{ kind: 'group', gid: 1, bound: narrow.idx + 9_000_000 }])
    const beyond = await goOn(store, settings, known(theirs, third))
    expect(beyond.isForked).toBe(true)
    expect(await store.reserveIdx(fleet)).toBeGreaterThan(narrow.idx + 13_000_000)
  })

  test('[F45] numbers are missing that nobody has a notice of; one that turns up later is taken in all the same', async () => {
    const notices = [await published(1, null, [group(1)])]
    for (const seq of [2, 3, 4, 5]) notices.push(await published(seq, notices[seq - 2], [group(seq)]))
    const [first, , third, fourth, fifth] = notices
    expect(await goOn(store, settings, known(first, fourth))).toMatchObject({ seq: 4, adopted: 2, missing: { from: 2, to: 3 } })
    expect(await goOn(store, settings, known(third, fifth))).toMatchObject({ seq: 6, adopted: 2, taken: [3], missing: null })
    expect((await store.rules(fleet)).map(({ gid }) => gid).sort()).toEqual([1, 3, 4, 5])
    // Behind a notice that this store never had.
    const stray = await published(7, fifth, [group(7)])
    expect(await goOn(store, settings, known(stray))).toMatchObject({ seq: 9, adopted: 1, taken: [7], missing: null })
  })
  test.each([
    ['once the numbers are raised', { adoptNotice: () => Promise.reject(new Error('cut')) }],
    ['before the mark', { numbers: () => Promise.reject(new Error('cut')) }],
  ])('[F45] a restore that was cut short %s, and twice: the next one says all that is lost', async (_, cut) => {
    const first = await published(1, null, [group(1)])
    const fourth = await published(4, await published(3, null, []), [group(4)])
    const { idx } = await goOn(store, settings, known(first))
    const entry = { at: 1_800_000_000, requestId: '', fleet, device: '', by: 'test', code: '', detail: 'the server went on' }
    await store.appendAudit({ ...entry, kind: 'failure' })
    const mark = readMark(settings.state)!
    const seen = { ...mark, audit: { ...mark.audit, n: mark.audit.n + 2 }, fleets: [{ fleet, idx: idx + 100, gid: 4, seq: 4 }] }
    for (let i = 0; i < 2; i++) {
      let read = false
      const numbers: Store['numbers'] = fleets => {
        if (read && 'numbers' in cut) return cut.numbers()
        read = true
        return store.numbers(fleets)
      }
      const failing = { ...store, ...cut, numbers }
      await expect(goOn(failing, settings, { ...known(first, fourth), seen })).rejects.toThrow('cut')
    }
    const { idx: raised } = (await store.numbers([fleet])).fleets[0]
    const outcome = await goOn(store, settings, { ...known(first, fourth), seen })
    expect(outcome).toMatchObject({ seq: 4, missing: { from: 2, to: 3 }, lost: { from: idx, to: outcome.idx - 1 } })
    expect(outcome.idx).toBeGreaterThan(raised)
    // With its mark it is over.
    expect(await goOn(store, settings, known(first, fourth))).toMatchObject({ missing: null, lost: null })
  })
})
