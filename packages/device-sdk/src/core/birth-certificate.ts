// Birth certificates (IDevID, IEEE 802.1AR-2018 clause 8): the rules by which a certificate identifies a device for life, applied to a path
// that validate-path.ts has found good. Whether the device holds the key is for TLS or the agent to see.

import type { Verify } from '../agent/ports.ts'
import { type Bytes, hexOf } from './bytes.ts'
import { type Certificate, DIGITAL_SIGNATURE } from './certificate.ts'
import { childrenOf, contentOf, expectTag, OCTET_STRING, oidValue, readWhole, SEQUENCE } from './der.ts'
import { attributesOf, nameAttribute, SERIAL_NUMBER } from './distinguished-name.ts'
import { codeOf, type DeviceError, fail } from './errors.ts'
import { type PathRules, validatePath } from './validate-path.ts'

const HARDWARE_MODULE_NAME = '2b06010505070804' // 1.3.6.1.5.5.7.8.4, RFC 4108 5
const TPM_MANUFACTURER = '6781050201' // 2.23.133.2.1, TCG EK Credential Profile 3.2.9
const TPM_MODEL = '6781050202'
const TPM_VERSION = '6781050203'

/** X.520's upper bound for serialNumber. */
const serialNumberMax = 64

export interface BirthIdentity {
  /**
   * The subject's serialNumber; where it has none, `hw:` and the hex of hwSerialNum. 1 to 64 printable ASCII characters.
   * Unique for its issuer only.
   */
  serialNumber: string
  /** `type`: OID as hex; `serial`: octets. */
  hardwareModuleName: { type: string; serial: Bytes } | null
  /** What a TPM says of itself in a directory name; null where there is none. */
  tpm: { manufacturer: string; model: string; version: string } | null
  certificate: Certificate
  /** Leaf first, as validatePath gives it. */
  path: Certificate[]
}

function notIdevid(detail: string): never {
  return fail('birth_not_idevid', detail)
}

/**
 * What a certificate says of its device, by the rules for an IDevID, its path not looked at. Throws `birth_not_idevid`, certificate_*, der_*.
 * notAfter may be 99991231235959Z; an EK certificate fails, since its key cannot sign and so cannot prove itself in TLS.
 */
export function readBirthIdentity(certificate: Certificate): BirthIdentity {
  if (certificate.isCa) notIdevid('a CA')
  if (certificate.keyUsage >= 0 && !(certificate.keyUsage & DIGITAL_SIGNATURE)) notIdevid('key may not sign')
  let hardware: { type: string; serial: Bytes } | null = null
  let tpm: BirthIdentity['tpm'] = null
  for (let i = 0; i < certificate.subjectAltNames.length; i++) {
    const name = certificate.subjectAltNames[i]
    if (name.tag === 0) {
      const other = childrenOf({ bytes: name.value, tag: SEQUENCE, start: 0, body: 0, end: name.value.length }, 2)
      if (oidValue(other[0]) !== HARDWARE_MODULE_NAME) continue
      const parts = childrenOf(readWhole(contentOf(other[1]), SEQUENCE), 2)
      if (hardware) notIdevid('two hardwareModuleNames')
      hardware = { type: oidValue(parts[0]), serial: contentOf(expectTag(parts[1], OCTET_STRING)) }
      if (hardware.serial.length === 0) notIdevid('hardwareModuleName')
    } else if (name.tag === 4) {
      const manufacturer = nameAttribute(name.value, TPM_MANUFACTURER)
      const model = nameAttribute(name.value, TPM_MODEL)
      const version = nameAttribute(name.value, TPM_VERSION)
      if (manufacturer !== null && model !== null && version !== null)
        tpm = { manufacturer: manufacturer, model: model, version: version }
    }
  }
  // A serialNumber that is there but unreadable, or there twice, is a fault, not a reason to look elsewhere.
  const attributes = attributesOf(readWhole(certificate.subject, SEQUENCE), 'certificate_malformed')
  let serialNumber = nameAttribute(certificate.subject, SERIAL_NUMBER)
  for (let i = 0; i < attributes.length; i++)
    if (attributes[i].oid === SERIAL_NUMBER && serialNumber === null) notIdevid('serialNumber')
  // hwSerialNum is octets. As hex under a mark of its own it cannot be taken for another device's printable serial number.
  if (serialNumber === null && hardware) serialNumber = 'hw:' + hexOf(hardware.serial)
  if (serialNumber === null) return notIdevid('no serialNumber')
  if (serialNumber.length === 0 || serialNumber.length > serialNumberMax) notIdevid('serialNumber')
  for (let i = 0; i < serialNumber.length; i++)
    if (serialNumber.charCodeAt(i) < 0x20 || serialNumber.charCodeAt(i) > 0x7e) notIdevid('serialNumber')
  return { serialNumber: serialNumber, hardwareModuleName: hardware, tpm: tpm, certificate: certificate, path: [] }
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
    if (!codeOf(error)) throw error
    done(error as DeviceError, null)
    return
  }
  validatePath(leaf, intermediates, rules, verify, function (error, path) {
    if (path) birth.path = path
    done(error, path ? birth : null)
  })
}
