// The station: a CSR comes in, a birth certificate goes out, and the journal knows both before anybody else does.
//
//   CSR → proven → permitted? → serial and key unknown? → reserve what will be signed → sign → verify → record → release → read back
//
// Asking twice for the same unit with the same key gives the same certificate; anything else about a known serial or key is refused.

import { type Bytes, equalBytes, parseCertificate, signatureAlgorithmIdentifier } from '@birthmark/device-sdk/core'
import type { Authority, Moment } from './authority.ts'
import { type BirthProfile, birthForm } from './birth-form.ts'
import { birthRequestProver } from './birth-request.ts'
import { assembleCertificate, judgeSignature } from './certificate-form.ts'
import { FactoryError } from './errors.ts'
import { type Failpoint, openJournal, type Tally, type Unit } from './journal.ts'
import { type Mandate, mandateOf } from './mandate.ts'
import { type ManifestEntry, manifestLines } from './manifest.ts'
import { pooledRandom } from './random-pool.ts'
import { importKey, sha256Hex, verifySignature } from './signing-key.ts'

export interface BirthRequest {
  /** The unit's serial number: becomes its device id everywhere. */
  serial: string
  /** DER PKCS#10. */
  csr: Bytes
  /** What the unit is, as its order says. Refused when the issuing CA is for another SKU. */
  sku?: string | null
  /** `name=value`, at most 8. */
  groups?: string[]
  /** `host`: the line made the key and put it into the device. Recorded in the manifest for whoever has to trust it. */
  keyOrigin?: 'device' | 'host'
}

export interface Birth {
  serial: string
  certificate: Bytes
  /** Issuing CA upwards, without the root: what the device stores beside its certificate. */
  chain: Bytes[]
  /** The unit was known; this is its certificate once more. */
  again: boolean
}

/** What a device says it holds. */
export interface Readback {
  certificate: Bytes
  /** A signature by the device's key over `challenge`; null where the device was not asked to prove its key. */
  proof: { challenge: Bytes; algorithm: string; signature: Bytes } | null
}

export interface Station {
  /** Who seals the journal; null names no station (a trial line). */
  name: string
  mandate: Mandate | null
  issue(request: BirthRequest): Promise<Birth>
  /** Read-back: the device holds exactly what was issued, and its key answers. Then the unit is good. Throws `readback_mismatch`. */
  confirm(serial: string, held: Readback): Promise<void>
  /** Takes a unit out for good: it is in no manifest afterwards. */
  scrap(serial: string, step: string, cause: string): Promise<void>
  /** Counts a failed attempt; the unit may be tried again. */
  fail(serial: string, step: string, cause: string): Promise<void>
  note(what: string, detail: string): Promise<void>
  unit(serial: string): Unit | null
  units(): Iterable<Unit>
  /** The signed manifest of every unit issued and not scrapped, or of those named, as lines. */
  manifestLines(serials?: string[]): AsyncGenerator<string>
  /** The same in one piece, for some thousands of units. */
  manifest(serials?: string[]): Promise<Bytes>
  count(): { issued: number; reserved: number }
  tally(): Tally
  head(): { lines: number; bytes: number; hash: string }
  close(): void
}

// The same alphabet the server admits as a device id: safe in a topic, a file name, a log line and a URL.
export const SERIAL = /^[A-Za-z0-9._:-]{1,64}$/
const GROUP = /^[A-Za-z0-9._-]{1,32}=[A-Za-z0-9._:-]{1,64}$/
// The fleet extension of the operational certificate has room for eight groups.
export const groupsMax = 8
// A clock that was set back a little is set right again; one that is off by more would date certificates before their issuer's window.
const clockBackMax = 3600
// Names of steps and causes stand in reports and terminals.
const WORD = /^[A-Za-z0-9._ :/-]{1,64}$/

