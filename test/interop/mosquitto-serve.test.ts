// `birthmark serve` beside Debian's mosquitto: the server commands the broker's plugin and keeps its revocation lists, and `birthmark revoke` on the
// operator's machine ends a session there. Nothing but the configuration joins the two.

import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { acknowledgementTopic, encodeAcknowledgement } from '@birthmark/fleet-revocation'
import {
  connectMqttBus,
  mosquittoAccess,
  mosquittoConfiguration,
  mosquittoDynamicSecurity,
} from '@birthmark/fleet-revocation/broker'
import mqtt, { type MqttClient } from 'mqtt'
import { afterEach, describe, expect, it } from 'vitest'
import { createTestAuthority } from '../../packages/fleet-revocation/src/testing/authority.ts'
import { quietLog } from '../../packages/fleet-revocation/src/testing/memory-bus.ts'
import { ended, until } from '../support/broker.ts'
import { birthmark } from '../support/command.ts'
import { freePort, listens } from '../support/ports.ts'
import { type Enrolled, prepareServing } from '../support/serving.ts'
import { available } from './debian.ts'

const present = available({ mosquitto: 'mosquitto' })
const cleanups: (() => unknown)[] = []

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

async function prepare() {
  const path = mkdtempSync(join(tmpdir(), 'bm-mosquitto-'))
  cleanups.push(() => rmSync(path, { recursive: true, force: true }))
  // mosquitto gives up root for a user of its own, who writes the dynamic security file.
  chmodSync(path, 0o777)
  const write = (name: string, text: string): string => {
    writeFileSync(join(path, name), text, { mode: 0o644 })
    return join(path, name)
  }
  const [services, servers] = [createTestAuthority('services'), createTestAuthority('servers')]
  const [publisher, enforcer, server] = [services.service('publisher@acme'), services.service('enforcer@acme'), servers.server()]
  const [port, servicePort, statusPort] = [await freePort(), await freePort(), await freePort()]
  const secret = (name: string, pem: string): string => {
    const file = write(name, pem)
    chmodSync(file, 0o600)
    return file
  }
  const mqttPart = `mqtt:
  url: mqtts://localhost:${servicePort}
  anchors: ${write('servers.pem', servers.certPem)}
  certificate: ${write('publisher.pem', publisher.certPem)}
  key: ${secret('publisher.key', publisher.keyPem)}
  enforce:
    kind: mosquitto
    certificate: ${write('enforcer.pem', enforcer.certPem)}
    key: ${secret('enforcer.key', enforcer.keyPem)}
    crl: { file: ${join(path, 'devices.crl')}, pid: ${join(path, 'mosquitto.pid')} }
status:
  url: http://127.0.0.1:${statusPort}
  host: 127.0.0.1
  port: ${statusPort}

`
  const serving = await prepareServing(yaml => yaml.replace(/^mqtt:[\s\S]*?(?=^server:)/m, mqttPart))
  cleanups.push(() => serving.remove())

  const [triplet] = readdirSync('/usr/lib').filter(name => existsSync(`/usr/lib/${name}/mosquitto_dynamic_security.so`))
  const dynamicSecurity = (): string => {
    const file = write('dynamic-security.json', mosquittoDynamicSecurity('enforcer@acme'))
    chmodSync(file, 0o666)
    return file
  }
  const configuration = mosquittoConfiguration('127.0.0.1', port, {
    accessFile: write('access', mosquittoAccess('acme', { 'publisher@acme': 'publisher', 'billing@acme': 'relying-party' })),
    dynamicSecurityFile: dynamicSecurity(),
    plugin: `/usr/lib/${triplet}/mosquitto_dynamic_security.so`,
    caFile: write('devices.pem', readFileSync(join(serving.folder, 'issuer', 'chain.pem'), 'utf8')),
    certificateFile: write('server.pem', server.certPem),
    keyFile: write('server.key', server.keyPem),
    crl: { file: join(path, 'devices.crl'), servicePort, serviceCaFile: write('services.pem', services.certPem) },
  })
  const conf = write('mosquitto.conf', `pid_file ${join(path, 'mosquitto.pid')}\n${configuration}`)

  return {
    path,
    serving,
    dynamicSecurity,
    /** What a service says at the broker. */
    async saidAs(name: string, topic: string, payload: Uint8Array): Promise<void> {
      const { certPem: cert, keyPem: key } = services.service(name)
      const tls = { ca: [servers.certPem], cert, key }
      const bus = connectMqttBus({ url: `mqtts://localhost:${servicePort}`, clientId: name, tls, log: quietLog })
      await until(() => bus.connected(), `${name} is connected`)
      await bus.publish(topic, payload, { qos: 1, retain: true })
      await bus.close()
    },
    async launch(): Promise<() => Promise<void>> {
      const child: ChildProcess = spawn('mosquitto', ['-c', conf], {
        stdio: 'ignore',
        env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
      })
      const over = new Promise<void>(resolve => child.once('close', () => resolve()))
      const stop = async (): Promise<void> => {
        child.kill()
        await over
      }
      cleanups.push(stop)
      await until(() => listens(port), 'mosquitto listens')
      return stop
    },
    /** Rejects when the broker does not let it in. */
    connect(id: string, { cert, key }: Enrolled): Promise<MqttClient> {
      return new Promise((resolve, reject) => {
        const url = `mqtts://localhost:${port}`
        const client = mqtt.connect(url, { clientId: id, ca: [servers.certPem], cert, key, reconnectPeriod: 0 })
        cleanups.push(() => client.endAsync(true))
        client.once('connect', () => resolve(client))
        client.once('error', reject)
        client.once('close', () => reject(new Error('closed')))
      })
    },
  }
}

