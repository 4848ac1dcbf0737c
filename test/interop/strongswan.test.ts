// strongSwan's EST client (`pki --estca`, `pki --est` of Debian's 5.9.8): a VPN gateway's. It reads base64 of one line only, wants Content-Length and
// numeric Retry-After, and asks for the CA certificates before each enrollment.

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decodePem, hexOf, nameText, parseCertificate } from '@birthmark/device-sdk/core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { manufacturer } from '../support/devices.ts'
import { startEstServer, type TestServer } from '../support/est-server.ts'
import { available, run } from './debian.ts'

describe.skipIf(!available({ pki: 'strongswan-pki', openssl: 'openssl' }))('strongSwan', () => {
  let folder: string
  let server: TestServer
  const pki = (...args: string[]) => run('pki', args, { cwd: folder })
  const openssl = (...args: string[]) => run('openssl', args, { cwd: folder })
  const written = (name: string) => parseCertificate(decodePem(readFileSync(join(folder, name), 'utf8'), 'CERTIFICATE', 1)[0])

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'birthmark-strongswan-'))
    server = await startEstServer(await manufacturer(), { admitSecrets: true, profile: { bodyInOneLine: true } })
    writeFileSync(join(folder, 'root.pem'), server.identity.rootPem)
    writeFileSync(join(folder, 'operational-root.pem'), server.issuerRootPem)
  })
  afterAll(async () => {
    await server?.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  async function csr(name: string, device: string): Promise<void> {
    await openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', `${name}.key`)
    await openssl(
      'req',
      '-new',
      '-key',
      `${name}.key`,
      '-subj',
      `/CN=${device}/serialNumber=${device}`,
      '-outform',
      'DER',
      '-out',
      `${name}.csr`,
    )
  }

  test('[RFC 7030 4.1] pki --estca takes the issuer and its root', async () => {
    await pki('--estca', '--url', server.url, '--cacert', 'root.pem', '--caout', 'ca.pem', '--outform', 'pem')
    const names = readdirSync(folder)
      .filter(name => /^ca.*\.pem$/.test(name))
      .map(name => nameText(written(name).subject))
    expect(names.sort()).toEqual(['CN=Test operational CA', 'CN=Test operational root'])
  })

  test('[RFC 7030 4.2.1, 4.2.2] pki --est enrolls by a one-time secret and renews by what it got', async () => {
    const { user, password } = await server.registry.mintSecret({ deviceId: 'gateway-1', lifetimeSeconds: 600, by: 'test' })
    await csr('first', user)
    const trust = ['--url', server.url, '--cacert', 'root.pem', '--cacert', 'ca.pem', '--cacert', 'ca-1.pem', '--outform', 'pem']
    const { stdout } = await pki('--est', ...trust, '--in', 'first.csr', '--userpass', `${user}:${password}`)
    writeFileSync(join(folder, 'first.pem'), stdout)
    expect(nameText(written('first.pem').subject)).toContain('gateway-1')
    await csr('second', user)
    const renewed = await pki('--est', ...trust, '--in', 'second.csr', '--cert', 'first.pem', '--key', 'first.key')
    writeFileSync(join(folder, 'second.pem'), renewed.stdout)
    expect(hexOf(written('second.pem').serial)).not.toBe(hexOf(written('first.pem').serial))
    expect((await openssl('x509', '-in', 'second.pem', '-noout', '-pubkey')).stdout).toBe(
      (await openssl('pkey', '-in', 'second.key', '-pubout')).stdout,
    )
  })

  test('a wrong password is refused', async () => {
    await csr('thief', 'gateway-2')
    const before = server.signatures()
    await expect(
      pki(
        '--est',
        '--url',
        server.url,
        '--cacert',
        'root.pem',
        '--cacert',
        'ca.pem',
        '--in',
        'thief.csr',
        '--userpass',
        'gateway-2:guess',
      ),
    ).rejects.toThrow(/401|failed/)
    expect(server.signatures()).toBe(before)
  })
})
