// Every field of a record comes out where it went in: no two of a record have one value here.

import { describe, expect, it } from 'vitest'
import { packJob, packMessage, unpackJob, unpackMessage } from './sqlite-message.ts'
import type { JobAnswer, WriteJob } from './sqlite-writer.ts'
import type { AuditEntry, CertificateRecord, DeviceRecord, EnrollmentFacts, IssuanceIntent, IssuedRecord } from './store.ts'

let last = 0
const number = () => ++last
const bytes = () => Uint8Array.of(number(), 0, 255)
const text = () => `é${number()}`

const intent = (): IssuanceIntent => ({
  ...{
    issuer: bytes(),
    serial: bytes(),
    fleet: text(),
    device: number(),
    deviceVersion: number(),
    idx: number(),
    gids: [number()],
  },
  ...{ spkiSha256: bytes(), contentSha256: bytes(), epoch: number(), notBefore: number(), notAfter: number(), secret: bytes() },
  ...{ requestId: text(), tbs: bytes(), at: number(), consent: number(), profiles: bytes(), hold: 'quarantined' },
  transaction: {
    ...{ fleet: text(), label: text(), id: text(), spkiSha256: bytes(), signerSpkiSha256: bytes(), csr: bytes(), at: number() },
    ...{ challenge: bytes(), signer: bytes() },
  },
})
const audit = (): AuditEntry => ({
  ...{ at: number(), kind: 'certificate_issued', requestId: text(), fleet: text(), device: text(), by: text(), code: text() },
  detail: text(),
})
const issued = (): IssuedRecord => ({
  ...{ issuer: bytes(), serial: bytes(), der: bytes(), idxFloor: number(), supersedes: number(), supersedesSince: number() },
  ...{ at: number(), audit: audit() },
})
const device = (): DeviceRecord => ({
  ...{
    key: number(),
    fleet: text(),
    id: text(),
    birthSpkiSha256: bytes(),
    keyOrigin: 'host',
    gids: [number()],
    closedGids: [number()],
  },
  ...{ version: number(), idxFloor: number(), supersedes: number(), supersedesSince: number(), suspectedAt: number() },
  ...{ knownAt: number(), seenAt: number(), hold: 'quarantined', revoked: true },
})
const certificate = (): CertificateRecord => ({
  ...{ issuer: bytes(), serial: bytes(), fleet: text(), deviceId: text(), idx: number(), gids: [number()], spkiSha256: bytes() },
  ...{ contentSha256: bytes(), epoch: number(), notBefore: number(), notAfter: number(), secret: bytes(), der: bytes() },
})
const beside = () => ({
  ...{ keyHolder: { deviceId: text(), fleet: text(), idx: number() }, birthKeyHolder: text(), lastTime: number() },
})

const there = (job: WriteJob): WriteJob => unpackJob(structuredClone(packJob(job)))
const back = (answers: JobAnswer[], jobs: WriteJob[]) =>
  unpackMessage(structuredClone(packMessage({ kind: 'answers', answers }, jobs)))
/** A Buffer is not equal to the plain array it is made of. */
const plain = (job: WriteJob): unknown =>
  JSON.parse(
    JSON.stringify(job, (_, value) => (value?.type === 'Buffer' ? value.data : value instanceof Uint8Array ? [...value] : value)),
  )

const query: WriteJob = {
  name: 'enrollmentFacts',
  argument: { fleet: text(), deviceId: text(), spkiSha256: bytes(), contentSha256: bytes() },
}

describe('what goes to the writer', () => {
  const { consent: _c, transaction: _t, profiles: _p, hold: _h, ...least } = intent()
  it.each<WriteJob>([
    query,
    { name: 'recordIntent', argument: intent() },
    { name: 'recordIntent', argument: { ...least, secret: null } },
    { name: 'recordCertificate', argument: issued() },
    { name: 'leaseIdx', argument: { fleet: text(), count: number() } },
  ])('arrives whole: $name', job => {
    expect(plain(there(job))).toEqual(plain(job))
  })
})

describe('what the writer answers', () => {
  const latest = certificate()
  it.each<[string, EnrollmentFacts]>([
    ['of nobody', { device: null, latest: null, same: null, keyHolder: null, birthKeyHolder: null, lastTime: number() }],
    ['of a device without a certificate', { ...beside(), device: device(), latest: null, same: null }],
    ['of another request', { ...beside(), device: device(), latest, same: null }],
    ['of the last request again', { ...beside(), device: device(), latest, same: latest }],
    ['of an earlier request again', { ...beside(), device: device(), latest, same: certificate() }],
  ])('arrives whole: facts %s', (_, value) => {
    expect(back([{ value }], [query])).toEqual({ kind: 'answers', answers: [{ value }] })
  })

  it('arrives whole: what became of writes', () => {
    const jobs: WriteJob[] = [
      { name: 'recordIntent', argument: intent() },
      { name: 'recordIntent', argument: intent() },
      { name: 'recordCertificate', argument: issued() },
      { name: 'recordCertificate', argument: issued() },
      { name: 'recordCertificate', argument: issued() },
    ]
    const answers: JobAnswer[] = [
      { value: { kind: 'recorded' } },
      { value: { kind: 'conflict', on: 'group' } },
      { value: 'recorded' },
      { value: 'conflict' },
      { failed: 'a reason' },
    ]
    expect(back(answers, jobs)).toEqual({ kind: 'answers', answers })
  })
})
