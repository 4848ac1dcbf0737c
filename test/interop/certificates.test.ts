// Certificates, requests and messages of other programs read to the same values by us, and ours read by them: the openssl command,
// @peculiar/x509 and node:crypto.
import { execFileSync } from 'node:child_process'
import { generateKeyPairSync, type KeyObject, sign, webcrypto, X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  anchorOf,
  BASIC_CONSTRAINTS,
  type Certificate,
  CHALLENGE_PASSWORD,
  COMMON_NAME,
  challengePassword,
  checkBirthCertificate,
  csrAssemble,
  csrInfo,
  decodePem,
  defaultAlgorithms,
  EMAIL_ADDRESS,
  EXTENSION_REQUEST,
  encodeAttribute,
  encodeCertsOnly,
  encodeElement,
  encodeName,
  encodePem,
  encodeSequence,
  encodeUnsigned,
  hexOf,
  nameAttribute,
  nameText,
  ORGANIZATION,
  oidText,
  parseCertificate,
  parseCertsOnly,
  parseCsr,
  requestedExtensions,
  SERIAL_NUMBER,
  utf8Bytes,
  validatePath,
} from '@birthmark/device-sdk/core'
import { afterAll, describe, expect, it } from 'vitest'
import { nodeVerify, verifyNow } from '../vectors/node-verify.ts'

// @peculiar/x509 finds its own classes through tsyringe, which asks for a metadata polyfill that nothing it does here looks into.
Object.assign(Reflect, { getMetadata: () => undefined, getOwnMetadata: () => undefined, defineMetadata: () => undefined })
const peculiar = await import('@peculiar/x509')

const folder = mkdtempSync(join(tmpdir(), 'birthmark-interop-'))
afterAll(() => rmSync(folder, { recursive: true }))

const file = (name: string) => join(folder, name)
const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] })

function selfSigned(name: string, key: string[], more: string[] = []): Certificate {
  openssl('req', '-x509', ...key, '-nodes', '-keyout', `${name}.key`, '-out', `${name}.pem`, '-days', '30', ...more)
  return parseCertificate(decodePem(readFileSync(file(`${name}.pem`), 'utf8'), 'CERTIFICATE', 1)[0])
}

const p256 = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256']

/** What node:crypto, that is OpenSSL, reads out of the same certificate. */
function agreesWithNode(c: Certificate): void {
  const theirs = new X509Certificate(c.der)
  expect(hexOf(c.serial).replace(/^00/, '').toUpperCase()).toBe(theirs.serialNumber.replace(/^0(?=.$)/, '0'))
  expect(c.notBefore * 1000).toBe(Date.parse(theirs.validFrom))
  expect(c.notAfter * 1000).toBe(Date.parse(theirs.validTo))
  expect(c.isCa).toBe(theirs.ca)
  expect(hexOf(c.spki)).toBe(theirs.publicKey.export({ type: 'spki', format: 'der' }).toString('hex'))
  expect(verifyNow(c.spki, c.signatureAlgorithm, c.tbs, c.signature)).toBe(theirs.verify(theirs.publicKey))
  const lines = theirs.subject.split('\n').map(line => line.slice(line.indexOf('=') + 1))
  for (const oid of [COMMON_NAME, SERIAL_NUMBER, ORGANIZATION]) {
    const value = nameAttribute(c.subject, oid)
    if (value !== null) expect(lines).toContain(value)
  }
}

