// SCEP with programs that nobody here wrote: certmonger enrolls, renews and changes its key; BouncyCastle sends BER as jscep does; OpenSSL and pkijs
// read what we write and write what we read; micromdm's scepclient, which knows SHA-1 and DES alone, reads why it gets nothing.

import { createPrivateKey, webcrypto, X509Certificate } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { hexOf, parseCertificate } from '@birthmark/device-sdk/core'
import * as asn1js from 'asn1js'
import * as pkijs from 'pkijs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readCertRep, scepCsr, scepMessage, selfSigned, signerOf } from '../support/scep-client.ts'
import { rsaKey, type ScepServer, startScepServer } from '../support/scep-server.ts'
import { available, run } from './debian.ts'

let server: ScepServer
let folder: string
const file = (name: string) => join(folder, name)
const pem = (der: Uint8Array) => new X509Certificate(der).toString()

beforeAll(async () => {
  server = await startScepServer({ more: [{ label: 'waits', approval: 'first' }] })
  folder = mkdtempSync(join(tmpdir(), 'birthmark-scep-'))
  writeFileSync(file('ra.pem'), server.raPair.certificate)
  writeFileSync(file('ra.key.pem'), server.raPair.key)
  writeFileSync(file('root.pem'), server.root.pem)
  writeFileSync(file('chain.pem'), `${server.issuing.pem}${server.root.pem}`)
})
afterAll(async () => {
  await server.stop()
  rmSync(folder, { recursive: true, force: true })
})

describe.skipIf(!available({ certmonger: 'certmonger', getcert: 'certmonger', 'dbus-run-session': 'dbus' }))('certmonger', () => {
  /** Runs `commands` beside a certmonger of its own in `state`, which knows the CA `birthmark` at `url`. */
  async function beside(state: string, url: string, commands: string): Promise<string> {
    for (const name of ['requests', 'cas', 'local', 'out']) mkdirSync(join(state, name), { recursive: true })
    writeFileSync(join(state, 'certmonger.conf'), '')
    const script = `
cd ${state}
export CERTMONGER_CONFIG_DIR=${state} CERTMONGER_REQUESTS_DIR=${state}/requests CERTMONGER_CAS_DIR=${state}/cas
export CERTMONGER_LOCAL_CA_DIR=${state}/local CERTMONGER_TMPDIR=${state} CERTMONGER_SYSTEM_LOCK_FILE=${state}/lock
certmonger -s -n > log 2>&1 &
daemon=$!
# Asking certmonger itself before it is on the bus makes the bus start another one, in root's own folders.
for i in $(seq 40); do dbus-send --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.NameHasOwner string:org.fedorahosted.certmonger | grep -q true && break; sleep 0.5; done
getcert add-scep-ca -s -c birthmark -u ${url} -R ${file('root.pem')}
for i in 1 2 3 4 5 6 7 8 9 10; do getcert list-cas -s -c birthmark | grep -q thumbprint && break; sleep 0.5; done
${commands}
kill $daemon
wait $daemon
`
    return (await run('dbus-run-session', ['--', 'bash', '-c', script])).stdout
  }

  it('enrolls by a challenge, renews by its certificate, changes its key, and reads a refusal', async () => {
    const state = file('certmonger')
    const challenge = await server.challenge('gateway-1')
    const stdout = await beside(
      state,
      `${server.url}/scep`,
      `getcert request -s -c birthmark -I first -k out/key.pem -f out/cert.pem -N CN=gateway-1 -L ${challenge} -w
cp out/cert.pem out/1.pem
getcert resubmit -s -i first -w
cp out/cert.pem out/2.pem
getcert rekey -s -i first -w
cp out/cert.pem out/3.pem
getcert request -s -c birthmark -I second -k out/key2.pem -f out/cert2.pem -N CN=gateway-2 -L WRONGWRONG -w
getcert list -s`,
    )
    const got = ['1', '2', '3'].map(n => new X509Certificate(readFileSync(join(state, 'out', `${n}.pem`))))
    expect(new Set(got.map(c => c.serialNumber)).size, stdout).toBe(3)
    for (const certificate of got) {
      expect(certificate.subject).toContain('CN=gateway-1')
      expect(certificate.verify(new X509Certificate(server.issuing.certificate).publicKey)).toBe(true)
    }
    expect(got[1].publicKey.equals(got[0].publicKey)).toBe(true)
    expect(got[2].publicKey.equals(got[0].publicKey)).toBe(false)
    expect(stdout).toMatch(/status: CA_REJECTED[\s\S]*not permitted or is not supported/)
  })

  it('polls while a person has not decided: a certificate after yes, a rejection after no', async () => {
    const state = file('certmonger-waits')
    const [yes, no] = [await server.challenge('gateway-7', 'waits'), await server.challenge('gateway-8', 'waits')]
    const list = () => server.approvals.list({ state: 'waiting', limit: 10 })
    const running = beside(
      state,
      `${server.url}/scep/waits`,
      `getcert request -s -c birthmark -I yes -k out/key.pem -f out/cert.pem -N CN=gateway-7 -L ${yes}
getcert request -s -c birthmark -I no -k out/key2.pem -f out/cert2.pem -N CN=gateway-8 -L ${no}
for i in $(seq 120); do test -e ${state}/decided && break; sleep 0.5; done
getcert list -s > waiting
# It would ask again by itself within a week.
getcert refresh -s -i yes
getcert refresh -s -i no
for i in $(seq 60); do getcert list -s > after; grep -q MONITORING after && grep -q CA_REJECTED after && break; sleep 0.5; done
cat waiting after`,
    )
    await expect.poll(async () => (await list()).length, { timeout: 60_000 }).toBe(2)
    for (const { id, deviceId } of await list())
      await server.approvals.decide({ id, approve: deviceId === 'gateway-7', by: 'ann', reason: 'unknown unit' })
    writeFileSync(join(state, 'decided'), '')
    const stdout = await running
    expect(stdout).toMatch(/status: CA_WORKING/)
    expect(stdout).toMatch(/status: MONITORING/)
    expect(stdout).toMatch(/status: CA_REJECTED/)
    expect(new X509Certificate(readFileSync(join(state, 'out', 'cert.pem'))).subject).toContain('CN=gateway-7')
  })
})

