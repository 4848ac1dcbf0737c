// Debian's MQTT programs: its clients against the embedded broker, and its broker in place of ours. None of them has heard of Birthmark.

import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Bytes, type DeviceError, decodePem } from '@birthmark/device-sdk/core'
import { createPublisher, createRuleSet, encodeList, nodeVerify, type Rule, runsOf, systemClock } from '@birthmark/fleet-revocation'
import {
  connectMqttBus,
  createCrlFile,
  createMosquittoEnforcer,
  type MqttBus,
  mosquittoAccess,
  mosquittoConfiguration,
  mosquittoDynamicSecurity,
  signalReload,
} from '@birthmark/fleet-revocation/broker'
import { createDeviceReceiver } from '@birthmark/fleet-revocation/device'
import mqtt, { type MqttClient } from 'mqtt'
import { afterEach, describe, expect, it } from 'vitest'
import { type Credential, createTestAuthority } from '../../packages/fleet-revocation/src/testing/authority.ts'
import { createTestHistory } from '../../packages/fleet-revocation/src/testing/history.ts'
import { quietLog } from '../../packages/fleet-revocation/src/testing/memory-bus.ts'
import { createMemoryOutbox } from '../../packages/fleet-revocation/src/testing/memory-outbox.ts'
import { createTestNoticeKey } from '../../packages/fleet-revocation/src/testing/notice-key.ts'
import { ended, fleet, startTestBroker, until } from '../support/broker.ts'
import { freePort, listens } from '../support/ports.ts'
import { forgetsRetiredParty } from '../support/retired-party.ts'
import { available, run } from './debian.ts'

const clients = available({ mosquitto_sub: 'mosquitto-clients', mosquitto_pub: 'mosquitto-clients' })
const brokers = available({ mosquitto: 'mosquitto', mosquitto_sub: 'mosquitto-clients' })

const cleanups: (() => unknown)[] = []

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'birthmark-mosquitto-'))
  cleanups.push(() => rmSync(path, { recursive: true, force: true }))
  return path
}

interface Program {
  process: ChildProcess
  output: string
  /** Resolves with the exit code. */
  exit: Promise<number | null>
}

function start(program: string, args: string[]): Program {
  // Debian's broker is under /usr/sbin, which isn't on everybody's PATH.
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
  })
  const running: Program = { process: child, output: '', exit: new Promise(resolve => child.once('close', resolve)) }
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (data: Buffer) => (running.output += data.toString()))
  cleanups.push(async () => {
    child.kill()
    await running.exit
  })
  return running
}

function write(path: string, name: string, text: string | Uint8Array): string {
  const file = join(path, name)
  writeFileSync(file, text, { mode: 0o644 })
  return file
}

