// The station: a CSR comes in, a birth certificate goes out, and the journal knows both before anybody else does.
//
//   CSR → proven → serial and key unknown? → reserve what will be signed → sign → verify → record → release
//
// Asking twice for the same unit with the same key gives the same certificate; anything else about a known serial or key is refused.

import { randomBytes } from 'node:crypto'
import { type Bytes, equalBytes, parseCertificate } from '@birthmark/device-sdk/core'
import type { Authority, Moment } from './authority.ts'
import { type BirthProfile, encodeBirthForm } from './birth-form.ts'
import { proveBirthRequest } from './birth-request.ts'
import { signCertificate } from './certificate-form.ts'
import { FactoryError } from './errors.ts'
import { openJournal, type Unit } from './journal.ts'
import type { ManifestEntry } from './manifest.ts'
import { encodeManifest } from './manifest.ts'
import { sha256Hex } from './signing-key.ts'

export interface BirthRequest {
  /** The unit's serial number: becomes its device id everywhere. */
  serial: string
  /** DER PKCS#10. */
  csr: Bytes
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

export interface Station {
  issue(request: BirthRequest): Promise<Birth>
  /** The signed manifest of every unit issued so far, or of those named. */
  manifest(serials?: string[]): Promise<Bytes>
  count(): { issued: number; reserved: number }
  close(): void
}

// The same alphabet the server admits as a device id: safe in a topic, a file name, a log line and a URL.
const SERIAL = /^[A-Za-z0-9._:-]{1,64}$/
const GROUP = /^[A-Za-z0-9._-]{1,32}=[A-Za-z0-9._:-]{1,64}$/
// The fleet extension of the operational certificate has room for eight groups.
export const groupsMax = 8

export function openStation(options: {
  folder: string
  issuing: Authority
  manifestSigner: Authority
  profile: BirthProfile
  clock: Moment
  random?: (length: number) => Bytes
}): Station {
  const { folder, issuing, manifestSigner, profile, clock } = options
  const random = options.random ?? randomBytes
  const journal = openJournal(folder)
  // The root's certificate ends the chain; a device neither needs it nor may trust it on this path.
  const chain = [issuing.certificate, ...issuing.chain.slice(0, -1)]
  const inProgress = new Map<string, Promise<Birth>>()

  const complete = async (unit: Unit): Promise<Birth> => {
    const certificate = await signCertificate(unit.toBeSigned, issuing.key)
    // A crash before the next line loses a signature that nobody has seen; the reservation signs the same bytes again.
    journal.issued(unit, certificate, clock.now())
    return { serial: unit.serial, certificate, chain, again: false }
  }

  return {
    async issue(request) {
      const { serial, groups = [], keyOrigin = 'device' } = request
      if (!SERIAL.test(serial)) throw new FactoryError('serial_malformed', 'a serial number is 1 to 64 of A-Z a-z 0-9 . _ : -')
      if (groups.length > groupsMax) throw new FactoryError('group_malformed', `${groups.length} groups; at most ${groupsMax}`)
      for (const group of groups)
        if (!GROUP.test(group)) throw new FactoryError('group_malformed', `group '${group.slice(0, 100)}' is not name=value`)
      const { spki } = proveBirthRequest(request.csr)
      // FAULTS 23: a device with the CA's own key would be the CA.
      for (const own of [issuing.key, manifestSigner.key])
        if (equalBytes(own.spki, spki)) throw new FactoryError('key_refused', "this is one of the line's own keys")
      const spkiSha256 = sha256Hex(spki)

      const known = journal.bySerial(serial)
      if (known && known.spkiSha256 !== spkiSha256)
        throw new FactoryError('serial_taken', `${serial} was issued for another key; a second unit needs its own serial`)
      const holder = journal.byKey(spkiSha256)
      if (holder && holder.serial !== serial)
        throw new FactoryError('key_taken', `this key belongs to ${holder.serial}; two units must not share one`)
      if (known?.certificate) return { serial, certificate: known.certificate, chain, again: true }

      const running = inProgress.get(serial)
      if (running) return { ...(await running), again: true }
      const now = clock.now()
      const unit =
        known ??
        journal.reserve(
          { serial, spkiSha256, groups, keyOrigin, toBeSigned: encodeBirthForm({ serial, spki }, profile, issuing, now, random) },
          now,
        )
      const work = complete(unit).finally(() => inProgress.delete(serial))
      inProgress.set(serial, work)
      return work
    },

    async manifest(serials) {
      const wanted = serials ? new Set(serials) : null
      const issuer = parseCertificate(issuing.certificate).subject
      const entries: ManifestEntry[] = []
      for (const unit of journal.units()) {
        if (!unit.certificate || (wanted && !wanted.has(unit.serial))) continue
        entries.push({
          serial: unit.serial,
          issuerSubject: Buffer.from(issuer).toString('hex'),
          birthCertificateSha256: sha256Hex(unit.certificate),
          spkiSha256: unit.spkiSha256,
          groups: unit.groups,
          keyOrigin: unit.keyOrigin,
        })
      }
      return encodeManifest(entries, manifestSigner, clock.now())
    },

    count() {
      let issued = 0
      let reserved = 0
      for (const unit of journal.units()) unit.certificate ? issued++ : reserved++
      return { issued, reserved }
    },

    close: () => journal.close(),
  }
}
