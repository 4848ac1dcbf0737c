// Between the store and its writer thread: the jobs and answers of the hot path as flat lists, their bytes as Latin-1 text. The platform's own
// copy of an object costs three times as much, most of it for the five or six ArrayBuffers of each, which the collector then has to find again
// on both sides. Whatever is not named here is copied as it is.

import type { FactsQuery } from './sqlite-issuance.ts'
import type { JobAnswer, WriteJob, WriterMessage } from './sqlite-writer.ts'
import type { AuditEntry, CertificateRecord, DeviceRecord, EnrollmentFacts, IssuanceIntent, IssuedRecord } from './store.ts'

const textOf = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')

// Plain arrays, as every other driver gives: a Buffer is not equal to one.
function plainBytes(text: string): Uint8Array {
  const { buffer, byteOffset, byteLength } = Buffer.from(text, 'latin1')
  return new Uint8Array(buffer, byteOffset, byteLength)
}

/** For the writer alone, who hands them to SQLite. */
const boundBytes = (text: string): Uint8Array => Buffer.from(text, 'latin1')

/** Every field of a record, those too that it may lack: one that is forgotten would be lost between the threads without a word, and does not compile. */
type Whole<T> = { [F in keyof T]-?: T[F] | (undefined extends T[F] ? undefined : never) }

// Written out field by field: a loop over names makes objects whose fields the engine has to look up one by one.

const packQuery = (q: FactsQuery) =>
  ['enrollmentFacts', q.fleet, q.deviceId, textOf(q.spkiSha256), textOf(q.contentSha256)] as const

const unpackQuery = (list: ReturnType<typeof packQuery>): Whole<FactsQuery> => ({
  fleet: list[1],
  deviceId: list[2],
  spkiSha256: boundBytes(list[3]),
  contentSha256: boundBytes(list[4]),
})

const packIntent = (i: IssuanceIntent) =>
  [
    'recordIntent',
    textOf(i.issuer),
    textOf(i.serial),
    i.fleet,
    i.device,
    i.deviceVersion,
    i.hold,
    i.idx,
    i.gids,
    textOf(i.spkiSha256),
    textOf(i.contentSha256),
    i.epoch,
    i.notBefore,
    i.notAfter,
    i.secret && textOf(i.secret),
    i.requestId,
    textOf(i.tbs),
    i.at,
    i.transaction,
    i.consent,
    i.profiles && textOf(i.profiles),
  ] as const

const unpackIntent = (list: ReturnType<typeof packIntent>): Whole<IssuanceIntent> => ({
  issuer: boundBytes(list[1]),
  serial: boundBytes(list[2]),
  fleet: list[3],
  device: list[4],
  deviceVersion: list[5],
  hold: list[6],
  idx: list[7],
  gids: list[8],
  spkiSha256: boundBytes(list[9]),
  contentSha256: boundBytes(list[10]),
  epoch: list[11],
  notBefore: list[12],
  notAfter: list[13],
  secret: list[14] === null ? null : boundBytes(list[14]),
  requestId: list[15],
  tbs: boundBytes(list[16]),
  at: list[17],
  transaction: list[18],
  consent: list[19],
  profiles: list[20] === undefined ? undefined : boundBytes(list[20]),
})

const packIssued = (i: IssuedRecord) =>
  [
    'recordCertificate',
    textOf(i.issuer),
    textOf(i.serial),
    textOf(i.der),
    i.idxFloor,
    i.supersedes,
    i.supersedesSince,
    i.at,
    i.audit.at,
    i.audit.kind,
    i.audit.requestId,
    i.audit.fleet,
    i.audit.device,
    i.audit.by,
    i.audit.code,
    i.audit.detail,
  ] as const

const unpackIssued = (list: ReturnType<typeof packIssued>): Whole<IssuedRecord> => ({
  issuer: boundBytes(list[1]),
  serial: boundBytes(list[2]),
  der: boundBytes(list[3]),
  idxFloor: list[4],
  supersedes: list[5],
  supersedesSince: list[6],
  at: list[7],
  audit: {
    at: list[8],
    kind: list[9],
    requestId: list[10],
    fleet: list[11],
    device: list[12],
    by: list[13],
    code: list[14],
    detail: list[15],
  } satisfies Whole<AuditEntry>,
})

const packDevice = (d: DeviceRecord) =>
  [
    d.key,
    d.fleet,
    d.id,
    d.birthSpkiSha256 && textOf(d.birthSpkiSha256),
    d.keyOrigin,
    d.gids,
    d.closedGids,
    d.version,
    d.idxFloor,
    d.supersedes,
    d.supersedesSince,
    d.suspectedAt,
    d.knownAt,
    d.seenAt,
    d.hold,
    d.revoked,
  ] as const