describe('certificates of openssl', () => {
  it('of every algorithm, read alike and verified', () => {
    for (const [name, key, algorithm, bits, signature] of [
      ['p256', p256, 'P-256', 256, 'ecdsa-sha256'],
      ['p384', ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384', '-sha384'], 'P-384', 384, 'ecdsa-sha384'],
      ['p521', ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-521', '-sha512'], 'P-521', 521, 'ecdsa-sha512'],
      ['rsa', ['-newkey', 'rsa:2048'], 'RSA', 2048, 'rsa-pkcs1-sha256'],
      [
        'pss',
        ['-newkey', 'rsa:3072', '-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:digest'],
        'RSA',
        3072,
        'rsa-pss-sha256',
      ],
      [
        'pss512',
        ['-newkey', 'rsa:2048', '-sha512', '-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:digest'],
        'RSA',
        2048,
        'rsa-pss-sha512',
      ],
      ['ed25519', ['-newkey', 'ed25519'], 'Ed25519', 256, 'ed25519'],
    ] as [string, string[], string, number, string][]) {
      const c = selfSigned(name, key, ['-subj', `/O=Maker/CN=${name}/serialNumber=sn-${name}`])
      expect([name, c.keyAlgorithm, c.keyBits, c.signatureAlgorithm]).toEqual([name, algorithm, bits, signature])
      expect(verifyNow(c.spki, c.signatureAlgorithm, c.tbs, c.signature)).toBe(true)
      expect(hexOf(c.subjectKeyId as Uint8Array)).toBe(hexOf(c.authorityKeyId as Uint8Array))
      agreesWithNode(c)
    }
  })

  it('names print as openssl prints them', () => {
    const c = selfSigned('name', p256, ['-utf8', '-subj', '/C=DE/O=A, "B" + C/OU=x/CN=Gerät #1/emailAddress=a@b.example'])
    const theirs = openssl('x509', '-in', 'name.pem', '-noout', '-subject', '-nameopt', 'RFC2253,-esc_msb,utf8').toString()
    expect(nameText(c.subject)).toBe(theirs.trim().replace(/^subject= ?/, ''))
  })

  it('an IDevID chain: root, issuing CA, device', () => {
    selfSigned('root', p256, [
      '-subj',
      '/CN=root',
      '-addext',
      'basicConstraints=critical,CA:TRUE',
      '-addext',
      'keyUsage=critical,keyCertSign',
    ])
    const issue = (name: string, subject: string, by: string, extensions: string) => {
      writeFileSync(file(`${name}.ext`), extensions)
      openssl('req', '-new', ...p256, '-nodes', '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', subject)
      openssl(
        'x509',
        '-req',
        '-in',
        `${name}.csr`,
        '-CA',
        `${by}.pem`,
        '-CAkey',
        `${by}.key`,
        '-extfile',
        `${name}.ext`,
        '-out',
        `${name}.pem`,
        '-days',
        '9',
        '-set_serial',
        '0x1f2e',
      )
      return parseCertificate(decodePem(readFileSync(file(`${name}.pem`)), 'CERTIFICATE', 1)[0])
    }
    const ca = issue(
      'ca',
      '/CN=issuing',
      'root',
      'basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n',
    )
    const device = issue(
      'device',
      '/O=Maker/serialNumber=dev-7',
      'ca',
      'keyUsage=critical,digitalSignature\nauthorityKeyIdentifier=keyid\nsubjectAltName=otherName:1.3.6.1.5.5.7.8.4;SEQUENCE:hw\n[hw]\na=OID:1.3.6.1.4.1.99999.1\nb=FORMAT:HEX,OCT:0a0b\n',
    )
    agreesWithNode(ca)
    agreesWithNode(device)
    const root = parseCertificate(decodePem(readFileSync(file('root.pem')), 'CERTIFICATE', 1)[0])
    const answers: unknown[] = []
    const rules = {
      anchors: [anchorOf(root)],
      time: device.notBefore + 60,
      algorithms: defaultAlgorithms,
      purpose: null,
      understoodCritical: [],
      depthMax: 2,
      signaturesMax: 2,
    }
    checkBirthCertificate(device, [ca], rules, nodeVerify, (error, birth) =>
      answers.push(
        error ?? [
          birth?.serialNumber,
          oidText(birth?.hardwareModuleName?.type ?? ''),
          hexOf(birth?.hardwareModuleName?.serial ?? new Uint8Array()),
          birth?.path.length,
        ],
      ),
    )
    expect(answers).toEqual([['dev-7', '1.3.6.1.4.1.99999.1', '0a0b', 3]])
    // OpenSSL agrees on the path.
    expect(openssl('verify', '-CAfile', 'root.pem', '-untrusted', 'ca.pem', 'device.pem').toString()).toContain('OK')
  })

  it('[F11] the twin of an ECDSA signature is the same certificate to us: same TBS, same path', () => {
    const c = selfSigned('twin', p256, ['-subj', '/CN=twin', '-addext', 'keyUsage=critical,keyCertSign'])
    const order = BigInt('0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551')
    const length = c.signature[3]
    const r = c.signature.subarray(0, 4 + length)
    const s = BigInt(`0x${hexOf(c.signature.subarray(4 + length + 2))}`)
    const other = (order - s).toString(16).padStart(64, '0')
    const signature = encodeSequence([r.subarray(2), encodeUnsigned(Buffer.from(other, 'hex'))])
    const twin = parseCertificate(
      encodeSequence([c.tbs, Buffer.from('300a06082a8648ce3d040302', 'hex'), encodeElement(3, [new Uint8Array(1), signature])]),
    )
    expect(hexOf(twin.der)).not.toBe(hexOf(c.der))
    expect(verifyNow(c.spki, twin.signatureAlgorithm, twin.tbs, twin.signature)).toBe(true)
    expect([hexOf(twin.tbs), hexOf(twin.serial), hexOf(twin.spki)]).toEqual([hexOf(c.tbs), hexOf(c.serial), hexOf(c.spki)])
    let paths = 0
    const rules = {
      anchors: [anchorOf(c)],
      time: c.notBefore,
      algorithms: defaultAlgorithms,
      purpose: null,
      understoodCritical: [],
      depthMax: 0,
      signaturesMax: 1,
    }
    for (const leaf of [c, twin]) validatePath(leaf, [], rules, nodeVerify, error => (paths += error ? 0 : 1))
    expect(paths).toBe(2)
  })
})

describe('certificates of @peculiar/x509', () => {
  it('read to the same values', async () => {
    const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
    const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair
    const theirs = await peculiar.X509CertificateGenerator.createSelfSigned({
      serialNumber: '0102030405',
      name: 'CN=Test, O=Maker',
      notBefore: new Date('2024-02-29T12:00:00Z'),
      notAfter: new Date('2051-01-01T00:00:00Z'),
      keys,
      signingAlgorithm: algorithm,
      extensions: [
        new peculiar.BasicConstraintsExtension(true, 2, true),
        new peculiar.KeyUsagesExtension(peculiar.KeyUsageFlags.keyCertSign | peculiar.KeyUsageFlags.digitalSignature, true),
        new peculiar.ExtendedKeyUsageExtension(['1.3.6.1.5.5.7.3.2']),
        new peculiar.SubjectAlternativeNameExtension([
          { type: 'dns', value: 'a.example' },
          { type: 'ip', value: '10.1.2.3' },
          { type: 'url', value: 'spiffe://t/x' },
        ]),
        await peculiar.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ],
    })
    const ours = parseCertificate(new Uint8Array(theirs.rawData))
    expect(hexOf(ours.serial)).toBe(theirs.serialNumber)
    expect([ours.notBefore * 1000, ours.notAfter * 1000]).toEqual([theirs.notBefore.getTime(), theirs.notAfter.getTime()])
    expect(hexOf(ours.spki)).toBe(Buffer.from(theirs.publicKey.rawData).toString('hex'))
    expect(hexOf(ours.signature).length).toBeGreaterThan(130)
    expect([ours.isCa, ours.pathLength, ours.keyUsage]).toEqual([true, 2, 1 | 32])
    expect(ours.extendedKeyUsage?.map(oidText)).toEqual(['1.3.6.1.5.5.7.3.2'])
    expect(ours.subjectAltNames.map(n => [n.tag, Buffer.from(n.value).toString('latin1')])).toEqual([
      [2, 'a.example'],
      [7, '\n\x01\x02\x03'],
      [6, 'spiffe://t/x'],
    ])
    expect(ours.extensions.map(e => oidText(e.oid))).toEqual(theirs.extensions.map(e => e.type))
    agreesWithNode(ours)
  })

  it('and their requests', async () => {
    const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
    const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair
    const theirs = await peculiar.Pkcs10CertificateRequestGenerator.create({
      name: 'CN=dev',
      keys,
      signingAlgorithm: algorithm,
      attributes: [new peculiar.ChallengePasswordAttribute('secret')],
      extensions: [new peculiar.BasicConstraintsExtension(true, undefined, true)],
    })
    const ours = parseCsr(new Uint8Array(theirs.rawData))
    expect([nameText(ours.subject), challengePassword(ours)]).toEqual(['CN=dev', 'secret'])
    expect(requestedExtensions(ours)).toMatchObject([{ oid: BASIC_CONSTRAINTS, critical: true }])
    expect(verifyNow(ours.spki, ours.signatureAlgorithm, ours.info, ours.signature)).toBe(true)
  })
})

describe('ours, read by others', () => {
  const subject = encodeName([
    { oid: ORGANIZATION, value: 'Mäker, Inc.' },
    { oid: COMMON_NAME, value: 'dev_1' },
    { oid: SERIAL_NUMBER, value: 'dev_1' },
    { oid: EMAIL_ADDRESS, value: 'a@b.example' },
  ])

  it('a request of every key type: openssl finds the signature good and the names right', () => {
    for (const [make, algorithm, hash] of [
      [() => generateKeyPairSync('ec', { namedCurve: 'P-256' }), 'ecdsa-sha256', 'sha256'],
      [() => generateKeyPairSync('ec', { namedCurve: 'P-384' }), 'ecdsa-sha384', 'sha384'],
      [() => generateKeyPairSync('rsa', { modulusLength: 2048 }), 'rsa-pkcs1-sha256', 'sha256'],
      [() => generateKeyPairSync('ed25519'), 'ed25519', null],
    ] as [() => { privateKey: KeyObject; publicKey: KeyObject }, string, string | null][]) {
      const { privateKey, publicKey } = make()
      const spki = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
      const password = encodeAttribute(CHALLENGE_PASSWORD, [encodeElement(0x0c, [utf8Bytes('binding')])])
      const extensions = encodeAttribute(EXTENSION_REQUEST, [
        encodeSequence([Buffer.from('300f0603551d130101ff040530030101ff', 'hex')]),
      ])
      // The shorter first is DER's order here: their second octets are their lengths.
      const info = csrInfo(subject, spki, [password, extensions])
      const csr = csrAssemble(info, algorithm, new Uint8Array(sign(hash, info, privateKey)))
      writeFileSync(file('ours.csr'), encodePem('CERTIFICATE REQUEST', csr))
      const text = openssl('req', '-in', 'ours.csr', '-noout', '-verify', '-text', '-nameopt', 'RFC2253,-esc_msb,utf8').toString()
      expect(text).toContain('CN=dev_1,O=Mäker\\, Inc.')
      expect(text).toContain('CA:TRUE')
    }
  })

  it('a certs-only message: openssl pkcs7 prints each certificate', () => {
    const certificates = ['one', 'two', 'three'].map(name => selfSigned(`cms-${name}`, p256, ['-subj', `/CN=${name}`]))
    writeFileSync(file('ours.p7'), encodeCertsOnly(certificates.map(c => c.der)))
    const text = openssl('pkcs7', '-inform', 'DER', '-in', 'ours.p7', '-print_certs').toString()
    expect(text.match(/subject=.*/g)?.map(line => line.replace(/\s/g, ''))).toEqual([
      'subject=CN=one',
      'subject=CN=two',
      'subject=CN=three',
    ])
    expect(decodePem(text, 'CERTIFICATE', 3).map(hexOf)).toEqual(certificates.map(c => hexOf(c.der)))
    // And openssl's own message by us.
    openssl('crl2pkcs7', '-nocrl', '-certfile', 'cms-one.pem', '-certfile', 'cms-two.pem', '-outform', 'DER', '-out', 'theirs.p7')
    expect(parseCertsOnly(readFileSync(file('theirs.p7'))).map(hexOf)).toEqual(certificates.slice(0, 2).map(c => hexOf(c.der)))
  })
})
