// fsck finds what was done to a store behind its back.

import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { createRevocationLists, fsck, issuerName } from '@birthmark/est-server'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { csrFor, issuedBy, type Kernel, kernel, nameOf, testKey } from '../../packages/est-server/src/testing/kernel.ts'

let k: Kernel
beforeEach(async () => {
  k = await kernel({ issuer: real => ({ ...real, statusUrl: 'http://status.acme.example' }) })
  for (const id of ['m-1', 'm-2', 'm-3'])
    issuedBy(await k.enroll((await k.device(id, ['batch=1'])).peer(), csrFor(testKey(), nameOf(id))))
})
afterEach(() => k.remove())

const judge = async (issuers = [k.ca.certificate], now = k.clock.at) => {
  const seen: number[] = []
  const checkNotice = async () => null
  const progress = ({ certificates }: { certificates: number }) => void seen.push(certificates)
  const report = await fsck({ store: k.store, fleets: ['meters'], issuers, checkNotice, now, progress })
  expect(seen.at(-1)).toBe(report.certificates)
  return { ...report, codes: report.findings.map(f => f.code) }
}
const behindItsBack = (sql: string) => {
  const db = new DatabaseSync(join(k.folder, 'store.db'))
  db.exec(sql)
  db.close()
}

it('calls a sound store sound, and counts what it proved', async () => {
  expect(await judge()).toMatchObject({ certificates: 3, voided: 0, broken: 0, findings: [] })
})

it.each([
  ['a record that says another index', 'UPDATE issuances SET idx = 900 WHERE idx = 2', ['certificate_differs']],
  [
    'a certificate put in place of another',
    'UPDATE issuances SET der = (SELECT der FROM issuances WHERE idx = 1) WHERE idx = 2',
    ['certificate_differs'],
  ],
  [
    'a certificate with a changed byte',
    `UPDATE issuances SET der = CAST(substr(der, 1, length(der) - 1) || x'00' AS BLOB) WHERE idx = 3`,
    ['certificate_signature'],
  ],
  ['no certificate', `UPDATE issuances SET der = x'3000' WHERE idx = 1`, ['certificate_malformed']],
  ['a certificate without its audit record', `UPDATE issuances SET state = 'void' WHERE idx = 3`, ['store', 'store']],
])('finds %s', async (_, sql, codes) => {
  behindItsBack(sql)
  expect((await judge()).codes).toEqual(codes)
})

it.each([
  ['signature', `UPDATE crls SET der = CAST(substr(der, 1, length(der) - 1) || x'00' AS BLOB)`, /does not verify under its issuer/],
  ['number', 'UPDATE crls SET number = 1, this_update = this_update - 9', /number, thisUpdate differ/],
  ['bytes', `UPDATE crls SET der = x'3000'`, /is no list/],
])('finds a revocation list with a changed %s', async (_, sql, said) => {
  const options = { store: k.store, issuers: [k.issuer], lifetimeSeconds: 86_400, folder: join(k.folder, 'crl'), clock: k.clock }
  const lists = createRevocationLists({ ...options, log: { info() {}, warn() {}, error() {} } })
  const ask = () => lists.shard(issuerName(k.issuer.keyId), 'meters', 0)
  expect((await ask()).kind).toBe('list')
  await k.revocation.revokeGroup({ group: 'batch=1', by: 'test' })
  expect((await ask()).kind).toBe('list')
  expect(await judge()).toMatchObject({ lists: 1, broken: 0 })
  behindItsBack(sql)
  // Reads of one turn see one moment.
  await new Promise(next => setImmediate(next))
  expect((await judge()).findings).toEqual([{ code: 'list_wrong', detail: expect.stringMatching(said) }])
  await lists.close()
})

it('says so where an issuer is not given, and leaves young intents alone', async () => {
  expect((await judge([])).codes).toEqual(['issuer_unknown', 'issuer_unknown', 'issuer_unknown'])
  behindItsBack(`UPDATE issuances SET state = 'intent' WHERE idx = 3`)
  expect((await judge()).codes).not.toContain('intent_open')
  expect((await judge([k.ca.certificate], k.clock.at + 3600)).codes).toContain('intent_open')
})
