// The commands that work on a store, over a server's configuration and without the server.

import { createPublicKey, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createRevocation, createRevocationLists, issuerName, readIssuerCertificate, type Store } from '@birthmark/est-server'
import {
  createHeartbeats,
  createPullHandler,
  headTopic,
  noticeFacts,
  type Rule,
  ringTopic,
  systemClock,
} from '@birthmark/fleet-revocation'
import { connectMqttBus } from '@birthmark/fleet-revocation/broker'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { startTestBroker } from '../../../test/support/broker.ts'
import { createTestAuthority } from '../../fleet-revocation/src/testing/authority.ts'
import { runCommandLine } from './command-line.ts'
import { readConfiguration, type Settings } from './configuration.ts'
import { watchHead } from './head-watch.ts'
import { noticeKeysOf, noticeSigner, outboxOf } from './notice-signing.ts'
import { openIssuer } from './open-issuer.ts'
import { storePath, withStore } from './open-store.ts'
import { keepPublished, type Published, refuseOlderStore } from './published.ts'
import { partsOf } from './recorded-rules.ts'
import { ensureTwoTier } from './server-certificate.ts'
import { createTerminal } from './terminal.ts'

let folder: string
let printed: string
const file = (...names: string[]): string => join(folder, ...names)
const config = (): string => file('birthmark.yaml')
const log = { info() {}, warn() {}, error() {} }

async function run(...args: string[]): Promise<number> {
  printed = ''
  const stream = {
    write(text: string) {
      printed += text
    },
  }
  return runCommandLine(args, createTerminal({ stdout: stream, stderr: stream, env: {}, now: () => 0 }))
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bm-'))
  expect(await run('init', folder, '--fleet', 'acme', '--host', 'est.acme.test')).toBe(0)
  await ensureTwoTier(file('maker'), 'Acme', 'device', randomBytes)
  copyFileSync(file('maker', 'root.pem'), file('birth-anchors.pem'))
  rmSync(file('state'), { recursive: true, force: true })
  mkdirSync(file('state'), { mode: 0o700 })
})
afterEach(() => rmSync(folder, { recursive: true }))

/** What a running server does to its store: devices, revocations published, and the mark kept. */
async function serve(
  work: (at: { store: Store; settings: Settings; published: Published; revoke(group: string): Promise<number> }) => Promise<void>,
): Promise<void> {
  const settings = readConfiguration(config())
  const { fleet, state } = settings
  await withStore(settings, async store => {
    await refuseOlderStore(settings, store)
    // The mark of every second is left out: a process is killed before it as well.
    const clock = { ...systemClock, setTimer: () => () => {} }
    const published = await keepPublished({ state, store, fleets: [fleet], clock, log, onFatal() {} })
    const signNotice = noticeSigner(noticeKeysOf(settings.notices.keys), createHeartbeats(new Uint8Array(32), fleet))
    const revocation = createRevocation({ store, fleet, signNotice, clock: systemClock, log })
    const outbox = outboxOf(store, fleet, systemClock.now, published)
    await work({
      ...{ store, settings, published },
      async revoke(group) {
        const { seq } = await revocation.revokeGroup({ group, by: 'test' })
        for (const notice of await outbox.pending(10)) await outbox.delivered(notice.seq)
        return seq
      },
    })
    await published.close()
  })
}

const admit = (store: Store, groups: string[]) =>
  store.importManifest(
    'acme',
    groups.map((group, i) => ({
      serial: `${group}-${i}`,
      spkiSha256: randomBytes(32).toString('hex'),
      groups: [group],
      keyOrigin: 'device' as const,
    })),
    {
      at: Math.floor(systemClock.now()),
      kind: 'manifest_imported',
      requestId: '',
      fleet: 'acme',
      device: '',
      by: 'test',
      code: '',
      detail: '',
    },
  )