const jars = ['bcpkix', 'bcprov', 'bcutil'].map(name => `/usr/share/java/${name}.jar`)
const java = {
  java: 'default-jdk-headless',
  javac: 'default-jdk-headless',
  ...Object.fromEntries(jars.map(jar => [jar, 'libbcpkix-java'])),
}

describe.skipIf(!available(java))('BouncyCastle', () => {
  it('enrolls in BER with indefinite lengths, and reads success and failure', async () => {
    await run('javac', ['-cp', jars.join(':'), '-d', folder, join(import.meta.dirname, 'java', 'ScepDriver.java')])
    const drive = async (id: string, challenge: string, cipher: string, hash: string) =>
      (
        await run('java', [
          '-cp',
          [folder, ...jars].join(':'),
          'ScepDriver',
          `${server.url}/scep`,
          file('ra.pem'),
          id,
          challenge,
          cipher,
          hash,
        ])
      ).stdout.trim()
    expect(await drive('java-1', await server.challenge('java-1'), 'AES128', 'SHA256withRSA')).toMatch(/^0 .*CN=java-1/)
    expect(await drive('java-2', await server.challenge('java-2'), 'AES256', 'SHA512withRSA')).toMatch(/^0 .*CN=java-2/)
    expect(await drive('java-3', await server.challenge('java-3'), 'AES256', 'SHA256withRSAandMGF1')).toMatch(/^0 .*CN=java-3/)
    expect(await drive('java-4', 'WRONG', 'AES128', 'SHA256withRSA')).toBe('2 2')
    expect(await drive('java-5', 'WRONG', 'AES128', 'SHA1withRSA')).toBe('2 0')
  })
})