describe.skipIf(!present)('birthmark serve with a mosquitto outside', () => {
  it('[F12] [F43] [F54] cuts and refuses there whom birthmark revoke names, leaves the neighbour, and says it again after a restart', async () => {
    const { serving, path, launch, connect, dynamicSecurity } = await prepare()
    const works = async (id: string, client: MqttClient): Promise<boolean> => {
      const heard = new Promise<boolean>(resolve => client.once('message', () => resolve(true)))
      await client.subscribeAsync(`devices/${id}/loop`, { qos: 1 })
      await client.publishAsync(`devices/${id}/loop`, 'x', { qos: 1 })
      return heard
    }
    const refused = (id: string, identity: Enrolled): Promise<boolean> =>
      connect(id, identity).then(
        client => client.endAsync(true).then(() => false),
        () => true,
      )
    const crl = join(path, 'devices.crl')
    const inLine = (from: { stderr(): string }) => until(() => from.stderr().includes('is in line with this server'), 'in line')
    const start = async () => {
      const program = await serving.start()
      let stderr = ''
      program.child.stderr?.on('data', part => (stderr += String(part)))
      return { ...program, stderr: () => stderr }
    }

    const first = await start()
    // It serves and writes the lists before there is a broker, which does not start without them.
    await until(() => existsSync(crl), 'the lists are written')
    const early = await serving.enroll('gw-1', ['batch=a'])
    const stopBroker = await launch()
    await inLine(first)
    const neighbour = await serving.enroll('gw-2', ['batch=b'])
    const [one, two] = [await connect('gw-1', early), await connect('gw-2', neighbour)]
    expect([await works('gw-1', one), await works('gw-2', two)]).toEqual([true, true])
    copyFileSync(crl, `${crl}.before`)

    const cli = (...args: string[]) => birthmark(...args, '--dir', serving.state, '--json')
    const over = ended(one)
    const dry = await cli('revoke', 'batch=a', '--reason', 'keys leaked', '--dry-run')
    const { digest } = dry.json[0].plan as { digest: string }
    expect(await cli('revoke', 'batch=a', '--reason', 'keys leaked', '--yes', '--plan', digest)).toMatchObject({ code: 0 })
    await over
    await until(() => refused('gw-1', early), 'its handshake is refused')
    expect(two.connected && (await works('gw-2', two))).toBe(true)

    // One device by itself, enrolled while the broker ran.
    const single = await serving.enroll('gw-3', ['batch=b'])
    const three = await connect('gw-3', single)
    const cut = ended(three)
    expect(await cli('revoke', '--device', 'gw-3', '--reason', 'stolen', '--yes')).toMatchObject({ code: 0 })
    await cut
    await until(() => refused('gw-3', single), 'so is this one')
    expect(two.connected).toBe(true)

    // A broker that was restored from yesterday, while the server was down: the revoked are back.
    await first.stop('SIGTERM')
    await stopBroker()
    dynamicSecurity()
    copyFileSync(`${crl}.before`, crl)
    await launch()
    const [oneAgain, twoAgain, threeAgain] = [
      await connect('gw-1', early),
      await connect('gw-2', neighbour),
      await connect('gw-3', single),
    ]
    const bothOver = Promise.all([ended(oneAgain), ended(threeAgain)])
    const second = await start()
    await bothOver
    await inLine(second)
    await until(async () => (await refused('gw-1', early)) && (await refused('gw-3', single)), 'both are refused again')
    expect(twoAgain.connected && (await works('gw-2', twoAgain))).toBe(true)
  })

  it('waits for a retired relying party no more, over its restarts, once the operator has it forgotten', async () => {
    const { serving, path, launch, saidAs } = await prepare()
    const first = await serving.start()
    await until(() => existsSync(join(path, 'devices.crl')), 'the lists are written')
    await launch()
    await serving.enroll('gw-1')
    const name = 'billing@acme'
    await saidAs(
      name,
      acknowledgementTopic('acme', name),
      encodeAcknowledgement({ relyingParty: name, seq: 1, appliedAt: 1_700_000_000, sessionsClosed: 0 }),
    )
    const cli = (...args: string[]) => birthmark('revoke', ...args, '--dir', serving.state, '--json')
    const parties = async () => (await cli('parties')).json.map(line => line.name)
    await until(async () => (await parties()).includes(name), 'its word is heard')
    const { administration } = serving
    const { id, planSha256 } = await administration.planCampaign({
      ...{ select: 'id=gw-1', reason: 'lost in a bus', windowSeconds: 0, by: 'alice' },
    })
    await administration.submitCampaign({ id, planSha256, by: 'alice', signature: null })
    const waits = await cli('watch', id, '--wait', '1')
    expect(waits).toMatchObject({ code: 4, stderr: expect.stringContaining(`0 of 1 relying parties, without ${name}`) })
    expect(waits.stderr).toContain(`if a relying party is retired: birthmark revoke parties --forget ${name} --dir `)

    expect(await cli('parties', '--forget', 'bulling@acme')).toMatchObject({ code: 3 })
    expect(await cli('parties', '--forget', name)).toMatchObject({ code: 0, json: [{ name, forgotten: true }] })
    expect(await cli('watch', id, '--wait', '20')).toMatchObject({ code: 0 })
    await first.stop('SIGTERM')
    await serving.start()
    expect(await cli('watch', id, '--wait', '20')).toMatchObject({ code: 0 })
    expect(await parties()).toEqual([])
  })
})
