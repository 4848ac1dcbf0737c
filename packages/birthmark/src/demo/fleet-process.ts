// The demo's fleet: born, enrolled, connected, sending; then half of it is revoked, and everything that must now be refused is tried.
// It talks to the server as the world does: the operator's socket, EST and MQTT.

import { join } from 'node:path'
import { encodePem } from '@birthmark/device-sdk/core'
import { manifestInMemory } from '@birthmark/factory-line'
import { administrationOf } from '../admin-client.ts'
import { explain } from '../command-error.ts'
import { readDeviceFolder } from '../device-folder.ts'
import { openLine } from '../line-folder.ts'
import { type BornDevice, bearDevice } from '../sim/birth.ts'
import { createSimDevice, type SimDevice } from '../sim/device.ts'
import { inParallel, percentile } from '../sim/in-parallel.ts'
import { enrollStatus, estVerdict, mqttVerdict, type Stolen, savedSession, type TlsVersion } from './attempts.ts'
import type { DemoClaims, FleetMessage } from './messages.ts'
import { createObserver } from './observer.ts'

const [folder, count] = [process.argv[2], Number(process.argv[3])]
const intervalMs = 200
const doomed = 'batch=red'
const spared = 'batch=green'
/** One device of neither group, to show that what is tried below works for whoever is not revoked. */
const control = { serial: 'control', groups: ['batch=control'] }
// Nothing here takes longer on any machine that can run it; a hang must become a failed claim.
const patienceMs = 45_000
/** Devices whose saved TLS sessions are tried again; each costs eight handshakes. */
const thieves = 5

const tell = (message: FleetMessage): void => void process.send?.(message)

async function main(): Promise<void> {
  const target = readDeviceFolder(join(folder, 'device'))
  const administration = administrationOf(folder)

  const line = openLine(join(folder, 'factory'))
  const born: BornDevice[] = []
  for (let i = 0; i < count; i++) {
    born.push(await bearDevice(line.station, `unit-${String(i + 1).padStart(4, '0')}`, [i % 2 ? spared : doomed]))
    tell({ kind: 'progress', text: `born ${i + 1}/${count}` })
  }
  const bornControl = await bearDevice(line.station, control.serial, control.groups)
  const imported = await administration.importManifest(manifestInMemory(await line.station.manifest()))
  line.station.close()
  tell({
    kind: 'step',
    text: `${count} devices born on the line, and one for control`,
    where: `${imported.added} known to the server by signed manifest`,
  })

  const devices = born.map(one => createSimDevice({ ...one, target }))
  const began = performance.now()
  let enrolled = 0
  await inParallel(devices, 16, async device => {
    await device.enroll()
    tell({ kind: 'progress', text: `enrolled ${++enrolled}/${count}` })
  })
  const enrollmentsPerSecond = Math.round((count / (performance.now() - began)) * 1000)
  const controlDevice = createSimDevice({ ...bornControl, target })
  await controlDevice.enroll()
  tell({
    kind: 'step',
    text: `${enrolled} enrolled over EST with mutual TLS`,
    where: `${enrollmentsPerSecond}/s, each proven by a second handshake`,
  })

  const observer = await createObserver(target, folder)
  let connected = 0
  await inParallel(devices, 32, async device => {
    device.identity.start()
    await device.connect()
    tell({ kind: 'progress', text: `connected ${++connected}/${count}` })
  })
  tell({ kind: 'step', text: `${connected} connected over MQTT with their operational certificates`, where: 'sending telemetry' })
  setInterval(() => sendAll(devices), intervalMs)

  const red = devices.filter(device => device.groups.includes(doomed))
  const green = devices.filter(device => device.groups.includes(spared))
  const stolen = red.map(
    (device): Stolen =>
      stolenFrom(
        device.identity,
        born.find(one => one.serial === device.serial),
        target.serverAnchors,
      ),
  )
  const sessions = await saveSessions(stolen.slice(0, thieves), target)
  // Everybody has been heard before, so that silence afterwards means something.
  await until(() => devices.every(device => observer.last(device.serial) >= 3))

  tell({ kind: 'progress', text: `revoking ${doomed}` })
  const plan = await administration.planRevocation(doomed)
  const at = performance.now()
  // The server's first notice, which revokes nothing, is among them.
  const noticesBefore = observer.notices()
  const receipt = await administration.revoke({ group: doomed, digest: plan.digest, reason: 'demo: keys leaked' })
  await until(() => red.every(device => device.cutAt !== null))
  const cuts = red.flatMap(device => (device.cutAt === null ? [] : [device.cutAt - at]))
  tell({
    kind: 'step',
    text: `${cuts.length} of ${red.length} sessions of ${doomed} cut`,
    where: `one notice of ${receipt.noticeBytes} bytes`,
  })

  // What the broker took before the cut has reached the subscriber once something sent after it has.
  const mark = green.map(device => device.measured)
  await until(() => green.every((device, i) => observer.last(device.serial) > mark[i]))
  const silence = red.map(device => observer.last(device.serial))
  // Some seconds later another one follows, with the root of all that is revoked.
  const noticesUntilCut = observer.notices()

  const refusals = { reconnect: 0, reenroll: 0, birth: 0, resumption: 0 }
  await inParallel(stolen, 8, async one => {
    if (!(await mqttVerdict(target.mqtt, one)).accepted) refusals.reconnect++
    if (isRefusal(await enrollStatus(target.est, one, 'operational'))) refusals.reenroll++
    if (isRefusal(await enrollStatus(target.est, one, 'birth'))) refusals.birth++
    tell({ kind: 'progress', text: `trying to come back: ${refusals.birth}/${stolen.length} refused` })
  })
  tell({
    kind: 'step',
    text: `${refusals.reconnect} reconnects, ${refusals.reenroll} re-enrollments, ${refusals.birth} enrollments by birth certificate refused`,
  })
  // The same three attempts by a device that is not revoked: had they failed too, the refusals above would prove nothing.
  const honest = stolenFrom(controlDevice.identity, bornControl, target.serverAnchors)
  const controls = [
    (await mqttVerdict(target.mqtt, honest)).accepted,
    (await enrollStatus(target.est, honest, 'operational')).status === 200,
    (await enrollStatus(target.est, honest, 'birth')).status === 200,
  ]
  for (const { one, url, session, version } of sessions) {
    if (url === target.mqtt) {
      const { resumed, accepted } = await mqttVerdict(url, one, session ?? undefined, version)
      if (!resumed && !accepted) refusals.resumption++
    } else if (!session) {
      if (isRefusal(await enrollStatus(url, one, 'operational'))) refusals.resumption++
    } else {
      const { resumed, status } = await estVerdict(url, one, session, version)
      if (!resumed && status === 403) refusals.resumption++
    }
  }
  tell({
    kind: 'step',
    text: `${refusals.resumption} of ${sessions.length} attempts with a saved TLS session refused`,
    where: 'EST and MQTT, TLS 1.2 and 1.3',
  })

  // Some more of everybody's day, after all that.
  const late = green.map(device => device.measured)
  await until(() => green.every((device, i) => observer.last(device.serial) > late[i]))

  const claims: DemoClaims = {
    allWorking: enrolled === count && connected === count && red.length > 0 && green.length > 0,
    oneNotice: receipt.seq === 2 && noticesUntilCut === noticesBefore + 1,
    revokedSessionsCut: cuts.length === red.length && red.every(device => !device.connected()),
    revokedSilent: red.every((device, i) => observer.last(device.serial) === silence[i]),
    reconnectRefused: refusals.reconnect === red.length,
    reenrollRefused: refusals.reenroll === red.length,
    birthEnrollRefused: refusals.birth === red.length,
    controlAdmitted: controls.every(Boolean),
    resumptionRefused: refusals.resumption === sessions.length && sessions.length > 0,
    neighboursConnected: green.every(
      device => device.cutAt === null && device.connected() && device.identity.status().state === 'active',
    ),
    neighboursUninterrupted: green.every(
      (device, i) => observer.last(device.serial) > late[i] && observer.gaps(device.serial) === 0,
    ),
  }
  const ms = (value: number): number => Math.round(value * 10) / 10
  tell({
    kind: 'result',
    claims,
    figures: {
      devices: count,
      enrollmentsPerSecond,
      cutP50Ms: ms(percentile(cuts, 0.5)),
      cutP99Ms: ms(percentile(cuts, 0.99)),
      cutMaxMs: ms(percentile(cuts, 1)),
      noticeBytes: receipt.noticeBytes,
      telemetryReceived: observer.received(),
    },
  })

  setInterval(() => {
    tell({ kind: 'pulse', connected: devices.filter(device => device.connected()).length, received: observer.received() })
  }, 1000)
}