describe.skipIf(!clients)('mosquitto_sub and mosquitto_pub on the embedded broker', () => {
  it('work with a device certificate, are cut with their group, refused afterwards, and the neighbour carries on', async () => {
    const { broker, rules, servers, device, close } = await startTestBroker()
    cleanups.push(close)
    const path = folder()
    const ca = write(path, 'ca.pem', servers.certPem)
    const common = (id: string, { keyPem, certPem }: Credential) => [
      ...['-h', 'localhost', '-p', `${broker.port}`, '-i', id, '--cafile', ca],
      ...['--key', write(path, `${id}.key`, keyPem), '--cert', write(path, `${id}.pem`, certPem), '-q', '1'],
    ]
    const seven = common('seven', device('seven', { gids: [7] }))
    const eight = common('eight', device('eight', { gids: [8] }))
    const listen = (args: string[], id: string) =>
      start('mosquitto_sub', [...args, '-t', `devices/${id}/cmd`, '-t', `fr/1/${fleet}/head`, '-F', '%t %p'])
    const sevenListens = listen(seven, 'seven')
    const eightListens = listen(eight, 'eight')
    await until(() => broker.sessions().filter(({ connected }) => connected).length === 2, 'both are connected')
    // A command from the server side reaches a program that is subscribed.
    await until(async () => {
      for (const id of ['seven', 'eight'])
        await broker.publish(`devices/${id}/cmd`, Buffer.from('hello'), { qos: 1, retain: false })
      return [sevenListens, eightListens].every(({ output }) => output.includes('cmd hello'))
    }, 'both get a command')

    let sevenOver = false
    void sevenListens.exit.then(() => {
      sevenOver = true
    })
    rules.merge([{ kind: 'group', gid: 7, bound: 1000 }])
    expect(await broker.enforce()).toMatchObject({ cut: 1 })
    // mosquitto_sub tries again by itself, is refused, and gives up.
    await until(() => sevenOver, 'the revoked mosquitto_sub ends')
    expect(sevenListens.output).toMatch(/not authorised|not authorized|lost/i)
    const late = start('mosquitto_pub', [...seven, '-t', 'devices/seven/telemetry', '-m', 'late'])
    expect(await late.exit).not.toBe(0)
    expect(late.output).toMatch(/not authori[sz]ed/i)

    const heard: string[] = []
    await broker.subscribe('devices/eight/telemetry', (_topic, payload) => heard.push(Buffer.from(payload).toString()))
    // The neighbour's subscription stands: publishing under the same name would take its session over, so the server speaks to it.
    await broker.publish('devices/eight/cmd', Buffer.from('still there'), { qos: 1, retain: false })
    await until(() => eightListens.output.includes('still there'), 'the neighbour still listens')
    expect(eightListens.process.exitCode).toBeNull()
    eightListens.process.kill()
    await eightListens.exit
    const telemetry = start('mosquitto_pub', [...eight, '-t', 'devices/eight/telemetry', '-m', '21.5'])
    expect(await telemetry.exit).toBe(0)
    await until(() => heard.length > 0, 'its telemetry arrives')
    expect(heard).toEqual(['21.5'])
  })

  it('[F51] are refused under another name', async () => {
    const { broker, servers, device, close } = await startTestBroker()
    cleanups.push(close)
    const path = folder()
    const { keyPem, certPem } = device('dev-1')
    const tls = [
      '--cafile',
      write(path, 'ca.pem', servers.certPem),
      '--key',
      write(path, 'key.pem', keyPem),
      '--cert',
      write(path, 'cert.pem', certPem),
    ]
    const program = start('mosquitto_pub', [
      '-h',
      'localhost',
      '-p',
      `${broker.port}`,
      '-i',
      'dev-2',
      ...tls,
      '-t',
      'devices/dev-2/x',
      '-m',
      'x',
    ])
    expect(await program.exit).not.toBe(0)
    expect(program.output).toMatch(/identifier/i)
  })
})

/** Debian keeps the plugin under the machine's triplet. */
function dynamicSecurityPlugin(): string {
  const file = readdirSync('/usr/lib')
    .map(triplet => `/usr/lib/${triplet}/mosquitto_dynamic_security.so`)
    .find(existsSync)
  if (!file) throw new Error('mosquitto has no dynamic security plugin here')
  return file
}

async function startMosquitto(more: { crl?: boolean } = {}) {
  const [devices, services, servers] = [
    createTestAuthority('devices'),
    createTestAuthority('services'),
    createTestAuthority('servers'),
  ]
  const path = folder()
  // mosquitto gives up root for a user of its own, who writes the dynamic security file.
  chmodSync(path, 0o777)
  const server = servers.server()
  const [port, servicePort] = [await freePort(), await freePort()]
  const crlFile = join(path, 'crl.pem')
  const crl = more.crl ? { file: crlFile, servicePort, serviceCaFile: write(path, 'services.pem', services.certPem) } : undefined
  const roles = { 'publisher@acme': 'publisher', 'gateway@acme': 'relying-party', 'watcher@acme': 'observer' } as const
  const dynamicSecurityFile = write(path, 'dynamic-security.json', mosquittoDynamicSecurity('enforcer@acme'))
  chmodSync(dynamicSecurityFile, 0o666)
  const configuration = mosquittoConfiguration('127.0.0.1', port, {
    accessFile: write(path, 'access', mosquittoAccess(fleet, roles)),
    dynamicSecurityFile,
    plugin: dynamicSecurityPlugin(),
    caFile: write(path, 'ca.pem', devices.certPem + (crl ? '' : services.certPem)),
    ...(crl ? { crl } : {}),
    certificateFile: write(path, 'server.pem', server.certPem),
    keyFile: write(path, 'server.key', server.keyPem),
  })
  const conf = write(path, 'mosquitto.conf', configuration)
  const launch = async (): Promise<Program> => {
    const program = start('mosquitto', ['-c', conf])
    await until(() => listens(port), `mosquitto listens (${program.output})`)
    return program
  }
  const url = `mqtts://localhost:${port}`
  const tls = ({ keyPem, certPem }: Credential) => ({ ca: [servers.certPem], key: keyPem, cert: certPem })
  const busAs = (name: string): MqttBus => {
    const bus = connectMqttBus({
      url: crl ? `mqtts://localhost:${servicePort}` : url,
      clientId: name,
      tls: tls(services.service(name)),
      log: quietLog,
      reconnectSeconds: 0.2,
    })
    cleanups.push(() => bus.close())
    return bus
  }
  const clientAs = (id: string, credential: Credential): Promise<MqttClient> =>
    new Promise((resolve, reject) => {
      const client = mqtt.connect(url, { clientId: id, ...tls(credential), reconnectPeriod: 0 })
      cleanups.push(() => client.endAsync(true))
      client.once('connect', () => resolve(client))
      client.once('error', reject)
      client.once('close', () => reject(new Error('closed')))
    })
  return { launch, devices, path, port, servers, busAs, clientAs, crlFile }
}

