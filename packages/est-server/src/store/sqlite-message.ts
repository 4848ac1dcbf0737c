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

/** A record as a list and back: `bytes` are its fields of bytes or null, `plain` all the others. */
function packing<T extends object>(bytes: readonly (keyof T)[], plain: readonly (keyof T)[]) {
  return {
    pack(value: T): Packed {
      const out: Packed = []
      for (const field of bytes) {
        const content = value[field] as Uint8Array | null | undefined
        out.push(content && textOf(content))
      }
      for (const field of plain) out.push(value[field])
      return out
    },
    unpack(packed: Packed): T {
      const out: { [field in keyof T]?: unknown } = {}
      let at = 0
      for (const field of bytes) {
        const text = packed[at++] as string | null | undefined
        if (text !== undefined) out[field] = text === null ? null : bytesOf(text)
      }
      for (const field of plain) {
        const value = packed[at++]
        if (value !== undefined) out[field] = value
      }
      return out as T
    },
  }
}

const query = packing<FactsQuery>(['spkiSha256', 'contentSha256'], ['fleet', 'deviceId'])
const intent = packing<IssuanceIntent>(
  ['issuer', 'serial', 'spkiSha256', 'contentSha256', 'secret', 'tbs', 'profiles'],
  [
    ...(['fleet', 'device', 'deviceVersion', 'idx', 'gids', 'epoch'] as const),
    ...(['notBefore', 'notAfter', 'requestId', 'at', 'transaction'] as const),
  ],
)
const issued = packing<Omit<IssuedRecord, 'audit'>>(
  ['issuer', 'serial', 'der'],
  ['idxFloor', 'supersedes', 'supersedesSince', 'at'],
)
const audit = packing<AuditEntry>([], ['at', 'kind', 'requestId', 'fleet', 'device', 'by', 'code', 'detail'])
const device = packing<DeviceRecord>(
  ['birthSpkiSha256'],
  [
    ...(['key', 'fleet', 'id', 'keyOrigin', 'gids', 'closedGids', 'version', 'idxFloor'] as const),
    ...(['supersedes', 'supersedesSince', 'suspectedAt', 'knownAt', 'seenAt'] as const),
  ],
)
const certificate = packing<CertificateRecord>(
  ['issuer', 'serial', 'spkiSha256', 'contentSha256', 'secret', 'der'],
  ['fleet', 'deviceId', 'idx', 'gids', 'epoch', 'notBefore', 'notAfter'],
)

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
