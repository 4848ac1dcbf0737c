// What every store driver must do about certificates that are revoked otherwise than by group (store/revoked-lists.ts).

import { createHash } from 'node:crypto'
import { blocksOf, type IssuanceIntent, type RevokedSet, type SetRecord, type Store } from '@birthmark/est-server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { auditEntry, type Driver, manifestEntry } from './contract.ts'

const fleet = 'meters'
const at = 1_800_000_000
const sha256 = (text: string) => new Uint8Array(createHash('sha256').update(text).digest())
const issuer = sha256('issuer').subarray(0, 20)

export function revokedListsContract(name: string, driverOf: () => Driver): void {
  describe(`${name}: certificates revoked by themselves`, () => {
    let driver: Driver
    let store: Store
    let made = 0
    beforeEach(async () => {
      driver = driverOf()
      store = await driver.open()
      const entries = ['a', 'b', 'c'].map(id => manifestEntry(id))
      await store.importManifest(fleet, entries, { ...auditEntry('manifest_imported'), at })
    })
    afterEach(async () => {
      expect(await store.check()).toEqual([])
      await store.close()
      await driver.remove()
    })

    const facts = (id: string) => store.enrollmentFacts(fleet, id, sha256(`key ${id}`), sha256('content'))

    async function intentFor(id: string, change: Partial<IssuanceIntent> = {}): Promise<IssuanceIntent> {
      const { device } = await facts(id)
      made++
      return {
        ...{ issuer, serial: sha256(`serial ${made}`).subarray(0, 16), fleet, device: device!.key, deviceVersion: device!.version },
        ...{ idx: await store.reserveIdx(fleet), gids: device!.gids, spkiSha256: sha256(`key ${id} ${made}`) },
        ...{ contentSha256: sha256(`content ${made}`), epoch: 0, notBefore: at, notAfter: at + 86_400, secret: null },
        ...{ requestId: 'r', tbs: sha256('tbs'), at, ...change },
      }
    }

    async function issue(id: string, change: Partial<IssuanceIntent> = {}): Promise<number> {
      const intent = await intentFor(id, change)
      expect(await store.recordIntent(intent)).toEqual({ kind: 'recorded' })
      const audit = { ...auditEntry('certificate_issued', id), at }
      const { serial } = intent
      await store.recordCertificate({
        ...{ issuer: intent.issuer, serial, der: sha256('der'), idxFloor: 0, supersedes: 0, supersedesSince: 0, at, audit },
      })
      return intent.idx
    }

    async function recordOf(set: Partial<RevokedSet>, more: Partial<SetRecord> = {}): Promise<SetRecord> {
      const { seq, previousSha256, issued } = await store.draftSet(fleet, 0)
      return {
        ...{
          fleet,
          set: { kind: 'list', start: 0, length: 0, issuer: null, blocks: [], ...set },
          reason: 1,
          devices: [],
          issued,
          at,
        },
        notices: [{ seq, previousSha256, notice: sha256(`notice ${seq}`), noticeSha256: sha256(`signed ${seq}`) }],
        audit: { ...auditEntry('certificates_revoked'), at },
        ...more,
      }
    }

    const revoke = async (set: Partial<RevokedSet>, more: Partial<SetRecord> = {}) => store.recordSet(await recordOf(set, more))
    const recorded = { kind: 'recorded' }
    const stateOf = async (id: string) => (await store.device(fleet, id))?.state
    const reopen = async () => {
      await store.close()
      store = await driver.open()
    }

    it('a list closes the devices that it names: facts, intents and listings say so, also after a restart', async () => {
      const idx = await issue('a')
      await issue('b')
      const late = await intentFor('a')
      const [device] = await store.revocableDevices(fleet, ['a', 'nobody'], at)
      expect(device).toMatchObject({ id: 'a', closed: false, indices: [idx] })
      const devices = blocksOf([device.key])
      expect(await revoke({ blocks: blocksOf([idx]) }, { devices })).toEqual(recorded)
      expect(await store.recordIntent(late)).toEqual({ kind: 'conflict', on: 'device' })
      await reopen()
      expect((await facts('a')).device).toMatchObject({ revoked: true, closedGids: [] })
      expect((await facts('b')).device?.revoked).toBe(false)
      expect([await stateOf('a'), await stateOf('b'), await stateOf('c')]).toEqual(['revoked', 'enrolled', 'known'])
      expect((await store.devices({ fleet, state: 'revoked', limit: 9 })).map(({ id }) => id)).toEqual(['a'])
      expect(await store.recordIntent(await intentFor('a'))).toEqual({ kind: 'conflict', on: 'device' })
      expect(await store.standingSets(fleet)).toEqual({ floor: 0, issuers: [], blocks: blocksOf([idx]).map(octets) })
      expect(await store.datedSets(fleet, 0)).toMatchObject([{ kind: 'list', seq: 1, at, reason: 1, blocks: [{ block: 0 }] }])
      expect(await store.datedSets(fleet, 1)).toEqual([])
      expect((await store.outboxPending(fleet, 9)).map(({ seq }) => seq)).toEqual([1])
      expect((await store.revocableDevices(fleet, ['a'], at))[0].closed).toBe(true)
    })

    it('a device without a certificate is closed by its key alone; admitted again, it is as before', async () => {
      const [{ key }] = await store.revocableDevices(fleet, ['c'], at)
      expect(await revoke({}, { devices: blocksOf([key]) })).toEqual(recorded)
      expect(await store.recordIntent(await intentFor('c'))).toEqual({ kind: 'conflict', on: 'device' })
      const audit = { ...auditEntry('device_readmitted', 'c'), at }
      expect(await store.readmitDevice(fleet, 'c', audit)).toBe(true)
      expect(await store.readmitDevice(fleet, 'c', audit)).toBe(false)
      expect(await store.readmitDevice(fleet, 'nobody', audit)).toBe(false)
      expect(await stateOf('c')).toBe('known')
      await issue('c')
    })

    it('one that is admitted again has all its certificates superseded, gets a higher idx, and what was revoked stays so', async () => {
      const idx = await issue('a')
      const [{ key }] = await store.revocableDevices(fleet, ['a'], at)
      await revoke({ blocks: blocksOf([idx]) }, { devices: blocksOf([key]) })
      expect(await store.readmitDevice(fleet, 'a', { ...auditEntry('device_readmitted', 'a'), at })).toBe(true)
      await reopen()
      expect((await facts('a')).device).toMatchObject({ revoked: false, idxFloor: idx + 1 })
      expect(await issue('a')).toBeGreaterThan(idx)
      expect(await stateOf('a')).toBe('enrolled')
      expect((await store.standingSets(fleet)).blocks).toEqual(blocksOf([idx]).map(octets))
    })

    it('what a named device was given since the draft comes back, and nothing is written', async () => {
      const idx = await issue('a')
      const [{ key }] = await store.revocableDevices(fleet, ['a'], at)
      const record = await recordOf({ blocks: blocksOf([idx]) }, { devices: blocksOf([key]) })
      const later = await issue('a')
      await issue('b')
      const outcome = await store.recordSet(record)
      expect(outcome).toMatchObject({ kind: 'late', indices: [later] })
      expect(await store.newestNotice(fleet)).toBeNull()
      if (outcome.kind !== 'late') throw new Error()
      const added = { ...record, issued: outcome.issued, set: { ...record.set, blocks: blocksOf([idx, later]) } }
      expect(await store.recordSet(added)).toEqual(recorded)
    })

    it('a range and a floor cover what they name and no idx that is given out later', async () => {
      const [first, second, third] = [await issue('a'), await issue('b'), await issue('c')]
      expect(await revoke({ kind: 'range', start: first, length: 2 })).toEqual(recorded)
      expect([await stateOf('a'), await stateOf('b'), await stateOf('c')]).toEqual(['revoked', 'revoked', 'enrolled'])
      expect(await revoke({ kind: 'floor', start: third + 10 })).toEqual(recorded)
      expect(await stateOf('c')).toBe('revoked')
      expect(await store.reserveIdx(fleet)).toBeGreaterThanOrEqual(third + 10)
      // One that another process drew before.
      await store.importManifest(fleet, [manifestEntry('d')], { ...auditEntry('manifest_imported'), at })
      expect(await store.recordIntent(await intentFor('d', { idx: third + 5 }))).toEqual({ kind: 'conflict', on: 'idx' })
      const sets = await store.standingSets(fleet)
      expect(sets).toEqual({ floor: third + 10, issuers: [], blocks: blocksOf([first, second]).map(octets) })
      expect((await store.datedSets(fleet, 0)).map(({ kind, start, length, seq }) => [kind, start, length, seq])).toEqual([
        ['range', first, 2, 1],
        ['floor', third + 10, 0, 2],
      ])
    })

    it('an issuer signs nothing any more, and all that it signed is revoked', async () => {
      const other = sha256('another').subarray(0, 20)
      await issue('a')
      await issue('b', { issuer: other })
      expect(await revoke({ kind: 'issuer', issuer: other })).toEqual(recorded)
      expect([await stateOf('a'), await stateOf('b')]).toEqual(['enrolled', 'revoked'])
      expect(await store.recordIntent(await intentFor('c', { issuer: other }))).toEqual({ kind: 'conflict', on: 'issuer' })
      expect((await store.standingSets(fleet)).issuers.map(octetsOf)).toEqual([octetsOf(other)])
      await issue('c')
    })

    it('several notices are one write, and one that does not follow writes nothing', async () => {
      const one = await recordOf({ blocks: blocksOf([1, 5000]) })
      const [{ noticeSha256 }] = one.notices
      const second = { seq: 2, previousSha256: noticeSha256, notice: sha256('two'), noticeSha256: sha256('signed two') }
      expect(await store.recordSet({ ...one, notices: [...one.notices, second] })).toEqual(recorded)
      expect(await store.recordSet(one)).toEqual({ kind: 'conflict' })
      expect((await store.newestNotice(fleet))?.seq).toBe(2)
      expect((await store.datedSets(fleet, 0)).map(({ seq }) => seq)).toEqual([2])
      expect(await store.revocations(fleet)).toBe(2)
      expect((await store.audit(0, 99)).filter(({ kind }) => kind === 'certificates_revoked')).toHaveLength(1)
    })

    it('says which indices a group or an issuer ever had, and which serials stand where', async () => {
      const [a, b] = [await issue('a'), await issue('b')]
      expect(await store.indicesOf({ fleet, gids: [7, 1], from: 0, to: 4096 })).toEqual([a, b])
      expect(await store.indicesOf({ fleet, gids: [2], from: 0, to: 4096 })).toEqual([])
      expect(await store.indicesOf({ fleet, issuer, from: b, to: 4096 })).toEqual([b])
      expect(await store.placedSerials({ fleet, issuer, from: 0, to: 4096, since: at })).toMatchObject([
        { idx: a, gids: [1] },
        { idx: b, gids: [1] },
      ])
      const other = new Uint8Array(20).fill(9)
      const c = await issue('c', { issuer: other })
      const placed = await store.placedIssuers({ fleet, from: 0, to: 4096, since: at })
      expect(placed.map(one => [one.idx, octetsOf(one.issuer)])).toEqual(
        [
          [a, issuer],
          [b, issuer],
          [c, other],
        ].map(([idx, by]) => [idx, octetsOf(by as Uint8Array)]),
      )
      expect(await store.placedIssuers({ fleet, from: b, to: c, since: at })).toHaveLength(1)
      expect(await store.placedIssuers({ fleet, from: 0, to: 4096, since: Number.MAX_SAFE_INTEGER })).toEqual([])
      expect(await store.deviceCount(fleet)).toBe(3)
    })
  })
}

const octetsOf = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
// Drivers answer in octets of their own classes.
const octets = ({ block, bits }: { block: number; bits: Uint8Array }) => ({
  block,
  bits: expect.toSatisfy((b: Uint8Array) => octetsOf(b) === octetsOf(bits)),
})
