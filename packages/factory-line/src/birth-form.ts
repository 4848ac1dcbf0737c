// What a birth certificate says (IDevID, IEEE 802.1AR-2018 8): the serial number of the unit in its subject, no expiry, a signature key,
// and, where the product has a hardware type, its hardwareModuleName (RFC 4108 5).

import {
  type Bytes,
  COMMON_NAME,
  DIGITAL_SIGNATURE,
  encodeName,
  ORGANIZATION,
  parseCertificate,
  SERIAL_NUMBER,
  utf8Bytes,
} from '@birthmark/device-sdk/core'
import { type Authority, keyIdOf } from './authority.ts'
import { certificateSerial, encodeToBeSigned, neverExpires } from './certificate-form.ts'
import { authorityKeyId, hardwareModuleName, keyUsage, subjectAltNames, subjectKeyId } from './extensions.ts'

export interface BirthProfile {
  organization: string | null
  /** Whether CN repeats the serial number, for tools that show only CN. */
  commonName: boolean
  /** hwType as DER content octets in hex; null leaves the SAN out. */
  hardwareType: string | null
}

/** 2.25.173384554803375693927015184412267940168: the hardware type of a product that has not been given one of its own. */
export const UNASSIGNED_HARDWARE = '698284f0d3a3b58192b6d3a7fed286c5a4da9248'

/** What of a birth certificate is the same for every unit of an issuing CA is encoded once. */
export function birthForm(
  profile: BirthProfile,
  issuing: Authority,
): (unit: { serial: string; spki: Bytes }, now: number, random: (length: number) => Bytes) => Bytes {
  const issuer = parseCertificate(issuing.certificate)
  const usage = keyUsage(DIGITAL_SIGNATURE)
  const authority = authorityKeyId(issuer.subjectKeyId ?? keyIdOf(issuer.spki))
  return (unit, now, random) => {
    const attributes = [{ oid: SERIAL_NUMBER, value: unit.serial }]
    if (profile.commonName) attributes.unshift({ oid: COMMON_NAME, value: unit.serial })
    if (profile.organization) attributes.unshift({ oid: ORGANIZATION, value: profile.organization })
    const extensions = [usage, subjectKeyId(keyIdOf(unit.spki)), authority]
    if (profile.hardwareType) extensions.push(subjectAltNames([hardwareModuleName(profile.hardwareType, utf8Bytes(unit.serial))]))
    return encodeToBeSigned(
      {
        serial: certificateSerial(now, random),
        issuer: issuer.subject,
        subject: encodeName(attributes),
        notBefore: now,
        notAfter: neverExpires,
        spki: unit.spki,
        extensions,
      },
      issuing.key.algorithm,
    )
  }
}

/** The same for one unit. */
export function encodeBirthForm(
  unit: { serial: string; spki: Bytes },
  profile: BirthProfile,
  issuing: Authority,
  now: number,
  random: (length: number) => Bytes,
): Bytes {
  return birthForm(profile, issuing)(unit, now, random)
}