test('the audit record goes out signed and is verified with the public key alone; a changed file is refused', async () => {
  await serve(async ({ store, revoke }) => {
    await admit(store, ['batch-1'])
    await revoke('batch-1')
  })
  expect(await run('audit', 'export', '--config', config(), '--out', file('audit.jsonl'))).toBe(0)
  expect(statSync(file('audit.jsonl')).mode & 0o777).toBe(0o600)
  expect(await run('audit', 'export', '--config', config(), '--out', file('audit.jsonl'))).toBe(2)
  const [noticeKey] = readConfiguration(config()).notices.keys
  writeFileSync(file('key.pub'), createPublicKey(noticeKey).export({ type: 'spki', format: 'pem' }))
  const verify = () => run('audit', 'verify', file('audit.jsonl'), '--key', file('key.pub'), '--json')
  expect(await verify()).toBe(0)
  expect(JSON.parse(printed.split('\n').find(line => line.startsWith('{'))!)).toMatchObject({ records: 2, last: 2 })
  writeFileSync(file('audit.jsonl'), readFileSync(file('audit.jsonl'), 'utf8').replace('batch-1', 'batch-2'))
  expect(await verify()).toBe(3)
  expect(printed).toContain('audit_broken')
})

test('fsck calls a sound store sound', async () => {
  await serve(async ({ store, revoke }) => {
    await admit(store, ['batch-1'])
    await revoke('batch-1')
  })
  expect(await run('fsck', '--config', config())).toBe(0)
  expect(printed).toMatch(/0 certificates, 0 given up, 1 notices, 0 revocation lists: sound/)
})

test('[F45] [F69] a store that was put back is noticed at start; restore lets every number go on above what was published, and forgets no revocation', async () => {
  let before = { idx: 0, gid: 0, crl: 0 }
  const issuer = new Uint8Array(20).fill(7)
  await serve(async ({ store, revoke }) => {
    await admit(store, ['batch-1', 'batch-2'])
    expect(await revoke('batch-1')).toBe(1)
    await store.reserveCrlNumber(issuer, Math.floor(systemClock.now()))
  })
  expect(await run('backup', '--config', config(), '--to', file('backup'))).toBe(0)
  for (const name of readdirSync(file('backup'))) expect(statSync(file('backup', name)).mode & 0o777, name).toBe(0o600)
  await serve(async ({ store, revoke }) => {
    await admit(store, ['batch-3'])
    expect(await revoke('batch-3')).toBe(2)
    expect(await revoke('batch-2')).toBe(3)
    const numbers = await store.numbers(['acme'])
    before = {
      idx: numbers.fleets[0].idx,
      gid: numbers.fleets[0].gid,
      crl: await store.reserveCrlNumber(issuer, Math.floor(systemClock.now())),
    }
  })

  // By hand, as a hypervisor's snapshot or a hasty copy would.
  const { state } = readConfiguration(config())
  for (const suffix of ['', '-wal', '-shm']) rmSync(storePath(state) + suffix, { force: true })
  copyFileSync(file('backup', 'fleet.db'), storePath(state))
  await expect(serve(async () => {})).rejects.toMatchObject({
    code: 'store_older',
    next: expect.stringContaining('birthmark restore'),
  })
  await expect(serve(async () => {})).rejects.toMatchObject({ code: 'store_older' })

  expect(await run('restore', file('backup'), '--config', config())).toBe(0)
  expect(printed).toMatch(/2 notices taken in/)
  await serve(async ({ store, revoke }) => {
    const numbers = await store.numbers(['acme'])
    expect(numbers.fleets[0].idx).toBeGreaterThan(before.idx)
    expect(numbers.fleets[0].gid).toBeGreaterThan(before.gid)
    expect(await store.reserveCrlNumber(issuer, Math.floor(systemClock.now()))).toBeGreaterThan(before.crl)
    // batch-2 and the lost batch-3, by their gids.
    expect((await store.rules('acme')).map(rule => rule.gid).sort()).toEqual([1, 2, 3])
    await admit(store, ['batch-4'])
    expect(await revoke('batch-4')).toBe(4)
  })
  expect(await run('fsck', '--config', config())).toBe(0)
})

