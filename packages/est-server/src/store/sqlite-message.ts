// Between the store and its writer thread: the jobs and answers of the hot path as flat lists, their bytes as Latin-1 text. The platform's own
// copy of an object costs three times as much, most of it for the five or six ArrayBuffers of each, which the collector then has to find again
// on both sides. Whatever is not named here is copied as it is.

import type { FactsQuery } from './sqlite-issuance.ts'
import type { JobAnswer, WriteJob, WriterMessage } from './sqlite-writer.ts'
import type { AuditEntry, CertificateRecord, DeviceRecord, EnrollmentFacts, IssuanceIntent, IssuedRecord } from './store.ts'

type Packed = unknown[]

const textOf = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')

// Plain arrays, as every other driver gives: a Buffer is not equal to one.
function plainBytes(text: string): Uint8Array {
  const { buffer, byteOffset, byteLength } = Buffer.from(text, 'latin1')
  return new Uint8Array(buffer, byteOffset, byteLength)
}

/** For the writer alone, who hands them to SQLite. */
const boundBytes = (text: string): Uint8Array => Buffer.from(text, 'latin1')

/**
 * Every field of a record, in the order of the list, and whether it is bytes: a field that is missing here or called what it is not does not
 * compile, since it would be lost between the threads without a word.
 */
type Fields<T> = { readonly [F in keyof T]-?: NonNullable<T[F]> extends Uint8Array ? 'bytes' : 'plain' }

/** A record as `size` members of a list and back. */
function packing<T extends object>(all: Fields<T>) {
  const names = Object.keys(all) as (keyof T & string)[]
  const isBytes = names.map(name => all[name] === 'bytes')
  return {
    size: names.length,
    pack(value: T, list: Packed): void {
      for (let i = 0; i < names.length; i++) {
        const content: unknown = value[names[i]]
        list.push(isBytes[i] && content ? textOf(content as Uint8Array) : content)
      }
    },
    unpack(list: Packed, from: number, bytesOf: (text: string) => Uint8Array): T {
      const out: { [field in keyof T]?: unknown } = {}
      for (let i = 0; i < names.length; i++) {
        const content = list[from + i]
        if (content !== undefined) out[names[i]] = isBytes[i] && content !== null ? bytesOf(content as string) : content
      }
      return out as T
    },
  }
}

const bytes = 'bytes'
const plain = 'plain'

const query = packing<FactsQuery>({ fleet: plain, deviceId: plain, spkiSha256: bytes, contentSha256: bytes })
const intent = packing<IssuanceIntent>({
  ...{ issuer: bytes, serial: bytes, fleet: plain, device: plain, deviceVersion: plain, idx: plain, gids: plain },
  ...{ spkiSha256: bytes, contentSha256: bytes, epoch: plain, notBefore: plain, notAfter: plain, secret: bytes },
  ...{ requestId: plain, tbs: bytes, at: plain, transaction: plain, profiles: bytes, hold: plain, consent: plain },
})
const issued = packing<Omit<IssuedRecord, 'audit'>>({
  ...{ issuer: bytes, serial: bytes, der: bytes, idxFloor: plain, supersedes: plain, supersedesSince: plain, at: plain },
})
const audit = packing<AuditEntry>({
  ...{ at: plain, kind: plain, requestId: plain, fleet: plain, device: plain, by: plain, code: plain, detail: plain },
})
const device = packing<DeviceRecord>({
  ...{ key: plain, fleet: plain, id: plain, birthSpkiSha256: bytes, keyOrigin: plain, gids: plain, closedGids: plain },
  ...{
    version: plain,
    idxFloor: plain,
    supersedes: plain,
    supersedesSince: plain,
    suspectedAt: plain,
    knownAt: plain,
    seenAt: plain,
    hold: plain,
    revoked: plain,
  },
})
const certificate = packing<CertificateRecord>({
  ...{
    issuer: bytes,
    serial: bytes,
    fleet: plain,
    deviceId: plain,
    idx: plain,
    gids: plain,
    spkiSha256: bytes,
    contentSha256: bytes,
  },
  ...{ epoch: plain, notBefore: plain, notAfter: plain, secret: bytes, der: bytes },
})

export function packJob(job: WriteJob): WriteJob | Packed {
  const { name, argument } = job
  const list: Packed = [name]
  if (name === 'enrollmentFacts') query.pack(argument as FactsQuery, list)
  else if (name === 'recordIntent') intent.pack(argument as IssuanceIntent, list)
  else if (name === 'recordCertificate') {
    issued.pack(argument as IssuedRecord, list)
    audit.pack((argument as IssuedRecord).audit, list)
  } else return job
  return list
}

export function unpackJob(packed: WriteJob | Packed): WriteJob {
  if (!Array.isArray(packed)) return packed
  const name = packed[0] as WriteJob['name']
  if (name === 'enrollmentFacts') return { name, argument: query.unpack(packed, 1, boundBytes) }
  if (name === 'recordIntent') return { name, argument: intent.unpack(packed, 1, boundBytes) }
  const record = issued.unpack(packed, 1, boundBytes) as IssuedRecord
  record.audit = audit.unpack(packed, 1 + issued.size, boundBytes)
  return { name, argument: record }
}

// Keys and certificates of a device follow, as far as there are any; what `same` is, stands before them.
const SAME_NONE = 0
const SAME_LATEST = 1
const SAME_OTHER = 2

function packFacts(facts: EnrollmentFacts): Packed {
  const { latest, same, keyHolder, birthKeyHolder, lastTime } = facts
  // For most devices that come back it is the last certificate.
  const which = same === null ? SAME_NONE : same === latest ? SAME_LATEST : SAME_OTHER
  const list: Packed = [keyHolder, birthKeyHolder, lastTime, facts.device !== null, latest !== null, which]
  if (facts.device) device.pack(facts.device, list)
  if (latest) certificate.pack(latest, list)
  if (same && which === SAME_OTHER) certificate.pack(same, list)
  return list
}

function unpackFacts(list: Packed): EnrollmentFacts {
  let from = 6
  const next = <T extends object>(of: ReturnType<typeof packing<T>>, there: boolean): T | null => {
    if (!there) return null
    from += of.size
    return of.unpack(list, from - of.size, plainBytes)
  }
  const known = next(device, list[3] as boolean)
  const latest = next(certificate, list[4] as boolean)
  return {
    device: known,
    latest,
    same: list[5] === SAME_LATEST ? latest : next(certificate, list[5] === SAME_OTHER),
    keyHolder: list[0] as EnrollmentFacts['keyHolder'],
    birthKeyHolder: list[1] as string | null,
    lastTime: list[2] as number,
  }
}

// What nearly every write is answered with.
const INTENT_RECORDED = 1
const CERTIFICATE_RECORDED = 2

function packAnswer(answer: JobAnswer, { name }: WriteJob): JobAnswer | Packed | number {
  if ('failed' in answer) return answer
  if (name === 'enrollmentFacts') return packFacts(answer.value as EnrollmentFacts)
  if (name === 'recordIntent' && (answer.value as { kind: string }).kind === 'recorded') return INTENT_RECORDED
  return name === 'recordCertificate' && answer.value === 'recorded' ? CERTIFICATE_RECORDED : answer
}

function unpackAnswer(packed: JobAnswer | Packed | number): JobAnswer {
  if (packed === INTENT_RECORDED) return { value: { kind: 'recorded' } }
  if (packed === CERTIFICATE_RECORDED) return { value: 'recorded' }
  return Array.isArray(packed) ? { value: unpackFacts(packed) } : (packed as JobAnswer)
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