const unpackDevice = (list: ReturnType<typeof packDevice>): Whole<DeviceRecord> => ({
  key: list[0],
  fleet: list[1],
  id: list[2],
  birthSpkiSha256: list[3] === null ? null : plainBytes(list[3]),
  keyOrigin: list[4],
  gids: list[5],
  closedGids: list[6],
  version: list[7],
  idxFloor: list[8],
  supersedes: list[9],
  supersedesSince: list[10],
  suspectedAt: list[11],
  knownAt: list[12],
  seenAt: list[13],
  hold: list[14],
  revoked: list[15],
})

const packCertificate = (c: CertificateRecord) =>
  [
    textOf(c.issuer),
    textOf(c.serial),
    c.fleet,
    c.deviceId,
    c.idx,
    c.gids,
    textOf(c.spkiSha256),
    textOf(c.contentSha256),
    c.epoch,
    c.notBefore,
    c.notAfter,
    c.secret && textOf(c.secret),
    textOf(c.der),
  ] as const

const unpackCertificate = (list: ReturnType<typeof packCertificate>): Whole<CertificateRecord> => ({
  issuer: plainBytes(list[0]),
  serial: plainBytes(list[1]),
  fleet: list[2],
  deviceId: list[3],
  idx: list[4],
  gids: list[5],
  spkiSha256: plainBytes(list[6]),
  contentSha256: plainBytes(list[7]),
  epoch: list[8],
  notBefore: list[9],
  notAfter: list[10],
  secret: list[11] === null ? null : plainBytes(list[11]),
  der: plainBytes(list[12]),
})

type PackedJob = ReturnType<typeof packQuery> | ReturnType<typeof packIntent> | ReturnType<typeof packIssued>

export function packJob(job: WriteJob): WriteJob | PackedJob {
  const { name, argument } = job
  if (name === 'enrollmentFacts') return packQuery(argument as FactsQuery)
  if (name === 'recordIntent') return packIntent(argument as IssuanceIntent)
  return name === 'recordCertificate' ? packIssued(argument as IssuedRecord) : job
}

export function unpackJob(packed: WriteJob | PackedJob): WriteJob {
  if (!isPacked(packed)) return packed
  if (packed[0] === 'enrollmentFacts') return { name: packed[0], argument: unpackQuery(packed) }
  if (packed[0] === 'recordIntent') return { name: packed[0], argument: unpackIntent(packed) as IssuanceIntent }
  return { name: packed[0], argument: unpackIssued(packed) }
}

const isPacked = (packed: WriteJob | PackedJob): packed is PackedJob => Array.isArray(packed)

// What `same` is. For most devices that come back it is the last certificate.
const SAME_NONE = 0
const SAME_LATEST = 1
const SAME_OTHER = 2

function packFacts({ device, latest, same, keyHolder, birthKeyHolder, lastTime }: EnrollmentFacts) {
  const which = same === null ? SAME_NONE : same === latest ? SAME_LATEST : SAME_OTHER
  const other = which === SAME_OTHER ? packCertificate(same!) : null
  return [
    keyHolder,
    birthKeyHolder,
    lastTime,
    device && packDevice(device),
    latest && packCertificate(latest),
    which,
    other,
  ] as const
}

function unpackFacts([keyHolder, birthKeyHolder, lastTime, device, certificate, which, other]: PackedFacts): EnrollmentFacts {
  const latest = certificate && unpackCertificate(certificate)
  const same = which === SAME_LATEST ? latest : other && unpackCertificate(other)
  return { device: device && unpackDevice(device), latest, same, keyHolder, birthKeyHolder, lastTime }
}

type PackedFacts = ReturnType<typeof packFacts>

// What nearly every write is answered with.
const INTENT_RECORDED = 1
const CERTIFICATE_RECORDED = 2

function packAnswer(answer: JobAnswer, { name }: WriteJob): JobAnswer | PackedFacts | number {
  if ('failed' in answer) return answer
  if (name === 'enrollmentFacts') return packFacts(answer.value as EnrollmentFacts)
  if (name === 'recordIntent' && (answer.value as { kind: string }).kind === 'recorded') return INTENT_RECORDED
  return name === 'recordCertificate' && answer.value === 'recorded' ? CERTIFICATE_RECORDED : answer
}

function unpackAnswer(packed: JobAnswer | PackedFacts | number): JobAnswer {
  if (packed === INTENT_RECORDED) return { value: { kind: 'recorded' } }
  if (packed === CERTIFICATE_RECORDED) return { value: 'recorded' }
  return Array.isArray(packed) ? { value: unpackFacts(packed as unknown as PackedFacts) } : (packed as JobAnswer)
}

/** `jobs`: what was asked. Its members may be fewer than the answers of a message that does not answer them. */
export function packMessage(message: WriterMessage, jobs: readonly WriteJob[]): unknown {
  if (message.kind !== 'answers') return message
  return { kind: 'answers', answers: message.answers.map((answer, i) => packAnswer(answer, jobs[i])) }
}

export function unpackMessage(packed: unknown): WriterMessage {
  const message = packed as WriterMessage
  return message.kind === 'answers' ? { kind: 'answers', answers: message.answers.map(unpackAnswer) } : message
}
