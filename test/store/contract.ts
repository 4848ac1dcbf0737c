// What every store driver must do, as one suite: a driver's test file hands in how to open and to reopen it.

import { createHash, randomBytes } from 'node:crypto'
import {
  type AuditEntry,
  type AuditKind,
  chainStart,
  type DeviceRecord,
  firstBroken,
  groupsPerFleetMax,
  type IssuanceIntent,
  type ManifestEntry,
  type Store,
} from '@birthmark/est-server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'

export interface Driver {
  open(): Promise<Store>
  /** Frees what `open` made on the medium. */
  remove(): Promise<void>
}

const sha256 = (text: string) => new Uint8Array(createHash('sha256').update(text).digest())
const issuer = sha256('issuer').subarray(0, 20)
const fleet = 'meters'
let at = 1_800_000_000

export function auditEntry(kind: AuditKind, device = ''): AuditEntry {
  return { at, kind, requestId: 'r-1', fleet, device, by: '192.0.2.1', code: '', detail: '' }
}

export function manifestEntry(serial: string, groups = ['batch=1']): ManifestEntry {
  return { serial, spkiSha256: Buffer.from(sha256(`birth ${serial}`)).toString('hex'), groups, keyOrigin: 'device' }
}

const content = sha256('content')
const spki = sha256('operational key')

async function deviceOf(store: Store, id: string): Promise<DeviceRecord> {
  const { device } = await store.enrollmentFacts(fleet, id, spki, content)
  if (device === null) throw new Error(`${id} is not known`)
  return device
}

export async function intentFor(store: Store, id: string, change: Partial<IssuanceIntent> = {}): Promise<IssuanceIntent> {
  const device = await deviceOf(store, id)
  return {
    issuer,
    serial: new Uint8Array(randomBytes(16)),
    fleet,
    device: device.key,
    deviceVersion: device.version,
    idx: await store.reserveIdx(fleet),
    gids: device.gids,
    // One key is one device's.
    spkiSha256: id === 'a' ? spki : sha256(`operational key ${id}`),
    contentSha256: content,
    epoch: 0,
    notBefore: at - 300,
    notAfter: at + 86_400,
    secret: null,
    requestId: 'r-1',
    tbs: sha256('tbs'),
    at,
    ...change,
  }
}

function issuedOf(intent: IssuanceIntent, id: string) {
  const audit = auditEntry('certificate_issued', id)
  return { issuer, serial: intent.serial, der: sha256('certificate'), idxFloor: 0, supersedes: 0, supersedesSince: 0, at, audit }
}

export async function issue(store: Store, id: string, change: Partial<IssuanceIntent> = {}): Promise<IssuanceIntent> {
  const intent = await intentFor(store, id, change)
  expect(await store.recordIntent(intent)).toEqual({ kind: 'recorded' })
  expect(await store.recordCertificate(issuedOf(intent, id))).toBe('recorded')
  return intent
}

async function revoke(store: Store, group: string, boundAdd = 0) {
  const draft = await store.draftRevocation(fleet, group, 64, at)
  if (draft === null || draft.closed) throw new Error('nothing to revoke')
  const notice = Buffer.from(`notice ${draft.seq}`)
  const bound = draft.idxNext + boundAdd
  const record = { fleet, gid: draft.gid, bound, reason: 1, seq: draft.seq, previousSha256: draft.previousSha256, notice, at }
  return { draft, record: { ...record, noticeSha256: sha256(notice.toString()), audit: auditEntry('group_revoked') } }
}