test('[F45] a fork is told from an older copy, and restore --in-place takes it on', async () => {
  await serve(({ store }) => admit(store, ['batch-1']).then(() => {}))
  const { state } = readConfiguration(config())
  for (const suffix of ['', '-wal', '-shm']) rmSync(storePath(state) + suffix, { force: true })
  await withStore(readConfiguration(config()), async store => {
    await admit(store, ['elsewhere', 'and-there'])
    await admit(store, ['more'])
  })
  await expect(serve(async () => {})).rejects.toThrow(/fork/)
  expect(await run('restore', '--in-place', '--config', config())).toBe(0)
  await serve(async ({ store }) => expect((await store.audit(0, 10)).at(-1)?.kind).toBe('store_restored'))
})

test('[F45] [F69] a number that two notices have: what each of them revoked is in the store after a restore, and is shown again above both', async () => {
  await serve(async ({ store, revoke }) => {
    await admit(store, ['batch-1', 'batch-2', 'batch-3', 'batch-4'])
    await revoke('batch-1')
  })
  const { state } = readConfiguration(config())
  // The whole machine goes back: store, mark and notes.
  cpSync(state, file('snapshot'), { recursive: true })
  await serve(async ({ store, revoke }) => {
    await revoke('batch-2')
    writeFileSync(file('published-2.bin'), (await store.newestNotice('acme'))!.notice)
  })
  rmSync(state, { recursive: true })
  cpSync(file('snapshot'), state, { recursive: true })
  await serve(async ({ revoke }) => expect(await revoke('batch-3')).toBe(2))

  const inPlace = () => run('restore', '--in-place', '--config', config(), '--notice', file('published-2.bin'), '--json')
  expect(await inPlace()).toBe(0)
  expect(outcome()).toMatchObject({ adopted: 1, seq: 4, taken: [2], missing: null })
  expect(printed).toMatch(/Published as notice 2, and without a place here/)
  // Numbers were given out twice: how many, nobody knows.
  const wide = outcome().idx
  expect(wide).toBeGreaterThan(4_000_000)
  expect(outcome()).toMatchObject({ isForked: true, isMarked: true, lost: { to: wide - 1 } })
  expect(printed).toMatch(/numbers were given out twice/)
  expect(printed).not.toMatch(/had not noted/)
  const gids = (body: { rules: Rule[] }) => partsOf(body.rules).rules.map(({ gid }) => gid)
  await serve(async ({ store, published, revoke }) => {
    expect((await store.rules('acme')).map(({ gid }) => gid).sort()).toEqual([1, 2, 3])
    // Whoever has either notice 2 learns from what follows.
    const after = await Promise.all([3, 4].map(seq => store.notice('acme', seq)))
    expect(after.flatMap(found => gids(noticeFacts(found!.notice))).sort()).toEqual(expect.arrayContaining([1, 2, 3]))
    published.note(readFileSync(file('published-2.bin')))
    expect(await revoke('batch-4')).toBe(5)
  })
  expect(await run('fsck', '--config', config())).toBe(0)

  // Once more changes nothing.
  expect(await inPlace()).toBe(0)
  expect(outcome()).toMatchObject({ adopted: 0, seq: 5, taken: [2], isForked: false, lost: null })
  expect(outcome().idx).toBeLessThan(wide + 100_000)
  expect(printed).not.toMatch(/given out twice|had not noted/)
  await serve(async () => {})
})

test('[F45] a notice that was noted and is another than the one of its number in the store: a fork, refused at start', async () => {
  await serve(async ({ store, revoke }) => {
    await admit(store, ['batch-1', 'batch-2', 'batch-3'])
    await revoke('batch-1')
  })
  const { state } = readConfiguration(config())
  cpSync(state, file('snapshot'), { recursive: true })
  let lost = new Uint8Array()
  await serve(async ({ store, revoke }) => {
    await revoke('batch-2')
    lost = new Uint8Array((await store.newestNotice('acme'))!.notice)
  })
  rmSync(state, { recursive: true })
  cpSync(file('snapshot'), state, { recursive: true })
  await serve(async ({ revoke, published }) => {
    published.note(lost)
    // As a server does that is about to end.
    expect(await revoke('batch-3')).toBe(2)
  })
  await expect(serve(async () => {})).rejects.toMatchObject({ code: 'store_older', message: expect.stringContaining('fork') })
  expect(await run('restore', '--in-place', '--config', config(), '--json')).toBe(0)
  expect(outcome()).toMatchObject({ adopted: 1, taken: [2] })
  await serve(async ({ store }) => expect((await store.rules('acme')).map(({ gid }) => gid).sort()).toEqual([1, 2, 3]))
})