describe.skipIf(!available({ openssl: 'openssl' }))('openssl', () => {
  const openssl = (...args: string[]) => run('openssl', args, { cwd: folder })

  it('reads every answer: cms -verify, cms -decrypt, pkcs7 -print_certs', async () => {
    for (const [i, form] of (
      [{}, { cipher: 'aes-256-cbc', pss: true }, { cipher: 'aes-256-gcm', transport: { kind: 'oaep', digest: 'sha256' } }] as const
    ).entries()) {
      const id = `openssl-${i}`
      const key = rsaKey()
      const { message } = server.request(id, await server.challenge(id), key, form)
      const { body } = await server.post(message)
      writeFileSync(file('rep.der'), body)
      writeFileSync(file('key.pem'), key.privateKey.export({ type: 'pkcs8', format: 'pem' }))
      // The answer is addressed to the certificate that signed; a version 1 one is good enough for that.
      writeFileSync(file('signer.der'), selfSignedOf(message))
      await openssl(
        'cms',
        '-verify',
        '-inform',
        'DER',
        '-in',
        'rep.der',
        '-CAfile',
        'chain.pem',
        '-purpose',
        'any',
        '-binary',
        '-out',
        'envelope.der',
      )
      await openssl('cms', '-decrypt', '-inform', 'DER', '-in', 'envelope.der', '-inkey', 'key.pem', '-binary', '-out', 'certs.der')
      const { stdout } = await openssl('pkcs7', '-inform', 'DER', '-in', 'certs.der', '-print_certs')
      expect(stdout).toContain(`CN = ${id}`)
    }
    const waits = server.request('openssl-waits', await server.challenge('openssl-waits', 'waits'))
    const answers = {
      failure: await server.post(server.request('openssl', 'WRONG').message),
      pending: await server.post(waits.message, '/scep/waits'),
      malformed: await server.post(Uint8Array.of(1)),
    }
    for (const [name, { body }] of Object.entries(answers)) {
      writeFileSync(file(`${name}.der`), body)
      await openssl('cms', '-verify', '-inform', 'DER', '-in', `${name}.der`, '-CAfile', 'chain.pem', '-purpose', 'any')
    }
  })

  it('writes envelopes that are read, streamed in BER among them', async () => {
    const kinds = [
      ['-aes128'],
      ['-aes256', '-stream'],
      ['-aes-256-gcm'],
      ['-aes128', '-keyopt', 'rsa_padding_mode:oaep', '-keyopt', 'rsa_oaep_md:sha256'],
    ]
    for (const [i, [cipher, ...more]] of kinds.entries()) {
      const id = `from-openssl-${i}`
      const key = rsaKey()
      writeFileSync(file('csr.der'), scepCsr(key, id, await server.challenge(id)))
      const options = more.includes('-keyopt') ? ['-recip', 'ra.pem', ...more] : [...more, '-recip', 'ra.pem']
      await openssl('cms', '-encrypt', '-binary', cipher, '-in', 'csr.der', '-outform', 'DER', '-out', 'csr.p7', ...options)
      const made = readFileSync(file('csr.p7'))
      if (more.includes('-stream')) expect(made[1]).toBe(0x80)
      const rep = await server.ask(server.request(id, null, key, { bend: () => made }).message, key.privateKey)
      expect(rep.status, kinds[i].join(' ')).toBe('success')
    }
  })

  it('reads what GetCACert gives, and the RA chains to the issuing CA', async () => {
    const answer = await fetch(`${server.url}/scep?operation=GetCACert`)
    writeFileSync(file('ca.der'), new Uint8Array(await answer.arrayBuffer()))
    const { stdout } = await openssl('pkcs7', '-inform', 'DER', '-in', 'ca.der', '-print_certs')
    expect(stdout.match(/subject=/g)).toHaveLength(3)
    await openssl('verify', '-CAfile', 'chain.pem', 'ra.pem')
  })
})

/** The certificate inside a message of ours. */
function selfSignedOf(message: Uint8Array): Uint8Array {
  const content = pkijs.ContentInfo.fromBER(new Uint8Array(message))
  const [certificate] = new pkijs.SignedData({ schema: content.content }).certificates ?? []
  return new Uint8Array((certificate as pkijs.Certificate).toSchema().toBER())
}

describe.skipIf(!available({ scepclient: 'scep' }))('scepclient', () => {
  it('[F31] which signs with SHA-1 and encrypts with DES whatever the server says, is told badAlg in a message it verifies', async () => {
    const fingerprint = new X509Certificate(server.ra.der).fingerprint256.replaceAll(':', '')
    const challenge = await server.challenge('micro-1')
    const args = [
      '-server-url',
      `${server.url}/scep`,
      '-challenge',
      challenge,
      '-cn',
      'micro-1',
      '-private-key',
      file('micro.key'),
      '-certificate',
      file('micro.pem'),
      '-ca-fingerprint',
      fingerprint,
    ]
    const before = server.signatures()
    // It says so on stdout.
    const failed = await run('scepclient', args).catch(error => (error as { cause: { stdout: string } }).cause.stdout)
    expect(failed).toMatch(/failInfo: badAlg/)
    expect(server.signatures()).toBe(before)
  })
})