export function storeContract(name: string, driver: () => Driver): void {
  describe(`store contract: ${name}`, () => {
    let d: Driver
    let store: Store
    const reopen = async () => {
      await store.close()
      store = await d.open()
    }
    beforeEach(async () => {
      d = driver()
      store = await d.open()
      at = 1_800_000_000
      await store.importManifest(
        fleet,
        ['a', 'b', 'c'].map(id => manifestEntry(id)),
        auditEntry('manifest_imported'),
      )
    })
    afterEach(async () => {
      expect(await store.check()).toEqual([])
      await store.close()
      await d.remove()
    })

    it('keeps a certificate across a restart and finds it by issuer and serial, by content and by key', async () => {
      const intent = await issue(store, 'a')
      await reopen()
      const found = await store.certificate(issuer, intent.serial)
      expect(found).toMatchObject({ deviceId: 'a', fleet, idx: intent.idx, gids: [1], epoch: 0, notAfter: at + 86_400 })
      expect(Buffer.from(found!.der)).toEqual(Buffer.from(sha256('certificate')))
      const facts = await store.enrollmentFacts(fleet, 'a', spki, content)
      expect(facts.latest?.idx).toBe(intent.idx)
      expect(facts.same?.idx).toBe(intent.idx)
      expect(facts.keyHolder).toEqual({ deviceId: 'a', fleet, idx: intent.idx })
      expect(facts.device).toMatchObject({ version: 1, seenAt: at, closedGids: [] })
      expect(facts.lastTime).toBe(at)
      expect((await store.enrollmentFacts(fleet, 'b', sha256('birth c'), content)).birthKeyHolder).toBe('c')
      expect(await store.certificate(issuer, sha256('other').subarray(0, 16))).toBeNull()
    })

    it('knows no certificate before it is recorded, and no open intent after', async () => {
      const intent = await intentFor(store, 'a')
      await store.recordIntent(intent)
      expect(await store.certificate(issuer, intent.serial)).toBeNull()
      expect((await store.enrollmentFacts(fleet, 'a', spki, content)).same).toBeNull()
      await reopen()
      expect(await store.openIntents(10)).toMatchObject([{ deviceId: 'a', requestId: 'r-1', at }])
      expect(await store.recordCertificate(issuedOf(intent, 'a'))).toBe('recorded')
      expect(await store.openIntents(10)).toEqual([])
      expect(await store.recordCertificate(issuedOf(intent, 'a'))).toBe('conflict')
    })

    it('spends a serial and an idx once, also when their intent was voided', async () => {
      const first = await intentFor(store, 'a')
      await store.recordIntent(first)
      expect(await store.voidIntent(issuer, first.serial, auditEntry('intent_voided', 'a'))).toBe(true)
      expect(await store.voidIntent(issuer, first.serial, auditEntry('intent_voided', 'a'))).toBe(false)
      expect(await store.recordCertificate(issuedOf(first, 'a'))).toBe('conflict')
      expect(await store.recordIntent(await intentFor(store, 'b', { serial: first.serial }))).toEqual({
        kind: 'conflict',
        on: 'serial',
      })
      expect(await store.recordIntent(await intentFor(store, 'b', { idx: first.idx }))).toEqual({ kind: 'conflict', on: 'idx' })
      expect(await store.recordIntent(await intentFor(store, 'b'))).toEqual({ kind: 'recorded' })
    })

    it('[F24] takes one certificate for a device, content and epoch', async () => {
      await issue(store, 'a')
      expect(await store.recordIntent(await intentFor(store, 'a'))).toEqual({ kind: 'conflict', on: 'content' })
      await issue(store, 'a', { epoch: 1 })
      await issue(store, 'b')
    })

    it('[F23] takes a key for one device, also when both asked before either was known by it', async () => {
      const [a, b] = [await intentFor(store, 'a'), await intentFor(store, 'b', { spkiSha256: spki })]
      expect(await Promise.all([store.recordIntent(a), store.recordIntent(b)])).toEqual([
        { kind: 'recorded' },
        { kind: 'conflict', on: 'key' },
      ])
      // What came to nothing keeps nobody from it.
      await store.voidIntent(issuer, a.serial, auditEntry('intent_voided', 'a'))
      await issue(store, 'b', { spkiSha256: spki })
      expect(await store.recordIntent(await intentFor(store, 'a'))).toEqual({ kind: 'conflict', on: 'key' })
      await issue(store, 'b', { spkiSha256: spki, epoch: 1 })
    })

    it('gives up an open intent of the device when a new one comes', async () => {
      const died = await intentFor(store, 'a')
      await store.recordIntent(died)
      const next = await intentFor(store, 'a')
      expect(await store.recordIntent(next)).toEqual({ kind: 'recorded' })
      expect(await store.recordCertificate(issuedOf(died, 'a'))).toBe('conflict')
      expect(await store.recordCertificate(issuedOf(next, 'a'))).toBe('recorded')
      expect((await store.audit(0, 100)).filter(r => r.kind === 'intent_voided')).toHaveLength(1)
    })

    it('refuses an intent that was decided on an older state of the device', async () => {
      const stale = await intentFor(store, 'a')
      await issue(store, 'a', { contentSha256: sha256('other') })
      expect(await store.recordIntent(stale)).toEqual({ kind: 'conflict', on: 'device' })
    })

    it('moves the floor and the superseding count of a device with its certificate', async () => {
      const intent = await intentFor(store, 'a')
      await store.recordIntent(intent)
      await store.recordCertificate({ ...issuedOf(intent, 'a'), idxFloor: 7, supersedes: 1, supersedesSince: at })
      expect(await deviceOf(store, 'a')).toMatchObject({ idxFloor: 7, supersedes: 1, supersedesSince: at })
    })

    it('[F26] raises the floor of a device once for each certificate, and never lowers it', async () => {
      const stale = await intentFor(store, 'a')
      const raise = (idx: number, id = 'a') =>
        store.raiseFloor(fleet, id, idx, { ...auditEntry('certificate_used', id), at: at + 9 })
      expect([await raise(5), await raise(5), await raise(4), await raise(5, 'nobody')]).toEqual([true, false, false, false])
      await reopen()
      expect((await deviceOf(store, 'a')).idxFloor).toBe(5)
      expect(await store.recordIntent(stale)).toEqual({ kind: 'conflict', on: 'device' })
      expect((await store.audit(0, 100)).filter(r => r.kind === 'certificate_used')).toHaveLength(1)
      expect(await store.lastTime()).toBe(at)
    })

    it('[F26] holds a device under suspicion until it is lifted', async () => {
      const mark = (suspected: boolean, id = 'a') =>
        store.setSuspicion(fleet, id, suspected, auditEntry(suspected ? 'clone_suspected' : 'suspicion_lifted', id))
      const stale = await intentFor(store, 'a')
      expect(await mark(true)).toBe(true)
      expect(await mark(true, 'nobody')).toBe(false)
      await reopen()
      expect(await deviceOf(store, 'a')).toMatchObject({ suspectedAt: at })
      expect(await store.recordIntent(stale)).toEqual({ kind: 'conflict', on: 'device' })
      // Which of the two used its certificate cannot be told: neither supersedes the other's.
      expect(await store.raiseFloor(fleet, 'a', 5, auditEntry('certificate_used', 'a'))).toBe(false)
      expect(await mark(false)).toBe(true)
      expect(await deviceOf(store, 'a')).toMatchObject({ suspectedAt: null, supersedes: 0 })
    })

    it('[F27] spends a secret on one content, and for good once a certificate came of it', async () => {
      const hash = sha256('secret')
      const secret = {
        hash,
        fleet,
        deviceId: 'z',
        groups: ['late'],
        expiresAt: at + 60,
        at,
        audit: auditEntry('secret_minted', 'z'),
      }
      expect(await store.mintSecret(secret)).toEqual({ kind: 'minted' })
      expect(await store.secret(hash)).toEqual({ fleet, deviceId: 'z', expiresAt: at + 60, contentSha256: null, issued: false })
      expect(await store.secret(sha256('wrong'))).toBeNull()
      const conflict = { kind: 'conflict', on: 'secret' }
      expect(await store.recordIntent(await intentFor(store, 'a', { secret: hash }))).toEqual(conflict)
      expect(await store.recordIntent(await intentFor(store, 'z', { secret: hash, at: at + 60 }))).toEqual(conflict)
      await store.recordIntent(await intentFor(store, 'z', { secret: hash }))
      await reopen()
      // The attempt died: the same content may go on, another may not.
      expect(await store.recordIntent(await intentFor(store, 'z', { secret: hash, contentSha256: sha256('thief') }))).toEqual(
        conflict,
      )
      await issue(store, 'z', { secret: hash })
      await reopen()
      expect(await store.recordIntent(await intentFor(store, 'z', { secret: hash, epoch: 1 }))).toEqual(conflict)
      expect((await store.secret(hash))?.issued).toBe(true)
    })

    it('mints no secret for a known device and a group that it is not in', async () => {
      const secret = (groups: string[]) =>
        store.mintSecret({
          ...{ hash: sha256(groups.join()), fleet, deviceId: 'a', groups, expiresAt: at + 60, at },
          audit: auditEntry('secret_minted', 'a'),
        })
      expect(await secret(['batch=1', 'site=berlin'])).toEqual({ kind: 'not_in_group', group: 'site=berlin' })
      expect(await store.secret(sha256('batch=1,site=berlin'))).toBeNull()
      expect((await store.groups(fleet)).map(g => g.name)).toEqual(['batch=1'])
      expect(await secret(['batch=1'])).toEqual({ kind: 'minted' })
      expect(await secret([])).toEqual({ kind: 'minted' })
    })

    it('lets no device join a group that its living certificates lack, and counts those that did under a wrong clock', async () => {
      const join = (serial: string, groups: string[], when = at) =>
        store.importManifest(fleet, [manifestEntry(serial, groups)], { ...auditEntry('manifest_imported'), at: when })
      const uncovered = async (now = at) => (await store.draftRevocation(fleet, 'recall', 64, now))?.uncovered
      const { notAfter } = await issue(store, 'a')
      const open = await intentFor(store, 'b')
      await store.recordIntent(open)
      for (const id of ['a', 'b']) {
        const { updated, refused } = await join(id, ['batch=1', 'recall'])
        expect([updated, refused.map(r => r.serial), /until .* recall/.test(refused[0]?.reason)], id).toEqual([0, [id], true])
      }
      // A refused row leaves no group without devices behind.
      expect(await uncovered()).toBeUndefined()
      expect(await join('c', ['recall'])).toMatchObject({ updated: 1 })
      expect(await uncovered()).toBe(0)
      expect(await join('a', ['recall'], notAfter + 1)).toMatchObject({ updated: 1 })
      await store.acceptTime(auditEntry('clock_accepted'))
      await reopen()
      expect(await uncovered()).toBe(1)
      expect(await uncovered(notAfter + 1)).toBe(0)
      // What was made since names the group.
      await issue(store, 'a', { contentSha256: sha256('new key') })
      expect(await uncovered()).toBe(1)
      // Another rule takes it: this one need not.
      const { record } = await revoke(store, 'batch=1')
      expect(await store.recordRevocation(record)).toBe('recorded')
      expect(await uncovered()).toBe(0)
      expect(await join('b', ['late'])).toMatchObject({ refused: [] })
    })

    it('a row that would put a device into a ninth group is refused, and leaves no group without devices behind', async () => {
      const join = (groups: string[]) => store.importManifest(fleet, [manifestEntry('a', groups)], auditEntry('manifest_imported'))
      const eight = Array.from({ length: 8 }, (_, i) => `batch=${i + 1}`)
      expect(await join(eight)).toMatchObject({ updated: 1, refused: [] })
      expect(await join([...eight.slice(1), 'batch=1'])).toMatchObject({ unchanged: 1, refused: [] })
      expect((await join(['batch=1', 'ninth'])).refused).toHaveLength(1)
      expect((await store.groups(fleet)).map(({ name }) => name).sort()).toEqual(eight)
    })

    it('a row whose groups do not all have room in the fleet is refused, and makes none of them', async () => {
      const join = (entries: ManifestEntry[]) => store.importManifest(fleet, entries, auditEntry('manifest_imported'))
      // The highest number but one, as after a restore.
      const audit = auditEntry('store_restored')
      await store.raiseNumbers({ fleets: [{ fleet, idx: 1, gid: groupsPerFleetMax - 1 }], crls: [], audit })
      const before = await store.groups(fleet)
      const { updated, refused } = await join([manifestEntry('a', ['last', 'one too many']), manifestEntry('b', ['batch=1'])])
      expect([updated, refused.map(r => r.serial), /more than 65536 groups/.test(refused[0]?.reason)]).toEqual([0, ['a'], true])
      expect(await store.groups(fleet)).toEqual(before)
      // The room that is left is for who needs no more.
      expect(await join([manifestEntry('a', ['last', 'batch=1', 'last'])])).toMatchObject({ updated: 1, refused: [] })
      expect((await join([manifestEntry('n', ['another'])])).refused).toHaveLength(1)
      expect((await store.groups(fleet)).slice(before.length)).toMatchObject([{ gid: groupsPerFleetMax, name: 'last', devices: 1 }])
    })

    it('imports a manifest again without effect, adds groups, and refuses a changed or borrowed birth key by row', async () => {
      const again = await store.importManifest(
        fleet,
        [
          manifestEntry('a'),
          manifestEntry('b', ['batch=1', 'model=x']),
          { ...manifestEntry('c'), spkiSha256: manifestEntry('q').spkiSha256 },
          { ...manifestEntry('d'), spkiSha256: manifestEntry('a').spkiSha256 },
          manifestEntry('e', ['1', '2', '3', '4', '5', '6', '7', '8', '9']),
          manifestEntry('f'),
        ],
        auditEntry('manifest_imported'),
      )
      expect(again).toMatchObject({ added: 1, updated: 1, unchanged: 1 })
      expect(again.refused.map(r => r.serial)).toEqual(['c', 'd', 'e'])
      expect((await deviceOf(store, 'b')).gids).toEqual([1, 2])
      const counts = (await store.groups(fleet)).slice(0, 2).map(g => ({ ...g }))
      expect(counts).toEqual([
        { gid: 1, name: 'batch=1', devices: 4, bound: null },
        { gid: 2, name: 'model=x', devices: 1, bound: null },
      ])
      await expect(
        store.importManifest(fleet, new Array(5001).fill(manifestEntry('a')), auditEntry('manifest_imported')),
      ).rejects.toMatchObject({
        code: 'manifest_invalid',
      })
    })

    it('admits an unknown device once and pins its birth key', async () => {
      const admit = (id: string, key: string) =>
        store.admitDevice({
          fleet,
          id,
          birthSpkiSha256: sha256(key),
          groups: ['jit'],
          at,
          audit: auditEntry('device_admitted', id),
        })
      expect(await admit('n', 'key n')).toMatchObject({ id: 'n', gids: [2], version: 0 })
      expect(await admit('n', 'key n')).toMatchObject({ id: 'n' })
      expect(await admit('n', 'another key')).toBeNull()
      expect(await admit('m', 'key n')).toBeNull()
      expect((await store.audit(0, 100)).filter(r => r.kind === 'device_admitted')).toHaveLength(1)
    })

    it('lists devices by group and state, page by page', async () => {
      await issue(store, 'b')
      await store.importManifest(fleet, [manifestEntry('d', ['batch=2'])], auditEntry('manifest_imported'))
      const ids = async (q: object) => (await store.devices({ fleet, limit: 10, ...q })).map(r => r.id)
      expect(await ids({})).toEqual(['a', 'b', 'c', 'd'])
      expect(await ids({ group: 'batch=1' })).toEqual(['a', 'b', 'c'])
      expect(await ids({ group: 'nobody' })).toEqual([])
      expect(await ids({ state: 'enrolled' })).toEqual(['b'])
      expect(await ids({ group: 'batch=1', state: 'known', limit: 1 })).toEqual(['a'])
      expect(await ids({ after: 'b' })).toEqual(['c', 'd'])
      const { record } = await revoke(store, 'batch=2')
      await store.recordRevocation(record)
      expect(await ids({ state: 'revoked' })).toEqual(['d'])
      expect(await store.device(fleet, 'b')).toMatchObject({
        state: 'enrolled',
        groups: ['batch=1'],
        certificate: { idx: 1 },
        seenAt: at,
      })
      expect(await store.device(fleet, 'nobody')).toBeNull()
    })

    it('closes a group with its notice in one step: nothing of it is issued below or beyond the bound afterwards', async () => {
      await issue(store, 'a')
      const reserved = await intentFor(store, 'b')
      const { draft, record } = await revoke(store, 'batch=1')
      expect(draft).toMatchObject({ gid: 1, devices: 3, seq: 1, previousSha256: null, closed: null, rules: [] })
      expect(await store.recordRevocation(record)).toBe('recorded')
      expect(await store.recordRevocation(record)).toBe('conflict')
      expect(await store.recordIntent(reserved)).toEqual({ kind: 'conflict', on: 'group' })
      await reopen()
      expect(await store.isClosed(fleet, [1])).toBe(true)
      expect(await store.isClosed(fleet, [2])).toBe(false)
      expect((await deviceOf(store, 'b')).closedGids).toEqual([1])
      expect(await store.rules(fleet)).toEqual([{ kind: 'group', gid: 1, bound: record.bound, reason: 1 }])
      expect((await store.draftRevocation(fleet, 'batch=1', 64, at))?.closed).toMatchObject({
        bound: record.bound,
        notice: { seq: 1 },
      })
      expect(await store.draftRevocation(fleet, 'nobody', 64, at)).toBeNull()
    })

    it('takes no intent whose idx is not above that of the device’s last certificate', async () => {
      const low = await store.reserveIdx(fleet)
      const { idx } = await issue(store, 'a')
      expect(idx).toBeGreaterThan(low)
      const late = await intentFor(store, 'a', { idx: low, contentSha256: sha256('another') })
      expect(await store.recordIntent(late)).toEqual({ kind: 'conflict', on: 'idx' })
      expect(await store.recordIntent({ ...late, idx: await store.reserveIdx(fleet) })).toEqual({ kind: 'recorded' })
    })

    it('does not close a group at a bound that a certificate has passed meanwhile', async () => {
      const { record } = await revoke(store, 'batch=1')
      await issue(store, 'a')
      await issue(store, 'b')
      expect(await store.recordRevocation(record)).toBe('conflict')
      const again = await revoke(store, 'batch=1', 100)
      expect(await store.recordRevocation(again.record)).toBe('recorded')
      // Who starts anew knows no idx below a bound, even one ahead of what was given out.
      await reopen()
      expect(await store.reserveIdx(fleet)).toBeGreaterThanOrEqual(again.record.bound)
    })

    it('spends no idx on a revocation: what lies below its bound stays good for who is in no closed group', async () => {
      await store.importManifest(fleet, [manifestEntry('d', ['batch=2'])], auditEntry('manifest_imported'))
      const idx = await store.reserveIdx(fleet)
      const { record } = await revoke(store, 'batch=1', 100)
      expect(await store.recordRevocation(record)).toBe('recorded')
      expect(record.bound).toBeGreaterThan(idx + 1)
      expect((await issue(store, 'd')).idx).toBe(idx + 1)
    })

    it('chains notices and keeps them pending, in order, until they are delivered', async () => {
      await store.importManifest(fleet, [manifestEntry('d', ['batch=2'])], auditEntry('manifest_imported'))
      const first = await revoke(store, 'batch=1')
      const rival = await revoke(store, 'batch=2')
      await store.recordRevocation(first.record)
      // Drafted beside the first: its seq is taken and its previous hash is wrong.
      expect(await store.recordRevocation(rival.record)).toBe('conflict')
      const second = await revoke(store, 'batch=2')
      expect(second.draft.seq).toBe(2)
      expect(Buffer.from(second.draft.previousSha256!)).toEqual(Buffer.from(first.record.noticeSha256))
      expect(second.draft.rules).toHaveLength(1)
      await store.recordRevocation(second.record)
      await reopen()
      expect((await store.outboxPending(fleet, 10)).map(n => n.seq)).toEqual([1, 2])
      await store.outboxDelivered(fleet, 1, at)
      await store.outboxDelivered(fleet, 1, at)
      await reopen()
      expect((await store.outboxPending(fleet, 10)).map(n => n.seq)).toEqual([2])
      expect((await store.notice(fleet, 1))?.seq).toBe(1)
      expect(await store.notice(fleet, 3)).toBeNull()
      expect((await store.rules(fleet)).map(r => r.gid)).toEqual([2, 1])
    })

    it('chains its audit records, which a change breaks', async () => {
      for (let i = 0; i < 5; i++)
        await store.appendAudit({ ...auditEntry('enrollment_refused', 'a'), code: 'csr_signature', detail: 'x'.repeat(2000) })
      const records = await store.audit(0, 100)
      expect(records.map(r => r.n)).toEqual([1, 2, 3, 4, 5, 6])
      expect(records[3].detail.length).toBeLessThanOrEqual(512)
      expect(firstBroken(chainStart, records)).toBe(0)
      records[2].code = 'forged'
      expect(firstBroken(chainStart, records)).toBe(3)
      expect((await store.audit(4, 1)).map(r => r.n)).toEqual([5])
    })

    it('[F39] remembers the latest time it was given until an operator puts it back', async () => {
      await issue(store, 'a')
      await reopen()
      await store.appendAudit({ ...auditEntry('failure'), at: at - 5000 })
      expect(await store.lastTime()).toBe(at)
      // A stranger who knocks while the clock is wrong is recorded, and moves nothing.
      await store.appendAudit({ ...auditEntry('enrollment_refused'), at: at + 365 * 86_400 })
      await reopen()
      expect(await store.lastTime()).toBe(at)
      await store.acceptTime({ ...auditEntry('clock_accepted'), at: at - 5000 })
      expect(await store.lastTime()).toBe(at - 5000)
    })

    it('answers each of many concurrent writes for itself', async () => {
      const ids = Array.from({ length: 300 }, (_, i) => `device-${i}`)
      await store.importManifest(
        fleet,
        ids.map(id => manifestEntry(id)),
        auditEntry('manifest_imported'),
      )
      const intents = await Promise.all(
        ids.map((id, i) => intentFor(store, id, i % 10 === 9 ? { serial: new Uint8Array(16) } : {})),
      )
      const results = await Promise.all(intents.map(i => store.recordIntent(i)))
      expect(results.filter(r => r.kind === 'conflict')).toHaveLength(29)
      const issued = intents.filter((_, i) => results[i].kind === 'recorded')
      await Promise.all(issued.map(i => store.recordCertificate(issuedOf(i, ''))))
      expect(new Set(issued.map(i => i.idx)).size).toBe(271)
    })

    it('refuses what comes after close, and settles what came before', async () => {
      const accepted = store.appendAudit(auditEntry('failure'))
      await store.close()
      await accepted
      await expect(store.appendAudit(auditEntry('failure'))).rejects.toMatchObject({ code: 'store_closed' })
      await expect(store.audit(0, 1)).rejects.toMatchObject({ code: 'store_closed' })
      store = await d.open()
    })
  })
}