/** A backup with notice 1; since then notices 2 and 3, of groups that it lacks. */
async function backedUp(): Promise<{ notices: { seq: number; notice: Uint8Array }[]; numbers: { idx: number; gid: number } }> {
  await serve(async ({ store, revoke }) => {
    await admit(store, ['batch-1', 'batch-2'])
    await revoke('batch-1')
  })
  expect(await run('backup', '--config', config(), '--to', file('backup'))).toBe(0)
  let since = { notices: [] as { seq: number; notice: Uint8Array }[], numbers: { idx: 0, gid: 0 } }
  await serve(async ({ store, revoke }) => {
    await admit(store, ['batch-3'])
    await revoke('batch-3')
    await revoke('batch-2')
    const notices = await Promise.all([1, 2, 3].map(seq => store.notice('acme', seq)))
    since = { notices: notices.map(found => found!), numbers: (await store.numbers(['acme'])).fleets[0] }
  })
  return since
}

const forget = (...names: string[]) => names.map(name => rmSync(file('state', name), { force: true }))
const restore = (...more: string[]) => run('restore', file('backup'), '--config', config(), '--json', ...more)
const outcome = () => JSON.parse(printed.split('\n').find(line => line.startsWith('{'))!)

test('[F45] a server that was killed right after a notice is no machine that was put back: no mark is behind a notice of its own', async () => {
  await serve(async ({ store, revoke }) => {
    await admit(store, ['batch-1', 'batch-2'])
    await revoke('batch-1')
  })
  expect(await run('backup', '--config', config(), '--to', file('backup'))).toBe(0)
  const { state } = readConfiguration(config())
  await serve(async ({ revoke }) => {
    expect(await revoke('batch-2')).toBe(2)
    cpSync(state, file('killed'), { recursive: true })
  })
  rmSync(state, { recursive: true })
  cpSync(file('killed'), state, { recursive: true })
  expect(await restore()).toBe(0)
  expect(outcome()).toMatchObject({ seq: 2, adopted: 1, isMarked: true })
  expect(outcome().idx).toBeLessThan(1_000_000)
  expect(printed).not.toMatch(/had not noted/)
})

test('[F45] without the mark nothing is guessed: a restore wants a notice or a number, and goes on above either', async () => {
  const { notices, numbers } = await backedUp()
  forget('published.json', 'published-notices')
  expect(await restore()).toBe(3)
  expect(outcome()).toMatchObject({ error: { code: 'published_unknown', next: expect.stringContaining('--above') } })
  // Nothing was moved.
  expect(readdirSync(file('state')).filter(name => name.includes('before'))).toEqual([])

  writeFileSync(file('head.bin'), notices[2].notice)
  expect(await restore('--notice', file('head.bin'))).toBe(0)
  // Number 2 is nowhere, but its group is repeated by number 3.
  expect(outcome()).toMatchObject({ seq: 3, adopted: 1, missing: { from: 2, to: 2 } })
  await serve(async ({ store, revoke }) => {
    expect((await store.rules('acme')).map(rule => rule.gid).sort()).toEqual([1, 2, 3])
    expect((await store.numbers(['acme'])).fleets[0].idx).toBeGreaterThan(numbers.idx + 4_000_000)
    await admit(store, ['batch-4'])
    expect(await revoke('batch-4')).toBe(4)
  })
  expect(await run('fsck', '--config', config())).toBe(0)
})