describe.skipIf(!brokers)('a real mosquitto as the broker', () => {
  it('carries the notice, cuts the revoked, gives them nothing afterwards, and leaves the neighbours', async () => {
    const { launch, devices, clientAs, busAs, path, port, servers } = await startMosquitto()
    await launch()
    const rules = createRuleSet()
    const enforcerBus = busAs('enforcer@acme')
    const publisherBus = busAs('publisher@acme')
    await until(() => enforcerBus.connected() && publisherBus.connected(), 'both services are connected')
    const enforcer = await createMosquittoEnforcer({
      bus: enforcerBus,
      fleet,
      rules,
      clock: systemClock,
      log: quietLog,
      sweepSeconds: 3600,
    })
    cleanups.push(() => enforcer.close())
    const key = createTestNoticeKey()
    const history = createTestHistory(key)
    const { notices, outbox, delivered } = createMemoryOutbox()
    const publisher = createPublisher({ outbox, bus: publisherBus, fleet, clock: systemClock, log: quietLog })
    cleanups.push(() => publisher.close())

    const connected = await Promise.all(
      Array.from({ length: 20 }, async (_, idx) => {
        const id = `dev-${idx}`
        const membership = { fleet, idx, gids: [idx % 2 === 0 ? 7 : 8] }
        const credential = devices.device(id, membership)
        await enforcer.admit(id, membership)
        const client = await clientAs(id, credential)
        let record: Bytes | null = null
        const receiver = createDeviceReceiver({
          fleet,
          membership: () => membership,
          signers: [key.signer],
          verify: nodeVerify(),
          store: {
            get: () => record,
            put: (_name, value) => {
              record = value
            },
          },
        })
        const state = { id, membership, credential, client, got: [] as string[], errors: [] as DeviceError[], revoked: false }
        client.on('message', (topic, payload) => {
          if (topic.startsWith('devices/')) state.got.push(`${payload}`)
          else
            receiver.receive(topic, new Uint8Array(payload), (error, revoked) => {
              if (error) state.errors.push(error)
              state.revoked = revoked
            })
        })
        await client.subscribeAsync([`devices/${id}/#`, ...receiver.topics], { qos: 1 })
        await client.publishAsync(`devices/${id}/telemetry`, 'before', { qos: 1 })
        return state
      }),
    )
    const sevens = connected.filter(({ membership }) => membership.gids[0] === 7)
    const eights = connected.filter(({ membership }) => membership.gids[0] === 8)

    // The notice goes out by URL and reaches every device; each knows for itself.
    const rule: Rule = { kind: 'group', gid: 7, bound: 20 }
    notices.push({ seq: 1, notice: await history.add([rule]) })
    await publisher.drained()
    await until(() => sevens.every(({ revoked }) => revoked), 'the revoked devices know')
    expect([...delivered]).toEqual([1])
    expect(connected.flatMap(({ errors }) => errors)).toEqual([])
    expect(eights.some(({ revoked }) => revoked)).toBe(false)
    expect(connected.every(({ got }) => got.includes('before'))).toBe(true)

    // The enforcer cuts them, whether they listened or not.
    const over = Promise.all(sevens.map(({ client }) => ended(client)))
    rules.merge([rule])
    expect(await enforcer.enforce()).toEqual({ groups: 1, devices: 0 })
    await over
    expect(eights.every(({ client }) => client.connected)).toBe(true)

    // A revoked device that comes again may nothing: no subscription, no publication, no delivery. mosquitto_sub says so and gives up.
    const { id, credential } = sevens[0]
    const tls = [
      '--cafile',
      write(path, 'servers.pem', servers.certPem),
      '--key',
      write(path, 'again.key', credential.keyPem),
      '--cert',
      write(path, 'again.pem', credential.certPem),
    ]
    const again = start('mosquitto_sub', [
      '-h',
      'localhost',
      '-p',
      `${port}`,
      '-i',
      id,
      ...tls,
      '-q',
      '1',
      '-t',
      `devices/${id}/cmd`,
      '-t',
      `fr/1/${fleet}/head`,
    ])
    await again.exit
    expect(again.output).toMatch(/all subscription requests were denied/i)
    const watched: string[] = []
    const watcher = busAs('watcher@acme')
    await until(() => watcher.connected(), 'the watcher is connected')
    await watcher.subscribe('devices/#', (topic, payload) => watched.push(`${topic} ${Buffer.from(payload)}`))
    const back = await clientAs(id, credential)
    await back.publishAsync(`devices/${id}/telemetry`, 'after', { qos: 1 })
    for (const eight of eights) await eight.client.publishAsync(`devices/${eight.id}/telemetry`, 'after', { qos: 1 })
    await until(() => eights.every(eight => watched.includes(`devices/${eight.id}/telemetry after`)), 'the neighbours are heard')
    expect(watched.filter(line => line.startsWith(`devices/${id}/`))).toEqual([])

    // The sweep ends what came again.
    const swept = ended(back)
    await enforcer.sweep()
    await swept
    expect(eights.every(({ client }) => client.connected)).toBe(true)

    // Whoever is issued afterwards is in a group of a later epoch and works.
    const later = { fleet, idx: 30, gids: [7] }
    await enforcer.admit('dev-30', later)
    const fresh = await clientAs('dev-30', devices.device('dev-30', later))
    expect((await fresh.subscribeAsync('devices/dev-30/cmd', { qos: 1 }))[0]?.qos).toBe(1)
    // Who is admitted although it is revoked gets nothing.
    const stale = { fleet, idx: 3, gids: [7] }
    await enforcer.admit('dev-99', stale)
    const none = await clientAs('dev-99', devices.device('dev-99', stale))
    await expect(none.subscribeAsync('devices/dev-99/cmd', { qos: 1 })).rejects.toThrow()
  })

  it('cuts and denies who is on a list, in a range or of an issuer, remembers it, and lets in who came again', async () => {
    const { launch, devices, clientAs, busAs } = await startMosquitto()
    await launch()
    const rules = createRuleSet()
    const enforcerBus = busAs('enforcer@acme')
    await until(() => enforcerBus.connected(), 'the service is connected')
    const open = () =>
      createMosquittoEnforcer({ ...{ bus: enforcerBus, fleet, rules, clock: systemClock, log: quietLog }, sweepSeconds: 3600 })
    const enforcer = await open()
    const issuers = [new Uint8Array(20).fill(1), new Uint8Array(20).fill(2)]
    const all = await Promise.all(
      Array.from({ length: 8 }, async (_, idx) => {
        const id = `dev-${idx}`
        const membership = { fleet, idx, gids: [7] }
        const credential = devices.device(id, membership)
        await enforcer.admit(id, membership, issuers[idx === 6 ? 1 : 0])
        return { id, idx, membership, credential, client: await clientAs(id, credential) }
      }),
    )
    const revokedBy = async (more: Rule[]): Promise<number[]> => {
      const before = all.filter(({ client }) => client.connected)
      rules.merge(more)
      const gone = before.filter(({ membership, idx }) => rules.isRevoked(membership, issuers[idx === 6 ? 1 : 0]))
      const over = Promise.all(gone.map(({ client }) => ended(client)))
      await enforcer.enforce()
      await over
      expect(before.filter(each => !gone.includes(each)).every(({ client }) => client.connected)).toBe(true)
      return gone.map(({ idx }) => idx)
    }
    expect(await revokedBy([{ kind: 'list', base: 0, span: 8, ...encodeList(8, runsOf([1])) }])).toEqual([1])
    expect(await revokedBy([{ kind: 'range', start: 3, length: 2 }])).toEqual([3, 4])
    expect(await revokedBy([{ kind: 'issuer', keyId: issuers[1] }])).toEqual([6])
    const back = await clientAs('dev-3', all[3].credential)
    await expect(back.subscribeAsync('devices/dev-3/cmd', { qos: 1 })).rejects.toThrow()
    const swept = ended(back)
    await enforcer.sweep()
    await swept

    // Another enforcer knows the devices from the broker's own memory.
    enforcer.close()
    const second = await open()
    cleanups.push(() => second.close())
    const five = ended(all[5].client)
    rules.merge([{ kind: 'range', start: 5, length: 1 }])
    expect(await second.enforce()).toEqual({ groups: 0, devices: 1 })
    await five
    const again = { fleet, idx: 40, gids: [7] }
    await second.admit('dev-3', again, issuers[0])
    const fresh = await clientAs('dev-3', devices.device('dev-3', again))
    expect((await fresh.subscribeAsync('devices/dev-3/cmd', { qos: 1 }))[0]?.qos).toBe(1)
    await expect((await clientAs('dev-4', all[4].credential)).subscribeAsync('devices/dev-4/cmd')).rejects.toThrow()
    expect(all.filter(({ idx }) => [0, 2, 7].includes(idx)).every(({ client }) => client.connected)).toBe(true)
  })

  it('cuts and denies who is in quarantine, renewed in between or not, and lets in when it is lifted', async () => {
    const { launch, devices, clientAs, busAs } = await startMosquitto()
    await launch()
    const bus = busAs('enforcer@acme')
    await until(() => bus.connected(), 'the service is connected')
    const held = new Set<number>()
    const enforcer = await createMosquittoEnforcer({
      ...{ bus, fleet, rules: createRuleSet(), clock: systemClock, log: quietLog, sweepSeconds: 3600 },
      status: ({ idx }) => (held.has(idx) ? 'quarantined' : 'good'),
    })
    cleanups.push(() => enforcer.close())
    const memberships = [1, 2, 3].map(idx => ({ fleet, idx, gids: [7] }))
    const credentials = memberships.map(membership => devices.device(`dev-${membership.idx}`, membership))
    await enforcer.admitAll(
      memberships.map(membership => ({ deviceId: `dev-${membership.idx}`, membership, issuerKeyId: new Uint8Array(20) })),
    )
    const clients = await Promise.all(credentials.map((credential, i) => clientAs(`dev-${i + 1}`, credential)))
    for (const idx of [1, 2]) held.add(idx)
    const over = Promise.all(clients.slice(0, 2).map(client => ended(client)))
    expect(await enforcer.enforce()).toEqual({ groups: 0, devices: 2 })
    await over
    // Admitted once more while it is held: it stays denied.
    await enforcer.admit('dev-2', memberships[1], new Uint8Array(20))
    const denied = async (i: number): Promise<boolean> => {
      const client = await clientAs(`dev-${i}`, credentials[i - 1])
      const refused = await client.subscribeAsync(`devices/dev-${i}/cmd`, { qos: 1 }).then(
        () => false,
        () => true,
      )
      await client.endAsync()
      return refused
    }
    expect([await denied(1), await denied(2)]).toEqual([true, true])
    held.clear()
    await enforcer.enforce()
    expect([await denied(1), await denied(2)]).toEqual([false, false])
    expect(clients[2].connected).toBe(true)
  })

  it('[F12] [F43] refuses the handshake of who is on the CRL file, once told to read it, and everybody when it has run out', async () => {
    const { launch, devices, clientAs, busAs, path, crlFile } = await startMosquitto({ crl: true })
    const [dev1, dev2] = [1, 2].map(idx => devices.device(`dev-${idx}`, { fleet, idx, gids: [] }))
    // OpenSSL is the CA here.
    const index = write(path, 'index.txt', '')
    write(path, 'crlnumber', '01')
    const conf = write(
      path,
      'ca.cnf',
      `[ca]\ndefault_ca=own\n[own]\ndatabase=${index}\ncrlnumber=${path}/crlnumber\ndefault_md=sha256\ncrl_extensions=ext\n[ext]\nauthorityKeyIdentifier=keyid\n`,
    )
    const [key, certificate] = [write(path, 'ca.key', devices.keyPem), write(path, 'ca-own.pem', devices.certPem)]
    const authority = ['-config', conf, '-keyfile', key, '-cert', certificate]
    let seconds = 3600
    const lists = async () => {
      const out = join(path, 'made.crl')
      await run('openssl', ['ca', '-gencrl', ...authority, '-crlsec', `${seconds}`, '-out', out])
      return decodePem(readFileSync(out, 'utf8'), 'X509 CRL', 1)
    }
    let reload = () => {}
    const file = await createCrlFile({ path: crlFile, lists, reload: () => reload(), clock: systemClock, log: quietLog })
    cleanups.push(() => file.close())
    const program = await launch()
    const pidFile = write(path, 'mosquitto.pid', `${program.process.pid}`)
    const signal = signalReload(pidFile)
    reload = () => void signal()

    const bus = busAs('gateway@acme')
    await until(() => bus.connected(), 'services have a listener of their own')
    const live = await clientAs('dev-1', dev1)
    await (await clientAs('dev-2', dev2)).endAsync()
    await run('openssl', ['ca', '-revoke', write(path, 'dev-1.pem', dev1.certPem), ...authority])
    expect(await file.refresh()).toBe(true)
    const refused = (id: string, credential: Credential) =>
      clientAs(id, credential).then(
        client => client.endAsync().then(() => false),
        () => true,
      )
    await until(() => refused('dev-1', dev1), 'the revoked device is refused')
    expect(await refused('dev-2', dev2)).toBe(false)
    // What is open stays open: cutting is the plugin's.
    expect(live.connected || (await refused('dev-1', dev1))).toBe(true)

    seconds = 1
    await file.refresh()
    await new Promise(resolve => setTimeout(resolve, 2100))
    await until(() => refused('dev-2', dev2), 'an outdated list refuses everybody')
  })

  it('[F49] [F50] forgets a retired relying party by the publisher’s word, and by no device’s', async () => {
    const { launch, devices, clientAs, busAs } = await startMosquitto()
    await launch()
    const enforcerBus = busAs('enforcer@acme')
    await until(() => enforcerBus.connected(), 'connected')
    const enforcer = await createMosquittoEnforcer({
      ...{ bus: enforcerBus, fleet, rules: createRuleSet(), clock: systemClock, log: quietLog, sweepSeconds: 3600 },
    })
    cleanups.push(() => enforcer.close())
    const membership = { fleet, idx: 1, gids: [] }
    await enforcer.admit('dev-1', membership)
    await forgetsRetiredParty({
      ...{ publisherBus: busAs('publisher@acme'), name: 'gateway@acme', party: busAs('gateway@acme') },
      forgers: [() => clientAs('dev-1', devices.device('dev-1', membership))],
    })
  })

  it('[F54] killed after it acknowledged, is given the notices again; the rules it enforces outlive it', async () => {
    const { launch, devices, clientAs, busAs } = await startMosquitto()
    const first = await launch()
    const rules = createRuleSet()
    const [enforcerBus, publisherBus] = [busAs('enforcer@acme'), busAs('publisher@acme')]
    await until(() => enforcerBus.connected() && publisherBus.connected(), 'both services are connected')
    const enforcer = await createMosquittoEnforcer({
      bus: enforcerBus,
      fleet,
      rules,
      clock: systemClock,
      log: quietLog,
      sweepSeconds: 3600,
    })
    cleanups.push(() => enforcer.close())
    const history = createTestHistory(createTestNoticeKey())
    const { notices, outbox } = createMemoryOutbox()
    const publisher = createPublisher({ outbox, bus: publisherBus, fleet, clock: systemClock, log: quietLog })
    cleanups.push(() => publisher.close())
    const membership = { fleet, idx: 1, gids: [7] }
    await enforcer.admit('dev-1', membership)
    const credential = devices.device('dev-1', membership)
    for (const gid of [1, 2, 7])
      notices.push({ seq: gid === 7 ? 3 : gid, notice: await history.add([{ kind: 'group', gid, bound: 5 }]) })
    await publisher.drained()
    rules.merge([{ kind: 'group', gid: 7, bound: 5 }])
    await enforcer.enforce()

    first.process.kill('SIGKILL')
    await first.exit
    await launch()
    const neighbour = await clientAs('dev-2', devices.device('dev-2', { fleet, idx: 2, gids: [8] }))
    const heads: Buffer[] = []
    neighbour.on('message', (_topic, payload) => heads.push(payload))
    await neighbour.subscribeAsync(`fr/1/${fleet}/head`, { qos: 1 })
    await until(() => heads.length > 0, 'the head is there again')
    expect(Buffer.compare(heads.at(-1) ?? Buffer.alloc(0), Buffer.from(notices[2].notice))).toBe(0)
    const revoked = await clientAs('dev-1', credential)
    await expect(revoked.subscribeAsync('devices/dev-1/cmd', { qos: 1 })).rejects.toThrow()
  })
})
