// BouncyCastle's EST client against the real server: the client that most Java gateways and many device-management agents embed. It shows its
// credentials only to a 401, reads answers by Content-Length, and follows RFC 7030 to the letter.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createListener } from '@birthmark/est-server'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { bear, manufacturer, type TestDevice, type TestManufacturer } from '../support/devices.ts'
import { startEstServer, type TestServer } from '../support/est-server.ts'
import { available, run } from './debian.ts'

const jars = ['bcpkix', 'bcprov', 'bctls', 'bcutil'].map(name => `/usr/share/java/${name}.jar`)
const needs = {
  java: 'default-jdk-headless',
  javac: 'default-jdk-headless',
  openssl: 'openssl',
  ...Object.fromEntries(jars.map(jar => [jar, jar.includes('bctls') ? 'libbctls-java' : 'libbcpkix-java'])),
}

describe.skipIf(!available(needs))('BouncyCastle', () => {
  let folder: string
  let maker: TestManufacturer
  let server: TestServer
  const devices: TestDevice[] = []

  interface Step {
    version?: 'TLSv1.2' | 'TLSv1.3'
    out?: string
    subject?: string
    /** File names without .pem and .key of what opens TLS. */
    client?: string
    user?: string
    password?: string
    port?: number
  }

  /** One run of the driver: the lines it printed. */
  async function drive(command: string, step: Step = {}): Promise<string[]> {
    const { version = 'TLSv1.3', out = 'out', subject = 'CN=x', client, user = '-', password = '-', port = server.port } = step
    const identity = client ? [`${client}.pem`, `${client}.pem.key`] : ['-', '-']
    const args = [
      '-cp',
      [folder, ...jars].join(':'),
      'EstDriver',
      command,
      version,
      String(port),
      'root.pem',
      `${out}.pem`,
      subject,
    ]
    const { stdout } = await run('java', [...args, ...identity, user, password], { cwd: folder })
    return stdout.trim().split('\n')
  }

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'birthmark-bc-'))
    await run('javac', ['-cp', jars.join(':'), '-d', folder, join(import.meta.dirname, 'java', 'EstDriver.java')])
    maker = await manufacturer()
    for (const serial of ['bc-12', 'bc-13', 'bc-key', 'bc-bound']) devices.push(await bear(maker, serial))
    server = await startEstServer(maker, { devices, admitSecrets: true, profile: { serverKeys: 'plain' } })
    writeFileSync(join(folder, 'root.pem'), server.identity.rootPem)
    writeFileSync(join(folder, 'operational-root.pem'), server.issuerRootPem)
    for (const device of [...devices, await bear(maker, 'bc-unlisted')]) {
      writeFileSync(join(folder, `${device.serial}.pem`), device.cert)
      writeFileSync(join(folder, `${device.serial}.pem.key`), device.key)
    }
  })
  afterAll(async () => {
    await server?.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  const verify = (name: string) =>
    run(
      'openssl',
      ['verify', '-purpose', 'sslclient', '-CAfile', 'operational-root.pem', '-untrusted', `${name}.pem`, `${name}.pem`],
      { cwd: folder },
    )

  test('[RFC 7030 4.1] cacerts', async () => {
    expect((await drive('cacerts')).sort()).toEqual(['ca CN=Test operational CA', 'ca CN=Test operational root', 'trusted true'])
  })

  test('[RFC 7030 4.5] csrattrs: extensions in the list, and the template that it does not know beside them', async () => {
    const asked = ['asks 1.2.840.113549.1.9.14', 'asks 1.2.840.113549.1.9.16.2.61']
    expect((await drive('csrattrs')).sort()).toEqual(asked)
    expect((await drive('csrattrs', { client: 'bc-13' })).sort()).toEqual(asked)
  })

  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    '[RFC 7030 4.2] over %s it enrolls by birth certificate and renews by what it got',
    async version => {
      const unit = version === 'TLSv1.2' ? 'bc-12' : 'bc-13'
      const first = await drive('enroll', { version, out: `${unit}-first`, subject: `SERIALNUMBER=${unit}`, client: unit })
      expect(first[0]).toMatch(new RegExp(`^issued .*${unit}`))
      await verify(`${unit}-first`)
      const second = await drive('reenroll', { version, out: `${unit}-second`, client: `${unit}-first` })
      expect(second[0]).toBe(first[0])
      await verify(`${unit}-second`)
    },
  )

  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    '[RFC 7030 3.2.3] over %s it shows a one-time secret to the challenge',
    async version => {
      const { user, password } = await server.registry.mintSecret({
        deviceId: `bc-secret-${version}`,
        lifetimeSeconds: 600,
        by: 'test',
      })
      const subject = `SERIALNUMBER=${user}`
      const before = server.signatures()
      const wrong = await drive('enroll', { version, subject, user, password: 'guess' })
      expect(wrong[0]).toMatch(/^refused 401 /)
      expect(server.signatures()).toBe(before)
      expect((await drive('enroll', { version, out: user, subject, user, password }))[0]).toMatch(/^issued /)
      await verify(user)
    },
  )

  test('[RFC 7030 3.5] a CSR that carries the session’s tls-unique, where the profile demands one; and none without it', async () => {
    const strict = await startEstServer(maker, {
      devices: devices.filter(device => device.serial === 'bc-bound'),
      profile: { possession: 'channel' },
    })
    writeFileSync(join(folder, 'root.pem'), strict.identity.rootPem)
    try {
      const step = { version: 'TLSv1.2', subject: 'SERIALNUMBER=bc-bound', client: 'bc-bound', port: strict.port } as const
      expect((await drive('enroll', step))[0]).toMatch(/^refused 4\d\d .*/)
      expect(strict.signatures()).toBe(0)
      expect((await drive('bound', { ...step, out: 'bc-bound-issued' }))[0]).toMatch(/^issued .*bc-bound/)
    } finally {
      writeFileSync(join(folder, 'root.pem'), server.identity.rootPem)
      await strict.stop()
    }
  })

  test('[RFC 7030 4.4] serverkeygen: it reads the two parts, and the key is the certificate’s', async () => {
    const [line] = await drive('serverkeygen', {
      version: 'TLSv1.2',
      out: 'bc-made',
      subject: 'SERIALNUMBER=bc-key',
      client: 'bc-key',
    })
    expect(line).toMatch(/^issued .*bc-key/)
    await verify('bc-made')
    const [of, key] = await Promise.all([
      run('openssl', ['x509', '-in', 'bc-made.pem', '-noout', '-pubkey'], { cwd: folder }),
      run('openssl', ['pkey', '-in', 'bc-made.pem.key', '-pubout'], { cwd: folder }),
    ])
    expect(key.stdout).toBe(of.stdout)
  })

  test('[RFC 7030 4.2.3] a 202 is understood as: later', async () => {
    const listener = createListener({
      tls: server.identity,
      enrollment: { enroll: async () => ({ kind: 'pending', retryAfterSeconds: 30 }), caCertificates: () => [] },
      log: { info: () => {}, warn: () => {}, error: () => {} },
      requestId: () => 'r',
    })
    const { port } = await listener.listen('127.0.0.1', 0)
    expect(await drive('enroll', { subject: 'SERIALNUMBER=bc-13', client: 'bc-13', port })).toEqual(['pending true'])
    await listener.close(0)
  })

  test('a refusal reaches the caller as its status', async () => {
    expect((await drive('enroll', { subject: 'SERIALNUMBER=bc-unlisted', client: 'bc-unlisted' }))[0]).toMatch(/^refused 403 /)
    expect((await drive('reenroll', { client: 'bc-12' }))[0]).toMatch(/^refused 403 /)
  })
})