export function openStation(options: {
  folder: string
  issuing: Authority
  manifestSigner: Authority
  profile: BirthProfile
  clock: Moment
  random?: (length: number) => Bytes
  failpoint?: Failpoint
}): Station {
  const { folder, issuing, manifestSigner, profile, clock, failpoint = () => {} } = options
  const random = options.random ?? pooledRandom()
  const issuer = parseCertificate(issuing.certificate)
  const mandate = mandateOf(issuer)
  const own = mandate?.stations.find(({ keySha256 }) => keySha256 === sha256Hex(manifestSigner.key.spki)) ?? null
  if (mandate && !own)
    throw new FactoryError(
      'wrong_station',
      `the issuing CA is for ${mandate.stations.map(({ name }) => name).join(', ')}, and this station's key is none of theirs`,
    )
  const name = own?.name ?? 'trial'
  const journal = openJournal({
    folder,
    signer: manifestSigner,
    algorithm: issuing.key.algorithm,
    station: name,
    sku: mandate?.sku ?? null,
    random,
    failpoint,
  })
  // The root's certificate ends the chain; a device neither needs it nor may trust it on this path.
  const chain = [issuing.certificate, ...issuing.chain.slice(0, -1)]
  // One promise a unit, and none besides: what follows the journal follows its group's.
  const inProgress = new Map<string, Promise<Birth>>()
  const prove = birthRequestProver()
  const encodeForm = birthForm(profile, issuing)
  const issuerKey = importKey(issuing.key.spki)
  const algorithmDer = signatureAlgorithmIdentifier(issuing.key.algorithm)
  const ownKeys = new Set([issuing.key, manifestSigner.key].map(({ spki }) => sha256Hex(spki)))

  const permit = (now: number): void => {
    if (now < journal.latest() - clockBackMax)
      throw new FactoryError('clock_back', `the clock says ${date(now)}, and the journal was at ${date(journal.latest())} before`)
    if (!mandate || !own) return
    if (now < mandate.from || now > mandate.until)
      throw new FactoryError(
        'window_closed',
        `this CA issues from ${date(mandate.from)} to ${date(mandate.until)}; it is ${date(now)}`,
      )
    const { reserved, issued, good, scrapped } = journal.tally()
    if (reserved + issued + good + scrapped >= own.quota)
      throw new FactoryError('quota_spent', `station ${own.name} has used its ${own.quota} units of ${mandate.sku}`)
  }

  const complete = async (
    unit: { serial: string; index: number },
    toBeSigned: Bytes,
    reserved: Promise<void> | null,
  ): Promise<Birth> => {
    const { serial } = unit
    try {
      await reserved
      const { algorithm } = issuing.key
      const made = issuing.key.sign(toBeSigned)
      const signature = judgeSignature(toBeSigned, made instanceof Promise ? await made : made, algorithm, issuerKey)
      failpoint('signed')
      // A crash before the next line loses a signature that nobody has seen; the reservation signs the same bytes again.
      await journal.issued(unit, signature, clock.now())
      failpoint('release')
      return { serial, certificate: assembleCertificate(toBeSigned, algorithmDer, signature), chain, again: false }
    } finally {
      inProgress.delete(serial)
    }
  }

  const begin = (request: BirthRequest): Promise<Birth> => {
    const { serial, groups = [], keyOrigin = 'device' } = request
    if (!SERIAL.test(serial)) throw new FactoryError('serial_malformed', 'a serial number is 1 to 64 of A-Z a-z 0-9 . _ : -')
    if (groups.length > groupsMax) throw new FactoryError('group_malformed', `${groups.length} groups; at most ${groupsMax}`)
    for (const group of groups)
      if (!GROUP.test(group)) throw new FactoryError('group_malformed', `group '${group.slice(0, 100)}' is not name=value`)
    if (mandate && request.sku && request.sku !== mandate.sku)
      throw new FactoryError('wrong_sku', `${serial} is a ${request.sku}; this CA is for ${mandate.sku}`)
    const { spki } = prove(request.csr)
    const spkiSha256 = sha256Hex(spki)
    // FAULTS 23: a device with the CA's own key would be the CA.
    if (ownKeys.has(spkiSha256)) throw new FactoryError('key_refused', "this is one of the line's own keys")

    const known = journal.bySerial(serial)
    if (known && known.spkiSha256 !== spkiSha256)
      throw new FactoryError('serial_taken', `${serial} was issued for another key; a second unit needs its own serial`)
    if (!known) {
      const holder = journal.byKey(spkiSha256)
      if (holder) throw new FactoryError('key_taken', `this key belongs to ${holder.serial}; two units must not share one`)
    }
    if (known?.state === 'scrapped') throw new FactoryError('serial_taken', `${serial} was scrapped; its serial is spent`)
    if (known?.certificate) return Promise.resolve({ serial, certificate: known.certificate, chain, again: true })
    const running = inProgress.get(serial)
    if (running) return running.then(birth => ({ ...birth, again: true }))

    let work: Promise<Birth>
    if (known) work = complete(known, known.toBeSigned, null)
    else {
      const now = clock.now()
      permit(now)
      const toBeSigned = encodeForm({ serial, spki, spkiSha256 }, now, random)
      const { index, durable } = journal.reserve({ serial, spkiSha256, groups, keyOrigin, toBeSigned }, now)
      work = complete({ serial, index }, toBeSigned, durable)
    }
    inProgress.set(serial, work)
    return work
  }

  const judgeFate = (serial: string, step: string, cause: string): void => {
    if (!SERIAL.test(serial)) throw new FactoryError('serial_malformed', 'a serial number is 1 to 64 of A-Z a-z 0-9 . _ : -')
    for (const word of [step, cause])
      if (!WORD.test(word))
        throw new FactoryError('group_malformed', 'a step or cause is 1 to 64 of A-Z a-z 0-9 . _ : / - and space')
  }

  const entries = function* (serials?: string[]): Generator<ManifestEntry> {
    const wanted = serials ? new Set(serials) : null
    const issuerSubject = Buffer.from(issuer.subject).toString('hex')
    for (const unit of journal.units()) {
      if (!unit.certificate || unit.state === 'scrapped' || (wanted && !wanted.has(unit.serial))) continue
      yield {
        serial: unit.serial,
        issuerSubject,
        birthCertificateSha256: sha256Hex(unit.certificate),
        spkiSha256: unit.spkiSha256,
        groups: unit.groups,
        keyOrigin: unit.keyOrigin,
      }
    }
  }

  return {
    name,
    mandate,
    issue(request) {
      try {
        return begin(request)
      } catch (error) {
        return Promise.reject(error)
      }
    },

    async confirm(serial, { certificate, proof }) {
      const unit = journal.bySerial(serial)
      if (!unit?.certificate) throw new FactoryError('serial_unknown', `${serial} has no certificate from this station`)
      if (unit.state === 'good') return
      if (unit.state === 'scrapped') throw new FactoryError('serial_taken', `${serial} was scrapped`)
      const bad = !equalBytes(unit.certificate, certificate)
        ? 'other certificate'
        : proof && !verifySignature(parseCertificate(certificate).spki, proof.algorithm, proof.challenge, proof.signature)
          ? 'key does not answer'
          : null
      if (bad) {
        await journal.fate({ kind: 'failed', serial, step: 'readback', cause: bad }, clock.now())
        throw new FactoryError('readback_mismatch', `${serial}: ${bad}`)
      }
      await journal.fate(
        { kind: 'good', serial, step: 'readback', cause: proof ? 'certificate and key' : 'certificate' },
        clock.now(),
      )
    },

    async scrap(serial, step, cause) {
      judgeFate(serial, step, cause)
      const unit = journal.bySerial(serial)
      if (unit?.state === 'scrapped') return
      await journal.fate({ kind: 'scrapped', serial, step, cause }, clock.now())
    },

    async fail(serial, step, cause) {
      judgeFate(serial, step, cause)
      await journal.fate({ kind: 'failed', serial, step, cause }, clock.now())
    },

    note: (what, detail) => journal.note(what, detail, clock.now()),
    unit: serial => journal.bySerial(serial),
    units: () => journal.units(),
    manifestLines: serials => manifestLines(entries(serials), manifestSigner, clock.now()),
    async manifest(serials) {
      const lines: Buffer[] = []
      for await (const line of manifestLines(entries(serials), manifestSigner, clock.now())) lines.push(Buffer.from(line))
      return Buffer.concat(lines)
    },

    count() {
      const { reserved, certificates } = journal.tally()
      return { issued: certificates, reserved }
    },
    tally: () => journal.tally(),
    head: () => journal.head(),
    close: () => journal.close(),
  }
}

function date(seconds: number): string {
  return new Date(seconds * 1000).toISOString().slice(0, 16)
}
