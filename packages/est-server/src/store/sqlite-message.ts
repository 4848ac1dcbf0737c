// Between the store and its writer thread: the jobs and answers of the hot path as flat lists, their bytes as Latin-1 text. The platform's own
// copy of an object costs three times as much, most of it for the five or six ArrayBuffers of each, which the collector then has to find again
// on both sides. Whatever is not named here is copied as it is.

import type { FactsQuery } from './sqlite-issuance.ts'
import type { JobAnswer, WriteJob, WriterMessage } from './sqlite-writer.ts'
import type { AuditEntry, CertificateRecord, DeviceRecord, EnrollmentFacts, IssuanceIntent, IssuedRecord } from './store.ts'

type Packed = unknown[]

const textOf = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')

// Plain arrays, as every other driver gives: a Buffer is not equal to one.
function bytesOf(text: string): Uint8Array {
  const { buffer, byteOffset, byteLength } = Buffer.from(text, 'latin1')
  return new Uint8Array(buffer, byteOffset, byteLength)
}

/**
 * Every field of a record, in the order of the list, and whether it is bytes: a field that is missing here or called what it is not does not
 * compile, since it would be lost between the threads without a word.
 */
type Fields<T> = { readonly [F in keyof T]-?: NonNullable<T[F]> extends Uint8Array ? 'bytes' : 'plain' }

/** A record as a list and back. */
function packing<T extends object>(all: Fields<T>) {
  const fields = Object.entries(all) as [keyof T & string, 'bytes' | 'plain'][]
  return {
    pack: (value: T): Packed =>
      fields.map(([field, kind]) => {
        const content: unknown = value[field]
        return kind === 'bytes' && content ? textOf(content as Uint8Array) : content
      }),
    unpack(packed: Packed): T {
      const out: { [field in keyof T]?: unknown } = {}
      fields.forEach(([field, kind], at) => {
        const content = packed[at]
        if (content !== undefined) out[field] = kind === 'bytes' && content !== null ? bytesOf(content as string) : content
      })
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
  const { argument } = job
  if (job.name === 'enrollmentFacts') return ['enrollmentFacts', query.pack(argument as FactsQuery)]
  if (job.name === 'recordIntent') return ['recordIntent', intent.pack(argument as IssuanceIntent)]
  if (job.name !== 'recordCertificate') return job
  const record = argument as IssuedRecord
  return ['recordCertificate', issued.pack(record), audit.pack(record.audit)]
}

export function unpackJob(packed: WriteJob | Packed): WriteJob {
  if (!Array.isArray(packed)) return packed
  const [name, fields, more] = packed as [WriteJob['name'], Packed, Packed?]
  if (name === 'enrollmentFacts') return { name, argument: query.unpack(fields) }
  if (name === 'recordIntent') return { name, argument: intent.unpack(fields) }
  return { name, argument: { ...issued.unpack(fields), audit: audit.unpack(more as Packed) } }
}

function packFacts(facts: EnrollmentFacts): Packed {
  const { latest, same, keyHolder, birthKeyHolder, lastTime } = facts
  return [
    facts.device && device.pack(facts.device),
    latest && certificate.pack(latest),
    // For most devices that come back it is the last certificate.
    same === latest ? true : same && certificate.pack(same),
    keyHolder,
    birthKeyHolder,
    lastTime,
  ]
}

function unpackFacts(packed: Packed): EnrollmentFacts {
  const [known, last, same, keyHolder, birthKeyHolder, lastTime] = packed as [
    ...[Packed | null, Packed | null, Packed | null | true],
    ...[EnrollmentFacts['keyHolder'], string | null, number],
  ]
  const latest = last && certificate.unpack(last)
  return {
    device: known && device.unpack(known),
    latest,
    same: same === true ? latest : same && certificate.unpack(same),
    keyHolder,
    birthKeyHolder,
    lastTime,
  }
}

/** `jobs`: what was asked. Its members may be fewer than the answers of a message that does not answer them. */
export function packMessage(message: WriterMessage, jobs: readonly WriteJob[]): unknown {
  if (message.kind !== 'answers') return message
  const answers = message.answers.map((answer, i) =>
    jobs[i].name === 'enrollmentFacts' && 'value' in answer ? packFacts(answer.value as EnrollmentFacts) : answer,
  )
  return { kind: 'answers', answers }
}

export function unpackMessage(packed: unknown): WriterMessage {
  const message = packed as WriterMessage
  if (message.kind !== 'answers') return message
  return {
    kind: 'answers',
    answers: message.answers.map((answer: JobAnswer | Packed) => (Array.isArray(answer) ? { value: unpackFacts(answer) } : answer)),
  }
}