function sendAll(devices: SimDevice[]): void {
  devices.forEach((device, at) => {
    setTimeout(() => void device.measure(), (intervalMs * at) / devices.length)
  })
}

/** As a thief would have it: all keys, taken while they were good. */
function stolenFrom(identity: SimDevice['identity'], birth: BornDevice | undefined, anchors: Uint8Array[]): Stolen {
  const { cert, key } = identity.tlsOptions()
  const birthKey = birth?.keys.tlsKey('birth')
  const chain = birth?.store.get('birth.chain')
  if (!key || !birth || !chain || !birthKey || !('key' in birthKey)) throw new Error('a device has no keys in memory')
  return {
    serial: birth.serial,
    operational: { cert, key },
    birth: { cert: chainPem(chain), key: birthKey.key },
    ca: anchors.map(der => encodePem('CERTIFICATE', der)),
  }
}

/** Concatenated DER as PEM. */
function chainPem(chain: Uint8Array): string {
  let pem = ''
  for (let at = 0; at < chain.length; ) {
    // Certificates of ours have between 256 and 65,535 bytes: two length octets.
    const length = 4 + (chain[at + 2] << 8) + chain[at + 3]
    pem += encodePem('CERTIFICATE', chain.subarray(at, at + length))
    at += length
  }
  return pem
}

interface SavedSession {
  one: Stolen
  url: string
  version: TlsVersion
  session: Buffer | null
}

async function saveSessions(stolen: Stolen[], target: { est: string; mqtt: string }): Promise<SavedSession[]> {
  const wanted: Omit<SavedSession, 'session'>[] = stolen.flatMap(one =>
    [target.est, target.mqtt].flatMap(url => (['TLSv1.2', 'TLSv1.3'] as const).map(version => ({ one, url, version }))),
  )
  const saved: SavedSession[] = []
  await inParallel(
    wanted,
    8,
    async each => void saved.push({ ...each, session: await savedSession(each.url, each.one, each.version) }),
  )
  return saved
}

/** Refused by policy. A failure of the server (5xx) or of the network is none, and would fail the claim. */
function isRefusal({ status }: { status: number }): boolean {
  return status === 403
}

async function until(holds: () => boolean): Promise<void> {
  const end = performance.now() + patienceMs
  while (!holds() && performance.now() < end) await new Promise(resolve => setTimeout(resolve, 5))
}

// The terminal's Ctrl-C reaches both processes; the server's decides when it is over, and lets go of this one then.
process.on('SIGINT', () => {})
process.on('disconnect', () => process.exit(0))
main().catch((error: unknown) => {
  const { code, message, next } = explain(error)
  tell({ kind: 'failed', code, message, next })
})