describe('pkijs', () => {
  const engine = new pkijs.CryptoEngine({ name: 'node', crypto: webcrypto as never })
  pkijs.setEngine('node', engine)
  const oid = (n: number) => `2.16.840.1.113733.1.9.${n}`

  it('writes a request that is answered, and reads the answer', async () => {
    const key = rsaKey()
    const self = pkijs.Certificate.fromBER(new Uint8Array(server.ra.der))
    const envelope = new pkijs.EnvelopedData()
    envelope.addRecipientByCertificate(self, { oaepHashAlgorithm: 'SHA-256' })
    await envelope.encrypt(
      { name: 'AES-CBC', length: 256 } as never,
      new Uint8Array(scepCsr(key, 'pki-1', await server.challenge('pki-1'))).buffer,
    )
    const sealed = new pkijs.ContentInfo({ contentType: '1.2.840.113549.1.7.3', content: envelope.toSchema() }).toSchema().toBER()

    const signerDer = server.issuing.issue({
      ...{ profile: 'client' as const, subject: parseCertificate(server.ra.der).subject, spki: key.spki },
      ...{ notBefore: 1_700_000_000, notAfter: 4_000_000_000 },
    })
    // Any certificate for the occasion will do that does not name our issuer.
    const certificate = pkijs.Certificate.fromBER(new Uint8Array(signerDer))
    certificate.issuer = certificate.subject
    const privateKey = await webcrypto.subtle.importKey(
      'pkcs8',
      key.privateKey.export({ type: 'pkcs8', format: 'der' }),
      { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' },
      true,
      ['sign'],
    )
    await certificate.sign(privateKey as never, 'SHA-256')
    const digest = await webcrypto.subtle.digest('SHA-256', sealed)
    const attribute = (type: string, value: asn1js.AsnType) => new pkijs.Attribute({ type, values: [value] })
    const signed = new pkijs.SignedData({
      version: 1,
      encapContentInfo: new pkijs.EncapsulatedContentInfo({
        eContentType: '1.2.840.113549.1.7.1',
        eContent: new asn1js.OctetString({ valueHex: sealed }),
      }),
      signerInfos: [
        new pkijs.SignerInfo({
          version: 1,
          sid: new pkijs.IssuerAndSerialNumber({ issuer: certificate.issuer, serialNumber: certificate.serialNumber }),
          signedAttrs: new pkijs.SignedAndUnsignedAttributes({
            type: 0,
            attributes: [
              attribute('1.2.840.113549.1.9.3', new asn1js.ObjectIdentifier({ value: '1.2.840.113549.1.7.1' })),
              attribute('1.2.840.113549.1.9.4', new asn1js.OctetString({ valueHex: digest })),
              attribute(oid(2), new asn1js.PrintableString({ value: '19' })),
              attribute(oid(7), new asn1js.PrintableString({ value: 'pkijs-1' })),
              attribute(oid(5), new asn1js.OctetString({ valueHex: webcrypto.getRandomValues(new Uint8Array(16)).buffer })),
            ],
          }),
        }),
      ],
      certificates: [certificate],
    })
    await signed.sign(privateKey as never, 0, 'SHA-256')
    const message = new pkijs.ContentInfo({ contentType: '1.2.840.113549.1.7.2', content: signed.toSchema(true) })
      .toSchema()
      .toBER()
    const { body } = await server.post(new Uint8Array(message))
    const rep = readCertRep(body, server.ra.der, key.privateKey)
    expect([rep.status, rep.failInfoText]).toEqual(['success', null])

    // pkijs verifies the signature and decrypts the envelope: it came by OAEP and goes back so.
    const answer = new pkijs.SignedData({ schema: pkijs.ContentInfo.fromBER(new Uint8Array(body)).content })
    expect(await answer.verify({ signer: 0, trustedCerts: [], checkChain: false })).toBe(true)
    const content = answer.encapContentInfo.eContent?.getValue() as ArrayBuffer
    const opened = new pkijs.EnvelopedData({ schema: pkijs.ContentInfo.fromBER(content).content })
    const plain = await opened.decrypt(0, {
      recipientCertificate: certificate,
      recipientPrivateKey: key.privateKey.export({ type: 'pkcs8', format: 'der' }).buffer as ArrayBuffer,
    })
    expect(hexOf(new Uint8Array(plain))).toBe(hexOf(rep.content ?? new Uint8Array(0)))
  })

  it('reads the messages that our test client writes', async () => {
    const key = rsaKey()
    const { message } = scepMessage({
      ...{
        messageType: '19',
        content: scepCsr(key, 'x', 'y'),
        ra: server.ra,
        transport: { kind: 'oaep' as const, digest: 'sha256' as const },
      },
      signer: signerOf(
        server.issuing.issue({
          profile: 'client',
          subject: parseCertificate(server.ra.der).subject,
          spki: key.spki,
          notBefore: 1_700_000_000,
          notAfter: 4_000_000_000,
        }),
        key.privateKey,
      ),
    })
    const signed = new pkijs.SignedData({ schema: pkijs.ContentInfo.fromBER(new Uint8Array(message)).content })
    expect(await signed.verify({ signer: 0, trustedCerts: [], checkChain: false })).toBe(true)
    const envelope = new pkijs.EnvelopedData({
      schema: pkijs.ContentInfo.fromBER(signed.encapContentInfo.eContent?.getValue() as ArrayBuffer).content,
    })
    const der = createPrivateKey(server.raPair.key).export({ type: 'pkcs8', format: 'der' })
    const plain = await envelope.decrypt(0, {
      recipientCertificate: pkijs.Certificate.fromBER(new Uint8Array(server.ra.der)),
      recipientPrivateKey: new Uint8Array(der).buffer,
    })
    expect(hexOf(new Uint8Array(plain))).toBe(hexOf(scepCsr(key, 'x', 'y')))
    expect(pem(server.ra.der)).toContain('BEGIN')
    expect(selfSigned(key, 'x').length).toBeGreaterThan(400)
  })
})
