// The EST messages printed in RFC 7030 and RFC 9148, the RFC 9908 template and the C509 certificates, through our parsers.
import { readFileSync } from 'node:fs'
import {
  BASIC_CONSTRAINTS,
  CHALLENGE_PASSWORD,
  challengePassword,
  codeOf,
  EXTENSION_REQUEST,
  encodeCertsOnly,
  hexOf,
  KEY_USAGE,
  nameText,
  parseCertificate,
  parseCertsOnly,
  parseCsr,
  requestedExtensions,
  SUBJECT_ALT_NAME,
} from '@birthmark/device-sdk/core'
import { describe, expect, it } from 'vitest'
import { vectorFile } from './folder.ts'
import { verifyNow } from './node-verify.ts'

const read = (...path: string[]) => readFileSync(vectorFile(...path) as string)

describe.runIf(vectorFile('rfc7030'))('RFC 7030 examples', () => {
  it('[RFC 7030 A.1] cacerts: root, its two links across the roll-over, the new root', () => {
    const certificates = parseCertsOnly(read('rfc7030', 'cacertsResponse.der')).map(parseCertificate)
    expect(certificates.map(c => `${nameText(c.subject)} by ${nameText(c.issuer)}`)).toEqual([
      'CN=estExampleCA OwO by CN=estExampleCA OwO',
      'CN=estExampleCA NwO by CN=estExampleCA OwO',
      'CN=estExampleCA OwN by CN=estExampleCA NwN',
      'CN=estExampleCA NwN by CN=estExampleCA NwN',
    ])
    for (const c of certificates) expect([c.keyAlgorithm, c.keyBits, c.signatureAlgorithm]).toEqual(['RSA', 2048, 'rsa-pkcs1-sha1'])
  })

  it('[RFC 7030 A.3] simpleenroll: the request’s signature is good, and the answer is for its name', () => {
    const csr = parseCsr(read('rfc7030', 'clientSimpleEnrol.der'))
    expect(nameText(csr.subject)).toBe('CN=demostep4 1368141352')
    expect(challengePassword(csr)).toBe('+rrCir/7+EYu50T4')
    expect(verifyNow(csr.spki, csr.signatureAlgorithm, csr.info, csr.signature)).toBe(true)
    const [issued] = parseCertsOnly(read('rfc7030', 'serverSimpleEnrolResponse.der')).map(parseCertificate)
    expect(nameText(issued.subject)).toBe(nameText(csr.subject))
    expect(issued.isCa).toBe(false)
  })

  it('csrattrs are neither requests nor certificates', () => {
    for (const name of ['csrattrs1.der', 'csrattrs2.der'])
      for (const parse of [parseCsr, parseCertificate, parseCertsOnly]) {
        let code: string | null = 'accepted'
        try {
          parse(read('rfc7030', name))
        } catch (error) {
          code = codeOf(error)
        }
        expect(code).toMatch(/^der_(malformed|limit)$/)
      }
  })
})

describe.runIf(vectorFile('rfc9148'))('RFC 9148 examples', () => {
  it('[RFC 9148 A] three answers and the two requests between them', () => {
    for (const name of ['block0.bin', 'block2.bin', 'block5.bin']) {
      const der = read('rfc9148', name)
      const certificates = parseCertsOnly(der)
      expect(certificates.map(parseCertificate).length).toBe(1)
      // Their encoder adds the empty CRL set that ours leaves out.
      expect(parseCertsOnly(encodeCertsOnly(certificates)).map(hexOf)).toEqual(certificates.map(hexOf))
    }
    const enroll = parseCsr(read('rfc9148', 'block1.bin'))
    expect(nameText(enroll.subject)).toBe('serialNumber=Wt1234,OU=IoT,O=example Inc,L=LA,ST=CA,C=US')
    expect(enroll.attributes.map(a => a.oid)).toEqual([CHALLENGE_PASSWORD, EXTENSION_REQUEST])
    expect(requestedExtensions(enroll).map(e => e.oid)).toEqual([SUBJECT_ALT_NAME])
    expect(verifyNow(enroll.spki, enroll.signatureAlgorithm, enroll.info, enroll.signature)).toBe(true)
    const keygen = parseCsr(read('rfc9148', 'block3.bin'))
    expect([nameText(keygen.subject), keygen.attributes]).toEqual(['O=skg example', []])
  })
})

describe.runIf(vectorFile('rfc9908'))('RFC 9908 example', () => {
  it('[RFC 9908] the CSR made from a template parses', () => {
    const csr = parseCsr(read('rfc9908', 'CSR-template.der'))
    expect(requestedExtensions(csr).map(e => e.oid)).toEqual([BASIC_CONSTRAINTS, KEY_USAGE])
  })
})

describe.runIf(vectorFile('c509'))('C509 certificates in their DER form', () => {
  it('an RFC 7925 profile, an IDevID, and one of the web', () => {
    const certificate = (name: string) => parseCertificate(read('c509', `${name}.crt`))
    expect(certificate('RFC7925').keyAlgorithm).toBe('P-256')
    expect(certificate('IEEE_802.1AR').notAfter).toBe(253402300799)
    expect(certificate('CAB_ECDSA').subjectAltNames.length).toBeGreaterThan(0)
  })
})
