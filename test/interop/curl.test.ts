// curl speaks EST, openssl makes and judges everything cryptographic: manufacturer, birth certificate, CSR, and the verdict on what was issued.
// Nothing here was encoded or parsed by our own code but the server under test.

import { createHash, createPublicKey } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startEstServer, type TestServer } from '../support/est-server.ts'
import { available, run } from './debian.ts'

describe.skipIf(!available({ curl: 'curl', openssl: 'openssl' }))('curl and openssl', () => {
  let folder: string
  let server: TestServer
  const at = (name: string) => join(folder, name)
  const read = (name: string) => readFileSync(at(name), 'utf8')
  const openssl = (...args: string[]) => run('openssl', args, { cwd: folder })

  async function key(name: string): Promise<void> {
    await openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', `${name}.key`)
  }

  /** A certificate under `issuer`, by way of openssl's own CSR. */
  async function certify(name: string, subject: string, issuer: string, extensions: string): Promise<void> {
    await key(name)
    await openssl('req', '-new', '-key', `${name}.key`, '-subj', subject, '-out', `${name}.csr`)
    writeFileSync(at(`${name}.ext`), extensions)
    const by = ['-CA', `${issuer}.pem`, '-CAkey', `${issuer}.key`, '-CAcreateserial', '-extfile', `${name}.ext`]
    await openssl('x509', '-req', '-in', `${name}.csr`, ...by, '-days', '3650', '-out', `${name}.pem`)
  }

  async function born(serial: string): Promise<void> {
    await certify(
      serial,
      `/O=Maker/serialNumber=${serial}`,
      'issuing',
      'keyUsage=critical,digitalSignature\nauthorityKeyIdentifier=keyid\n',
    )
    writeFileSync(at(`${serial}.chain`), read(`${serial}.pem`) + read('issuing.pem'))
  }

  async function curl(...args: string[]): Promise<{ status: number; headers: string; body: string }> {
    const { stdout } = await run(
      'curl',
      ['-sS', '-m', '30', '--cacert', 'server-root.pem', '-D', 'headers', '-w', '\n%{http_code}', ...args],
      { cwd: folder },
    )
    const cut = stdout.lastIndexOf('\n')
    return { status: Number(stdout.slice(cut + 1)), headers: read('headers'), body: stdout.slice(0, cut) }
  }

  const enrollWith = (csr: string) => ['-H', 'Content-Type: application/pkcs10', '--data-binary', `@${csr}`]
  const client = (chain: string, name: string) => ['--cert', chain, '--key', name]

  /** Base64 of certs-only PKCS#7 → `name.pem`, the issued certificate first, then its chain. */
  async function unpack(body: string, name: string): Promise<void> {
    writeFileSync(at(`${name}.p7.b64`), body)
    await openssl('base64', '-d', '-in', `${name}.p7.b64`, '-out', `${name}.p7`)
    await openssl('pkcs7', '-inform', 'DER', '-in', `${name}.p7`, '-print_certs', '-out', `${name}.pem`)
  }

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'birthmark-curl-'))
    await key('root')
    await openssl('req', '-x509', '-new', '-key', 'root.key', '-subj', '/O=Maker/CN=Root', '-days', '3650', '-out', 'root.pem')
    const ca = 'basicConstraints=critical,CA:true,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n'
    await certify('issuing', '/O=Maker/CN=Issuing', 'root', ca)
    const units = ['curl-12', 'curl-13', 'curl-body']
    for (const unit of units) await born(unit)
    const der = await openssl('x509', '-in', 'root.pem', '-outform', 'DER', '-out', 'root.der').then(() =>
      readFileSync(at('root.der')),
    )
    server = await startEstServer(
      { root: { certificate: new Uint8Array(der) } },
      {
        admitSecrets: true,
        devices: units.map(serial => {
          const spki = createPublicKey(read(`${serial}.key`)).export({ type: 'spki', format: 'der' })
          return {
            manifest: {
              serial,
              spkiSha256: createHash('sha256').update(spki).digest('hex'),
              groups: ['model=gw-2'],
              keyOrigin: 'device',
            },
          }
        }),
      },
    )
    writeFileSync(at('server-root.pem'), server.identity.rootPem)
    writeFileSync(at('operational-root.pem'), server.issuerRootPem)
  })
  afterAll(async () => {
    await server?.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  test.each(['1.2', '1.3'])('[RFC 7030 4.2] over TLS %s a birth certificate enrolls and its successor renews', async version => {
    const unit = `curl-${version.replace('1.', '1')}`
    const tls = [`--tlsv${version}`, '--tls-max', version]
    await key('operational')
    await openssl('req', '-new', '-key', 'operational.key', '-subj', `/serialNumber=${unit}`, '-outform', 'DER', '-out', 'csr.der')
    await openssl('base64', '-in', 'csr.der', '-out', 'csr.b64')
    const enrolled = await curl(
      ...tls,
      ...client(`${unit}.chain`, `${unit}.key`),
      ...enrollWith('csr.b64'),
      `${server.url}/.well-known/est/simpleenroll`,
    )
    expect(enrolled.status, enrolled.body).toBe(200)
    expect(enrolled.headers).toMatch(/content-type: application\/pkcs7-mime; smime-type=certs-only\r\n/i)
    await unpack(enrolled.body, 'operational')
    await openssl(
      'verify',
      '-x509_strict',
      '-purpose',
      'sslclient',
      '-CAfile',
      'operational-root.pem',
      '-untrusted',
      'operational.pem',
      'operational.pem',
    )
    const { stdout: text } = await openssl(
      'x509',
      '-in',
      'operational.pem',
      '-noout',
      '-subject',
      '-ext',
      'extendedKeyUsage,keyUsage',
    )
    expect(text).toContain(`serialNumber = ${unit}`)
    expect(text).toContain('TLS Web Client Authentication')
    const own = await openssl('pkey', '-in', 'operational.key', '-pubout')
    expect((await openssl('x509', '-in', 'operational.pem', '-noout', '-pubkey')).stdout).toBe(own.stdout)

    // Renewal: the subject is the certificate's, the key another one; PEM, as openssl writes it by itself.
    await key('next')
    await openssl('x509', '-x509toreq', '-in', 'operational.pem', '-signkey', 'next.key', '-out', 'next.csr')
    writeFileSync(at('next.csr'), read('next.csr').slice(read('next.csr').indexOf('-----BEGIN')))
    const renewed = await curl(
      ...tls,
      ...client('operational.pem', 'operational.key'),
      ...enrollWith('next.csr'),
      `${server.url}/.well-known/est/simplereenroll`,
    )
    expect(renewed.status, renewed.body).toBe(200)
    await unpack(renewed.body, 'next')
    await openssl('verify', '-purpose', 'sslclient', '-CAfile', 'operational-root.pem', '-untrusted', 'next.pem', 'next.pem')
  })

  test('[RFC 7030 4.1] cacerts gives the issuer and its root to anybody', async () => {
    const { status, body } = await curl(`${server.url}/.well-known/est/cacerts`)
    expect(status).toBe(200)
    await unpack(body, 'cacerts')
    expect(read('cacerts.pem').match(/-----BEGIN CERTIFICATE-----/g)?.length).toBe(2)
    expect(read('cacerts.pem')).toContain('CN = Test operational CA')
  })

  test('[RFC 8951 3.1] a body in one line, and one sent in chunks', async () => {
    await key('body')
    await openssl('req', '-new', '-key', 'body.key', '-subj', '/serialNumber=curl-body', '-outform', 'DER', '-out', 'body.der')
    await openssl('base64', '-A', '-in', 'body.der', '-out', 'body.b64')
    const answers = []
    for (const more of [
      [],
      ['-H', 'Transfer-Encoding: chunked'],
      ['-H', 'Expect: 100-continue'],
      ['-H', 'Content-Transfer-Encoding: base64'],
    ])
      answers.push(
        await curl(
          ...client('curl-body.chain', 'curl-body.key'),
          ...more,
          ...enrollWith('body.b64'),
          `${server.url}/.well-known/est/simpleenroll`,
        ),
      )
    expect(answers.map(answer => answer.status)).toEqual([200, 200, 200, 200])
    expect(new Set(answers.map(answer => answer.body)).size).toBe(1)
  })

  test('[RFC 7030 3.2.3] a one-time secret is shown after the challenge, and serves once', async () => {
    const { user, password } = await server.registry.mintSecret({ deviceId: 'curl-secret', lifetimeSeconds: 600, by: 'test' })
    await key('secret')
    await openssl('req', '-new', '-key', 'secret.key', '-subj', `/serialNumber=${user}`, '-out', 'secret.csr')
    const credentials = ['--anyauth', '--user', `${user}:${password}`]
    const url = `${server.url}/.well-known/est/simpleenroll`
    const enrolled = await curl(...credentials, ...enrollWith('secret.csr'), url)
    expect(enrolled.status, enrolled.body).toBe(200)
    expect(enrolled.headers.match(/^HTTP\/1\.1 \d+/gm)).toEqual(['HTTP/1.1 401', 'HTTP/1.1 200'])
    expect(enrolled.headers).toMatch(/www-authenticate: Basic realm=/i)
    await unpack(enrolled.body, 'secret')
    await openssl('verify', '-purpose', 'sslclient', '-CAfile', 'operational-root.pem', '-untrusted', 'secret.pem', 'secret.pem')
    await key('thief')
    await openssl('req', '-new', '-key', 'thief.key', '-subj', `/serialNumber=${user}`, '-out', 'thief.csr')
    const stolen = await curl(...credentials, ...enrollWith('thief.csr'), url)
    expect([stolen.status, stolen.body.split(':')[0]]).toEqual([401, 'secret_used'])
  })

  test('a refusal says in plain text what was wrong and what to do', async () => {
    await born('unlisted')
    await openssl('req', '-new', '-key', 'unlisted.key', '-subj', '/serialNumber=unlisted', '-out', 'unlisted.csr')
    const refused = await curl(
      ...client('unlisted.chain', 'unlisted.key'),
      ...enrollWith('unlisted.csr'),
      `${server.url}/.well-known/est/simpleenroll`,
    )
    expect(refused.status).toBe(403)
    expect(refused.headers).toMatch(/content-type: text\/plain/i)
    expect(refused.body).toMatch(/^device_unknown: .*unlisted.*\nNext: Import the manifest that lists it\.\n$/)
  })

  test('an IP literal as server name, against RFC 6066 3, is served as no name is', async () => {
    for (const version of ['-tls1_2', '-tls1_3']) {
      const { stdout } = await run(
        'openssl',
        [
          ...[
            's_client',
            '-connect',
            `127.0.0.1:${server.port}`,
            version,
            '-servername',
            '127.0.0.1',
            '-CAfile',
            'server-root.pem',
          ],
          '-quiet',
        ],
        { cwd: folder, input: 'GET /.well-known/est/cacerts HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' },
      )
      expect(stdout).toMatch(/^HTTP\/1\.1 200 OK/)
    }
  })

  test('[F12] openssl s_client resumes no session', async () => {
    for (const version of ['-tls1_2', '-tls1_3']) {
      const { stdout } = await run(
        'openssl',
        ['s_client', '-connect', `localhost:${server.port}`, version, '-reconnect', '-CAfile', 'server-root.pem'],
        {
          cwd: folder,
          input: '',
        },
      )
      expect(stdout).toMatch(/^New, TLS/m)
      expect(stdout).not.toMatch(/^Reused/m)
    }
  })
})