test('[F45] --from: another server of the fleet is asked for what it has', async () => {
  const { notices } = await backedUp()
  forget('published.json', 'published-notices')
  const servers = createTestAuthority('servers')
  writeFileSync(file('server', 'root.pem'), servers.certPem, { flag: 'a' })
  const held = (seq: number) => Promise.resolve(notices[seq - 1] ?? null)
  const answer = createPullHandler({ fleet: 'acme', newest: () => held(3), notice: held, snapshots: { current: async () => [] } })
  const { certPem, keyPem } = servers.server()
  const other = createServer({ key: keyPem, cert: certPem }, async (request, response) => {
    const { status, body } = (await answer(request.url!))!
    response.writeHead(status).end(body)
  }).listen(0, '127.0.0.1')
  await once(other, 'listening')
  const url = `https://127.0.0.1:${(other.address() as AddressInfo).port}`
  expect(await restore('--from', url)).toBe(0)
  expect(outcome()).toMatchObject({ seq: 3, adopted: 2, missing: null })
  other.close()
  await once(other, 'close')
  expect(await restore('--from', url)).toBe(3)
  expect(outcome()).toMatchObject({ error: { code: 'published_unasked' } })
})

test('[F45] --above: no index, notice or list number at or below it is given out again', async () => {
  await backedUp()
  forget('published.json', 'published-notices')
  expect(await restore('--above', '9000000')).toBe(0)
  await serve(async ({ store, settings, revoke }) => {
    expect((await store.numbers(['acme'])).fleets[0].idx).toBeGreaterThan(9_000_000)
    const { keyId } = readIssuerCertificate({ certificate: settings.issuer.certificates[0] })
    expect(await store.reserveCrlNumber(keyId, Math.floor(systemClock.now()))).toBeGreaterThan(9_000_000)
    await admit(store, ['batch-4'])
    expect(await revoke('batch-4')).toBe(9_000_002)
    // What begins the new run is shown as well, and says what stands.
    expect((await store.newestNotice('acme'))!.seq).toBe(9_000_002)
    expect(await store.notice('acme', 9_000_001)).not.toBeNull()
  })
  expect(await run('fsck', '--config', config())).toBe(0)
  expect(await run('restore', '--in-place', '--config', config(), '--above', 'many')).toBe(2)
})

test('[F45] --crl: a list that somebody downloaded says which number its issuer has reached, if the issuer signed it', async () => {
  await backedUp()
  const reached = 3_000_000
  let keyId = new Uint8Array()
  await serve(async ({ store, settings: { issuer: configured, state } }) => {
    const statusUrl = 'http://status.acme.test'
    const issuer = await openIssuer(configured, { state, log, clock: systemClock, statusUrl })
    keyId = new Uint8Array(issuer.keyId)
    await store.raiseCrlNumber(keyId, reached)
    const parts = { store, issuers: [issuer], lifetimeSeconds: 3600, folder: file('lists'), clock: systemClock, log }
    const lists = createRevocationLists(parts)
    const full = await lists.full(issuerName(keyId))
    if (full.kind !== 'list') throw new Error(JSON.stringify(full))
    copyFileSync(full.list.path, file('list.crl'))
    await lists.close()
  })
  forget('published.json', 'published-notices')
  writeFileSync(file('other.crl'), readFileSync(file('server', 'root.pem')))
  expect(await restore('--above', '10', '--crl', file('other.crl'))).toBe(3)
  expect(outcome()).toMatchObject({ error: { code: 'list_refused' } })
  expect(await restore('--above', '10', '--crl', file('list.crl'))).toBe(0)
  await serve(async ({ store }) => {
    expect(await store.reserveCrlNumber(keyId, Math.floor(systemClock.now()))).toBeGreaterThan(reached + 1_000_000)
  })
})

