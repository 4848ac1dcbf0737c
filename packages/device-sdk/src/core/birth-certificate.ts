// Birth certificates (IDevID, IEEE 802.1AR-2018 clause 8): the rules by which a certificate identifies a device for life, applied to a path
// that validate-path.ts has found good. Whether the device holds the key is for TLS or the agent to see.

import { type Bytes, hexOf } from './bytes.ts'
import { type Certificate, DIGITAL_SIGNATURE } from './certificate.ts'
import { contentOf, encodeSequence, expectTag, OCTET_STRING, oidValue, wholeParts } from './der.ts'
import { nameAttribute, SERIAL_NUMBER } from './distinguished-name.ts'
import { type DeviceError, fail } from './errors.ts'
import { type PathRules, validatePath } from './validate-path.ts'
import type { Verify } from './verify.ts'

const HARDWARE_MODULE_NAME = '2b06010505070804' // 1.3.6.1.5.5.7.8.4, RFC 4108 5
const TPM_MANUFACTURER = '6781050201' // 2.23.133.2.1, TCG EK Credential Profile 3.2.9
const TPM_MODEL = '6781050202'
const TPM_VERSION = '6781050203'

export interface BirthIdentity {
  /**
   * The subject's serialNumber; where it has none, `hw:` and the hex of hwSerialNum. 1 to 64 printable ASCII characters (X.520's bound).
   * Unique for its issuer only.
   */
  serialNumber: string
  /** `type`: OID as hex; `serial`: octets. */
  hardwareModuleName: { type: string; serial: Bytes } | null
  certificate: Certificate
  /** Leaf first, as validatePath gives it. */
  path: Certificate[]
}

/**
 * What a certificate says of its device, by the rules for an IDevID, its path not looked at. Throws `birth_not_idevid` or der_*.
 * notAfter may be 99991231235959Z; an EK certificate fails, since its key cannot sign and so cannot prove itself in TLS.
 */
export function readBirthIdentity(certificate: Certificate): BirthIdentity {
  // Key usage absent is −1, which has every bit.
  if (certificate.isCa || !(certificate.keyUsage & DIGITAL_SIGNATURE)) fail('birth_not_idevid', 'CA or key usage')
  let hardware: BirthIdentity['hardwareModuleName'] = null
  let serialNumber = nameAttribute(certificate.subject, SERIAL_NUMBER)
  certificate.subjectAltNames.forEach(name => {
    if (name.tag) return
    // An OtherName is an implicit SEQUENCE: its content is read under a header of our own.
    const other = wholeParts(encodeSequence([name.value]), 2, 2)
    if (oidValue(other[0]) !== HARDWARE_MODULE_NAME) return
    const parts = wholeParts(contentOf(expectTag(other[1], 0xa0)), 2, 2)
    const serial = contentOf(expectTag(parts[1], OCTET_STRING))
    hardware = { type: oidValue(parts[0]), serial: serial }
    // hwSerialNum is octets: as hex under a mark of its own it cannot be taken for another device's printable serial number.
    if (serialNumber === null) serialNumber = 'hw:' + hexOf(serial)
  })
  if (!serialNumber || serialNumber.length > 64 || !/^[ -~]+$/.test(serialNumber)) fail('birth_not_idevid', 'serialNumber')
  return { serialNumber: serialNumber as string, hardwareModuleName: hardware, certificate: certificate, path: [] }
}

/** What a TPM says of itself in a directory name of an EK or IDevID certificate (TCG EK Credential Profile 3.2.9), or null. */
export function tpmNameOf(certificate: Certificate): { manufacturer: string; model: string; version: string } | null {
  for (let i = 0; i < certificate.subjectAltNames.length; i++) {
    const name = certificate.subjectAltNames[i]
    if (name.tag !== 4) continue
    const manufacturer = nameAttribute(name.value, TPM_MANUFACTURER)
    const model = nameAttribute(name.value, TPM_MODEL)
    const version = nameAttribute(name.value, TPM_VERSION)
    if (manufacturer !== null && model !== null && version !== null)
      return { manufacturer: manufacturer, model: model, version: version }
  }
  return null
}

/**
 * Validates a birth certificate: the IDevID rules first, since they cost no signature, then the path under `rules` (whose `purpose` is
 * normally null: IDevIDs seldom carry an EKU). Answers once, with `birth_not_idevid` or a path_* error, or with an identity that the
 * manufacturer's anchor vouches for.
 */
export function checkBirthCertificate(
  leaf: Certificate,
  intermediates: Certificate[],
  rules: PathRules,
  verify: Verify,
  done: (error: DeviceError | null, birth: BirthIdentity | null) => void,
): void {
  let birth: BirthIdentity
  try {
    birth = readBirthIdentity(leaf)
  } catch (error) {
    done(error as DeviceError, null)
    return
  }
  validatePath(leaf, intermediates, rules, verify, (error, path) => {
    if (path) birth.path = path
    done(error, path ? birth : null)
  })
}
