import { describe, expect, it } from 'vitest'
import {
  basicConstraints,
  commonName,
  keyUsage,
  madeCa,
  madeCertificate,
  madeKey,
  madeTime,
  madeVerify,
  subjectAltName,
} from '../testing/made-certificate.ts'
import { type BirthIdentity, checkBirthCertificate, readBirthIdentity, tpmNameOf } from './birth-certificate.ts'
import { type Bytes, bytesOfHex, utf8Bytes } from './bytes.ts'
import { parseCertificate } from './certificate.ts'
import { encodeElement, encodeOid, encodeSequence, OCTET_STRING, SET, UTF8_STRING } from './der.ts'
import { encodeName, SERIAL_NUMBER } from './distinguished-name.ts'
import { codeOf } from './errors.ts'
import { anchorOf } from './trust-anchor.ts'
import { defaultAlgorithms } from './validate-path.ts'

const serial = (value: string) => encodeName([{ oid: SERIAL_NUMBER, value }])

function hardwareModuleName(octets: Bytes): [number, Bytes] {
  const value = encodeSequence([encodeOid('2b06010401'), encodeElement(OCTET_STRING, [octets])])
  const name = encodeSequence([encodeOid('2b06010505070804'), encodeElement(0xa0, [value])])
  return [0xa0, name.subarray(2)]
}

const made = (subject: Bytes, extensions: Bytes[] = []) =>
  madeCertificate({ subject, extensions, notAfter: madeTime('99991231235959Z') })

function read(subject: Bytes, extensions: Bytes[] = []): BirthIdentity | string | null {
  try {
    return readBirthIdentity(parseCertificate(made(subject, extensions)))
  } catch (error) {
    return codeOf(error)
  }
}

describe('IDevID rules', () => {
  it('[802.1AR-2018 8.6] the subject’s serialNumber names the device', () => {
    expect(read(serial('unit 1/A'))).toMatchObject({ serialNumber: 'unit 1/A', hardwareModuleName: null, path: [] })
    expect(read(serial('gw_7'))).toMatchObject({ serialNumber: 'gw_7' })
    expect(read(commonName('unit-1'))).toBe('birth_not_idevid')
    expect(read(serial(''))).toBe('birth_not_idevid')
    expect(read(serial('x'.repeat(65)))).toBe('birth_not_idevid')
    for (const odd of ['a\0b', 'a\nb', 'ä']) expect(read(serial(odd))).toBe('birth_not_idevid')
  })

  it('[RFC 4108 5] without one, hwSerialNum does, under a mark that no printable serial number can be taken for', () => {
    const hardware = subjectAltName(false, hardwareModuleName(new Uint8Array([0xa, 0xff])))
    expect(read(commonName('unit'), [hardware])).toMatchObject({
      serialNumber: 'hw:0aff',
      hardwareModuleName: { type: '2b06010401', serial: new Uint8Array([0xa, 0xff]) },
    })
    expect(read(serial('s-1'), [hardware])).toMatchObject({ serialNumber: 's-1', hardwareModuleName: { type: '2b06010401' } })
    const critical = subjectAltName(true, hardwareModuleName(utf8Bytes('7')))
    expect(read(encodeName([]), [critical])).toMatchObject({ serialNumber: 'hw:37' })
    expect(read(commonName('x'), [subjectAltName(false, hardwareModuleName(new Uint8Array(40)))])).toBe('birth_not_idevid')
    expect(read(commonName('x'), [subjectAltName(false, [0xa0, bytesOfHex('06082b06010505070804a0020500')])])).toBe('der_malformed')
  })

  it('[802.1AR-2018 8.10] a device is no CA and its key may sign', () => {
    expect(read(serial('1'), [basicConstraints(false), keyUsage(5, 0xa0)])).toMatchObject({ serialNumber: '1' })
    expect(read(serial('1'), [basicConstraints(true)])).toBe('birth_not_idevid')
    // What an EK certificate has: keyEncipherment alone.
    expect(read(serial('1'), [keyUsage(5, 0x20)])).toBe('birth_not_idevid')
  })

  it('reads what a TPM says of itself', () => {
    const attribute = (oid: string, value: string) =>
      encodeElement(SET, [encodeSequence([encodeOid(oid), encodeElement(UTF8_STRING, [utf8Bytes(value)])])])
    const name = encodeSequence([
      attribute('6781050201', 'id:49465800'),
      attribute('6781050202', 'SLB9670'),
      attribute('6781050203', 'id:0755'),
    ])
    const withTpm = parseCertificate(made(serial('1'), [subjectAltName(false, [0xa4, name])]))
    expect(tpmNameOf(withTpm)).toEqual({ manufacturer: 'id:49465800', model: 'SLB9670', version: 'id:0755' })
    expect(tpmNameOf(parseCertificate(made(serial('1'), [subjectAltName(false, [0xa4, commonName('x')])])))).toBeNull()
  })
})

describe('checkBirthCertificate', () => {
  const root = parseCertificate(madeCa({ subject: 'maker', issuer: 'maker', key: madeKey(1) }))
  const rules = {
    anchors: [anchorOf(root)],
    time: Date.UTC(2026, 0) / 1000,
    algorithms: defaultAlgorithms,
    purpose: null,
    understoodCritical: [],
    depthMax: 4,
    signaturesMax: 8,
  }
  const check = (der: Bytes) => {
    const verify = madeVerify()
    const answers: unknown[] = []
    checkBirthCertificate(parseCertificate(der), [], rules, verify, (error, birth) => answers.push(error ? error.code : birth))
    expect(answers.length).toBe(1)
    return { answer: answers[0], asked: verify.asked }
  }

  it('answers with an identity that the anchor vouches for', () => {
    const { answer } = check(madeCertificate({ subject: serial('u-1'), issuer: 'maker' }))
    expect(answer).toMatchObject({ serialNumber: 'u-1' })
    expect((answer as BirthIdentity).path.map(c => c.subject)).toEqual([serial('u-1'), commonName('maker')])
  })

  it('spends no signature on what is no IDevID', () => {
    expect(check(madeCertificate({ subject: 'u-1', issuer: 'maker' }))).toEqual({ answer: 'birth_not_idevid', asked: 0 })
  })

  it('hands on why the path failed', () => {
    expect(check(madeCertificate({ subject: serial('u-1'), issuer: 'maker', signer: madeKey(5) })).answer).toBe('path_signature')
    expect(check(madeCertificate({ subject: serial('u-1'), issuer: 'other' })).answer).toBe('path_no_anchor')
  })

  it('[F11] knows the same device under another signature value', () => {
    const der = madeCertificate({ subject: serial('u-1'), issuer: 'maker' })
    const [one, two] = [parseCertificate(der), { ...parseCertificate(der), der: new Uint8Array(1), signature: new Uint8Array(2) }]
    expect([two.spki, two.serial, two.issuer, readBirthIdentity(two).serialNumber]).toEqual([
      one.spki,
      one.serial,
      one.issuer,
      readBirthIdentity(one).serialNumber,
    ])
  })
})