test('[F45] [F69] a machine that went back together with its mark learns from the broker outside what was published; a broker that is away stops it', async () => {
  const { notices } = await backedUp()
  // The mark of a whole machine that was put back: of the backup's moment.
  forget('published.json', 'published-notices')
  writeFileSync(
    file('state', 'published.json'),
    JSON.stringify(JSON.parse(readFileSync(file('backup', 'manifest.json'), 'utf8')).numbers),
  )
  const outside = await startTestBroker({ services: { 'birthmark-acme': 'publisher' } })
  const own = outside.services.service('birthmark-acme')
  for (const [name, pem] of Object.entries({
    'broker.pem': outside.servers.certPem,
    'own.pem': own.certPem,
    'own.key': own.keyPem,
  }))
    writeFileSync(file(name), pem, { mode: 0o600 })
  chmodSync(file('own.key'), 0o600)
  const part = `mqtt:\n  url: mqtts://127.0.0.1:${outside.broker.port}\n  anchors: broker.pem\n  certificate: own.pem\n  key: own.key\n\n`
  writeFileSync(config(), readFileSync(config(), 'utf8').replace(/^mqtt:[\s\S]*?(?=^server:)/m, part))

  const client = await outside.connect('birthmark-acme', own)
  for (const { seq, notice } of notices)
    await client.publishAsync(ringTopic('acme', seq), Buffer.from(notice), { qos: 1, retain: true })
  await client.publishAsync(headTopic('acme'), Buffer.from(notices[2].notice), { qos: 1, retain: true })
  // Whoever writes nonsense there delays nobody.
  await client.publishAsync(ringTopic('acme', 9), Buffer.from('nonsense'), { qos: 1, retain: true })
  await client.endAsync()

  // A server that starts so finds out, and so does every later one, whatever the broker holds by then.
  const settings = readConfiguration(config())
  for (const suffix of ['', '-wal', '-shm']) rmSync(storePath(settings.state) + suffix, { force: true })
  copyFileSync(file('backup', 'fleet.db'), storePath(settings.state))
  await serve(async ({ store, published }) => {
    const tls = { ca: [outside.servers.certPem], key: own.keyPem, cert: own.certPem }
    const url = `mqtts://127.0.0.1:${outside.broker.port}`
    const bus = connectMqttBus({ url, clientId: 'birthmark-acme', tls, log })
    const ended = new Promise<Error>(
      onFatal => void watchHead({ bus, settings, store, published, clock: systemClock, log, onFatal }),
    )
    expect(await ended).toMatchObject({ code: 'store_older', message: expect.stringContaining('notice 3') })
    await bus.close()
  })
  await expect(serve(async () => {})).rejects.toMatchObject({ code: 'store_older', next: expect.stringContaining('restore') })

  expect(await restore()).toBe(0)
  expect(printed).toMatch(/newest notice 3 — mqtts/)
  expect(printed).toMatch(/1 of the notices/)
  expect(outcome()).toMatchObject({ seq: 3, adopted: 2, missing: null })
  // Of the backup's moment and not of a second ago.
  expect(outcome().idx).toBeGreaterThan(4_000_000)
  await serve(async ({ store }) => expect((await store.rules('acme')).map(rule => rule.gid).sort()).toEqual([1, 2, 3]))

  await outside.close()
  expect(await restore()).toBe(3)
  expect(outcome()).toMatchObject({ error: { code: 'published_unasked', next: expect.stringContaining('--above N') } })
  expect(await restore('--above', '9000000')).toBe(0)
  expect(await run('fsck', '--config', config())).toBe(0)
})

test('refuses a backup that was changed, and one of another fleet', async () => {
  await serve(({ store }) => admit(store, ['batch-1']).then(() => {}))
  expect(await run('backup', '--config', config(), '--to', file('backup'))).toBe(0)
  expect(await run('backup', '--config', config(), '--to', file('backup'))).toBe(2)
  writeFileSync(
    file('backup', 'manifest.json'),
    readFileSync(file('backup', 'manifest.json'), 'utf8').replace('"fleet": "acme"', '"fleet": "other"'),
  )
  expect(await run('restore', file('backup'), '--config', config())).toBe(2)
  writeFileSync(
    file('backup', 'manifest.json'),
    readFileSync(file('backup', 'manifest.json'), 'utf8').replace('"fleet": "other"', '"fleet": "acme"'),
  )
  const copy = readFileSync(file('backup', 'fleet.db'))
  copy[copy.length - 1] ^= 1
  writeFileSync(file('backup', 'fleet.db'), copy)
  expect(await run('restore', file('backup'), '--config', config())).toBe(3)
  expect(printed).toContain('backup_damaged')
})
