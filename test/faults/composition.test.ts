// What the whole server must hold that no part can: whom its broker admits, and whom it believes when the broker is another's.

import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tls from 'node:tls'
import { systemClock } from '@birthmark/fleet-revocation'
import mqtt from 'mqtt'
import { afterEach, expect, test } from 'vitest'
import { compose } from '../../packages/birthmark/src/compose.ts'
import type { Settings } from '../../packages/birthmark/src/configuration.ts'
import { prepareDevelopment } from '../../packages/birthmark/src/development.ts'
import { openBroker } from '../../packages/birthmark/src/listening.ts'
import { type Credential, createTestAuthority, type TestAuthority } from '../../packages/fleet-revocation/src/testing/authority.ts'
import { quietLog } from '../../packages/fleet-revocation/src/testing/memory-bus.ts'
import { until } from '../support/broker.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

async function developmentSettings(): Promise<Settings> {
  const folder = mkdtempSync(join(tmpdir(), 'bm-'))
  cleanups.push(() => rmSync(folder, { recursive: true }))
  const ports = { estPort: 0, mqttPort: 0 }
  return (await prepareDevelopment({ folder, host: '127.0.0.1', ...ports, lifetimeSeconds: 86_400, random: randomBytes })).settings
}

const software = (pem: string) => ({ kind: 'software' as const, pem, passphrase: null })

async function start(issuing: TestAuthority, root: TestAuthority, previous: TestAuthority[]) {
  const issuer = {
    certificates: [issuing.der, root.der],
    previous: previous.map(({ der }) => [der]),
    links: [],
    next: null,
    key: software(issuing.keyPem),
  }
  const settings = { ...(await developmentSettings()), issuer }
  const ports = { clock: systemClock, random: randomBytes, log: quietLog, onFatal: () => {} }
  const running = await compose(settings, ports)
  cleanups.push(() => running.close())
  return (id: string, { keyPem, certPem }: Credential): Promise<'admitted' | string> =>
    new Promise(resolve => {
      const client = mqtt.connect(running.mqtt, {
        ...{ clientId: id, key: keyPem, cert: certPem, reconnectPeriod: 0 },
        // Who the server is, is another test's question.
        rejectUnauthorized: false,
      })
      cleanups.push(() => client.endAsync(true))
      client.once('connect', () => resolve('admitted'))
      client.once('error', error => resolve(error.message))
      client.once('close', () => resolve('closed'))
    })
}

test('the broker admits what its own issuers signed, and no other CA under their root or under them', async () => {
  const root = createTestAuthority('root')
  const [issuing, earlier, sibling] = ['issuing', 'earlier', 'sibling'].map(name => root.intermediate(name))
  const below = issuing.intermediate('below the issuing CA')
  let idx = 0
  const device = (authority: TestAuthority) => authority.device('dev-1', { fleet: 'dev', idx: ++idx, gids: [] })

  const connect = await start(issuing, root, [earlier])
  expect(await connect('dev-1', device(issuing))).toBe('admitted')
  expect(await connect('dev-1', device(earlier))).toBe('admitted')
  // Ended at the handshake: no path.
  expect(await connect('dev-1', device(sibling))).toBe('closed')
  expect(await connect('dev-1', device(root))).toBe('closed')
  // A path, but indices and groups that are nobody's of ours.
  expect(await connect('dev-1', device(below))).toContain('Not authorized')
})

test('an external broker is believed under the configured anchors, and under no CA that the machine trusts besides', async () => {
  const [own, other] = [createTestAuthority('the broker’s CA'), createTestAuthority('a CA of the system')]
  const trusted = tls.getCACertificates('default')
  tls.setDefaultCACertificates([...trusted, other.certPem])
  cleanups.push(() => tls.setDefaultCACertificates(trusted))
  const settings = await developmentSettings()
  for (const [authority, admitted] of [
    [own, true],
    [other, false],
  ] as const) {
    const { keyPem, certPem } = authority.server()
    // CONNACK to whatever comes: all that a broker is here.
    const server = tls.createServer({ key: keyPem, cert: certPem }, socket => {
      socket.on('error', () => {})
      socket.once('data', () => socket.write(Buffer.from([0x20, 2, 0, 0])))
    })
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    cleanups.push(() => server.close())
    const url = `mqtts://localhost:${(server.address() as AddressInfo).port}`
    const problems: string[] = []
    const warn = ({ err }: { err?: NodeJS.ErrnoException }): void => void problems.push(err?.code ?? '')
    const external = { kind: 'external', url, anchors: own.certPem, certificate: null, key: null, enforce: null } as const
    const ports = { clock: systemClock, random: randomBytes, log: { ...quietLog, warn }, onFatal: () => {} }
    const { bus, close } = await openBroker({ ...settings, mqtt: external }, [], () => 'good', ports)
    cleanups.push(close)
    const said = () =>
      bus.publish('a', new Uint8Array(1), { qos: 0, retain: false }).then(
        () => true,
        () => false,
      )
    if (admitted) await until(said, 'something is published')
    else await until(() => problems.length > 0, 'the connection fails')
    expect(await said()).toBe(admitted)
    if (!admitted) expect(problems[0]).toMatch(/SELF_SIGNED|UNABLE_TO|ISSUER/)
  }
})
