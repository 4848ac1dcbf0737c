// nginx in front of the server: it ends the devices' TLS and says by header whose certificate it saw, over a connection that it opens with its own.

import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { challengePassword, decodePem, encodeBase64, parseCsr } from '@birthmark/device-sdk/core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { bear, manufacturer, request, type TestDevice } from '../support/devices.ts'
import { startEstServer, type TestServer } from '../support/est-server.ts'
import { available, run } from './debian.ts'

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as { port: number }
  await new Promise<void>(done => server.close(() => done()))
  return port
}

describe.skipIf(!available({ nginx: 'nginx-light', openssl: 'openssl', curl: 'curl' }))('nginx as a proxy', () => {
  let folder: string
  let server: TestServer
  let nginx: ChildProcess
  let port: number
  const devices: Record<string, TestDevice> = {}
  const at = (name: string) => join(folder, name)
  const openssl = (...args: string[]) => run('openssl', args, { cwd: folder })

  /** A CA, and a client certificate under it, by openssl. */
  async function clientOf(ca: string, name: string): Promise<void> {
    const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
    await openssl('req', '-x509', ...ec, '-keyout', `${ca}.key`, '-out', `${ca}.pem`, '-subj', `/CN=${ca}`, '-days', '30')
    await openssl('req', '-new', ...ec, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`)
    writeFileSync(
      at('client.ext'),
      'extendedKeyUsage=clientAuth\nkeyUsage=critical,digitalSignature\nbasicConstraints=critical,CA:false\n',
    )
    const by = ['-CA', `${ca}.pem`, '-CAkey', `${ca}.key`, '-CAcreateserial', '-extfile', 'client.ext', '-days', '30']
    await openssl('x509', '-req', '-in', `${name}.csr`, ...by, '-out', `${name}.pem`)
  }

  async function curl(target: string, ...args: string[]): Promise<{ status: number; body: string }> {
    const { stdout } = await run(
      'curl',
      ['-sS', '-m', '30', '--cacert', 'server-root.pem', '-w', '\n%{http_code}', ...args, target],
      {
        cwd: folder,
      },
    )
    const cut = stdout.lastIndexOf('\n')
    return { status: Number(stdout.slice(cut + 1)), body: stdout.slice(0, cut) }
  }
  const identity = (name: string) => ['--cert', `${name}.pem`, '--key', `${name}.key`]
  const through = () => `https://localhost:${port}/.well-known/est`
  async function csrFile(serial: string): Promise<string[]> {
    const { csr } = await request(serial)
    writeFileSync(at('csr.b64'), encodeBase64(csr, 64))
    return ['-H', 'Content-Type: application/pkcs10', '--data-binary', '@csr.b64']
  }

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'birthmark-nginx-'))
    await clientOf('proxy-ca', 'edge-1')
    await clientOf('other-ca', 'edge-2')
    // The right name under the wrong CA, and the wrong name under the right one.
    await openssl('req', '-new', '-key', 'edge-2.key', '-subj', '/CN=edge-1', '-out', 'posing.csr')
    await openssl(
      'x509',
      '-req',
      '-in',
      'posing.csr',
      '-CA',
      'other-ca.pem',
      '-CAkey',
      'other-ca.key',
      '-CAcreateserial',
      ...['-extfile', 'client.ext', '-out', 'posing.pem'],
    )
    await openssl('req', '-new', '-key', 'edge-2.key', '-subj', '/CN=edge-9', '-out', 'unnamed.csr')
    await openssl(
      'x509',
      '-req',
      '-in',
      'unnamed.csr',
      '-CA',
      'proxy-ca.pem',
      '-CAkey',
      'proxy-ca.key',
      '-CAcreateserial',
      ...['-extfile', 'client.ext', '-out', 'unnamed.pem'],
    )
    await openssl('req', '-new', '-key', 'edge-2.key', '-subj', '/CN=edge-5', '-out', 'edge-5.csr')
    await openssl(
      ...['x509', '-req', '-in', 'edge-5.csr', '-CA', 'proxy-ca.pem', '-CAkey', 'proxy-ca.key', '-CAcreateserial'],
      ...['-extfile', 'client.ext', '-out', 'edge-5.pem'],
    )
    for (const name of ['posing', 'unnamed', 'edge-5']) writeFileSync(at(`${name}.key`), readFileSync(at('edge-2.key')))
    const maker = await manufacturer()
    for (const serial of ['ngx-1', 'ngx-2', 'ngx-3', 'ngx-4']) {
      devices[serial] = await bear(maker, serial)
      writeFileSync(at(`${serial}.pem`), devices[serial].cert)
      writeFileSync(at(`${serial}.key`), devices[serial].key)
    }
    const [anchor] = decodePem(readFileSync(at('proxy-ca.pem')), 'CERTIFICATE', 1)
    server = await startEstServer(maker, {
      devices: Object.values(devices),
      admitSecrets: true,
      proxies: [
        { anchors: [anchor], names: ['edge-1'], header: 'X-SSL-Client-Cert' },
        { anchors: [anchor], names: ['edge-5'], header: 'Client-Cert' },
      ],
      // nginx forwards the leaf alone: the CA above it is what the profile has to trust.
      profile: { birthAnchors: [maker.root.certificate, maker.issuing.certificate] },
    })
    writeFileSync(at('server-root.pem'), server.identity.rootPem)
    writeFileSync(at('server.pem'), server.identity.cert)
    writeFileSync(at('server.key'), server.identity.key)
    port = await freePort()
    writeFileSync(
      at('nginx.conf'),
      `daemon off; pid ${at('nginx.pid')}; error_log ${at('error.log')}; worker_processes 1; ${process.getuid?.() === 0 ? 'user root;' : ''}
events { worker_connections 64; }
http {
  access_log off;
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(kind => `${kind}_temp_path ${at(kind)};`).join(' ')}
  server {
    listen 127.0.0.1:${port} ssl;
    ssl_certificate ${at('server.pem')}; ssl_certificate_key ${at('server.key')};
    ssl_verify_client optional_no_ca;
    location / {
      proxy_pass https://localhost:${server.port};
      proxy_ssl_certificate ${at('edge-1.pem')}; proxy_ssl_certificate_key ${at('edge-1.key')};
      proxy_ssl_trusted_certificate ${at('server-root.pem')}; proxy_ssl_verify on; proxy_ssl_verify_depth 3; proxy_ssl_name localhost;
      proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;
      proxy_set_header Client-Cert ""; proxy_set_header Client-Cert-Chain "";
      proxy_set_header X-Forwarded-For $remote_addr;
    }
  }
}
`,
    )
    chmodSync(folder, 0o700)
    nginx = spawn('/usr/sbin/nginx', ['-p', folder, '-c', at('nginx.conf')], { stdio: 'ignore' })
    for (let i = 0; i < 100; i++) {
      try {
        if ((await curl(`${through()}/cacerts`)).status === 200) break
      } catch {
        await new Promise(done => setTimeout(done, 100))
      }
    }
  }, 60_000)
  afterAll(async () => {
    if (nginx && nginx.exitCode === null) {
      const ended = new Promise(done => nginx.once('exit', done))
      nginx.kill('SIGTERM')
      await ended
    }
    await server?.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  test('[F15] a device enrolls through it by its birth certificate, and renews by what it got', async () => {
    const enrolled = await curl(
      `${through()}/simpleenroll`,
      ...identity('ngx-1'),
      ...(await csrFile('ngx-1')),
      '-H',
      'Accept: application/pem-certificate-chain',
    )
    expect(enrolled.status, enrolled.body).toBe(200)
    expect(enrolled.body).toContain('BEGIN CERTIFICATE')
    const records = await server.store.audit(0, 100)
    expect(records.find(entry => entry.kind === 'certificate_issued')).toMatchObject({ device: 'ngx-1', by: '127.0.0.1' })
  })

  test('[F15] without a certificate it is a stranger, and the certificate of the proxy stands for nobody', async () => {
    const before = server.signatures()
    expect((await curl(`${through()}/simpleenroll`, ...(await csrFile('ngx-2')))).status).toBe(401)
    expect((await curl(`${through()}/simpleenroll`, ...identity('edge-1'), ...(await csrFile('ngx-2')))).status).toBe(401)
    const { user, password } = await server.registry.mintSecret({ deviceId: 'ngx-9', lifetimeSeconds: 600, by: 'test' })
    expect((await curl(`${through()}/simpleenroll`, '-u', `${user}:${password}`, ...(await csrFile('ngx-9')))).status).toBe(200)
    expect(server.signatures()).toBe(before + 1)
  })

  const direct = () => `https://localhost:${server.port}/.well-known/est/simpleenroll`
  const escaped = (serial: string) => `X-SSL-Client-Cert: ${encodeURIComponent(devices[serial].cert)}`
  const structured = (serial: string) => `Client-Cert: :${Buffer.from(devices[serial].birth).toString('base64')}:`

  test('[F15] forged headers count from nobody: no certificate, a device, the wrong name, the wrong CA', async () => {
    const before = server.signatures()
    for (const header of [escaped('ngx-2'), structured('ngx-2')]) {
      for (const who of [[], identity('posing'), identity('unnamed'), identity('edge-2')])
        expect((await curl(direct(), ...who, '-H', header, ...(await csrFile('ngx-2')))).status).toBe(401)
      // A device that names another is itself: the name in the CSR is not its own.
      expect((await curl(direct(), ...identity('ngx-3'), '-H', header, ...(await csrFile('ngx-2')))).status).toBe(403)
      // And what a device sends through nginx, nginx overwrites.
      expect(
        (await curl(`${through()}/simpleenroll`, ...identity('ngx-3'), '-H', header, ...(await csrFile('ngx-2')))).status,
      ).toBe(403)
    }
    expect(server.signatures()).toBe(before)
  })

  test('[RFC 9440 2] Client-Cert and Client-Cert-Chain of a proxy are read as they are specified, and nothing near them', async () => {
    const ask = async (headers: string[], proxy = 'edge-5') => {
      const body = await csrFile('ngx-4')
      return curl(direct(), ...identity(proxy), ...headers.flatMap(header => ['-H', header]), ...body)
    }
    const before = server.signatures()
    const issuing = decodePem(devices['ngx-4'].cert, 'CERTIFICATE', 2)[1]
    const chain = `Client-Cert-Chain: :${Buffer.from(issuing).toString('base64')}:`
    const plain = Buffer.from(devices['ngx-4'].birth).toString('base64')
    const malformed = [
      `Client-Cert: ${plain}`,
      `Client-Cert: :${plain}`,
      'Client-Cert: ::',
      `Client-Cert: :${plain}:, :${plain}:`,
      `Client-Cert: "${plain}"`,
    ]
    for (const header of malformed) expect((await ask([header])).status, header.slice(0, 30)).toBe(400)
    for (const header of ['X-SSL-Client-Cert: %ZZ', 'X-SSL-Client-Cert: hello'])
      expect((await ask([header], 'edge-1')).status, header).toBe(400)
    expect((await ask([structured('ngx-4'), structured('ngx-3')])).status).toBe(400)
    expect((await ask([structured('ngx-4'), 'Client-Cert-Chain: x'])).status).toBe(400)
    expect(server.signatures()).toBe(before)
    expect((await ask([structured('ngx-4'), chain])).status).toBe(200)
  })

  test('[F15] a header that a proxy does not speak by is a stranger’s, although it comes from the proxy', async () => {
    const before = server.signatures()
    // What nginx passes on of a client without a certificate, when nobody told it to clear RFC 9440's header.
    const ask = async (proxy: string, ...headers: string[]) =>
      curl(direct(), ...identity(proxy), ...headers.flatMap(header => ['-H', header]), ...(await csrFile('ngx-2')))
    for (const [proxy, ...headers] of [
      ['edge-1', structured('ngx-2')],
      ['edge-1', structured('ngx-2'), escaped('ngx-2')],
      ['edge-1', 'Client-Cert-Chain: x', escaped('ngx-2')],
      ['edge-5', escaped('ngx-2')],
      ['edge-5', escaped('ngx-2'), structured('ngx-2')],
    ])
      expect((await ask(proxy, ...headers)).status, `${proxy} ${headers.length}`).toBe(400)
    expect(server.signatures()).toBe(before)
  })

  test('[F21] a CSR that names a TLS connection is refused behind it: the connection that it names ended there', async () => {
    const { csr } = await request('ngx-3')
    expect(challengePassword(parseCsr(csr))).toBeNull()
    await openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', 'bound.key')
    writeFileSync(
      at('bound.cnf'),
      `[req]\nprompt=no\ndistinguished_name=dn\nattributes=attributes\n[dn]\nserialNumber=ngx-3\n[attributes]\nchallengePassword=${Buffer.alloc(32, 7).toString('base64')}\n`,
    )
    await openssl('req', '-new', '-key', 'bound.key', '-config', 'bound.cnf', '-out', 'bound.csr')
    const body = ['-H', 'Content-Type: application/pkcs10', '--data-binary', '@bound.csr']
    const { status, body: text } = await curl(`${through()}/simpleenroll`, ...identity('ngx-3'), ...body)
    expect([status, text.split(':')[0]]).toEqual([403, 'channel_binding_mismatch'])
  })
})
