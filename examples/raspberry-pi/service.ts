// A service for a Raspberry Pi, or any Linux board: enrolls with the birth key in a file, publishes telemetry over mutual-TLS MQTT, and renews while it
// runs: a new session with the new identity is open before the old one ends. SIGUSR1 renews at once. It logs a line of JSON an event.
//
//   service.ts [CONFIGURATION] [STATE]
//
// CONFIGURATION holds what the server's `device` folder holds (fleet.json, server-ca.pem, birth-ca.pem, operational-ca.pem), and what the factory line
// made of this unit: birth.pem, birth.key.pem. STATE is the service's own: keys, 0600, and records. With a file `passphrase` among the credentials that
// systemd hands over, which a TPM may have sealed, the keys are encrypted with it. With DEVICE_KEYS=tpm they are made in the TPM and stay there.
import { createPrivateKey } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type BirthmarkError, birthChain, createIdentity, fileKeys, fileStore, tpmKeys } from '@birthmark/device-sdk/node'
import { connect, type MqttClient } from 'mqtt'

const [configuration = '/etc/birthmark-device', state = process.env.STATE_DIRECTORY ?? '/var/lib/birthmark-device'] =
  process.argv.slice(2)
const telemetrySeconds = Number(process.env.TELEMETRY_SECONDS ?? 60)

const configured = (name: string): string => readFileSync(join(configuration, name), 'utf8')
const say = (event: string, fields: object = {}): void => void process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`)

const fleet = JSON.parse(configured('fleet.json')) as { est: string; mqtt: string }
// systemd hands the service files that only root may read (LoadCredential=), or the TPM opens (LoadCredentialEncrypted=).
const credential = (name: string): string => join(process.env.CREDENTIALS_DIRECTORY ?? configuration, name)
const passphrase = existsSync(credential('passphrase')) ? readFileSync(credential('passphrase'), 'utf8').trim() : undefined
// The TPM's own keys: its resource manager and OpenSSL's provider have to be there (docs/device-keys.md).
const tpm = process.env.DEVICE_KEYS === 'tpm'
const keys = tpm ? tpmKeys(join(state, 'keys')) : fileKeys(join(state, 'keys'), 'P-256', undefined, { passphrase })
const store = fileStore(join(state, 'identity'))
if (!existsSync(join(state, 'keys', 'birth.key'))) {
  mkdirSync(join(state, 'keys'), { recursive: true, mode: 0o700 })
  store.put('birth.chain', birthChain(configured('birth.pem')))
  const given = readFileSync(credential('birth.key.pem'), 'utf8')
  const sealed = passphrase === undefined ? {} : { cipher: 'aes-256-cbc', passphrase }
  // A TPM's is wrapped as it is.
  const kept = tpm ? given : createPrivateKey(given).export({ type: 'pkcs8', format: 'pem', ...sealed })
  writeFileSync(join(state, 'keys', 'birth.key'), kept, { mode: 0o600 })
}

const identity = createIdentity({
  keys,
  store,
  server: { url: fleet.est },
  trust: {
    server: configured('server-ca.pem'),
    birth: configured('birth-ca.pem'),
    operational: configured('operational-ca.pem'),
  },
})

let session: MqttClient | null = null

/** One session at a time is the broker's rule for a ClientId: it ends the old one when the new one is accepted, and nothing is lost in between. */
function openSession(): void {
  const before = session
  const { deviceId, generation } = identity.status()
  const opened = connect(fleet.mqtt, { ...identity.tlsOptions(), clientId: deviceId, reconnectPeriod: 5000, queueQoSZero: false })
  session = opened
  opened.on('connect', () => {
    say('connected', { generation })
    before?.end(true)
  })
  opened.on('error', error => say('session', { error: error.message }))
}

/** Where a Raspberry Pi tells its temperature, in thousandths; null elsewhere. */
async function celsius(): Promise<number | null> {
  try {
    return Number(await readFile('/sys/class/thermal/thermal_zone0/temp', 'utf8')) / 1000
  } catch {
    return null
  }
}

async function publish(): Promise<void> {
  if (!session?.connected) return
  const { deviceId, generation } = identity.status()
  const reading = { at: Math.floor(Date.now() / 1000), celsius: await celsius() }
  await session.publishAsync(`devices/${deviceId}/telemetry`, JSON.stringify(reading), { qos: 1 })
  say('published', { generation })
}

identity.on('active', ({ deviceId, generation, renewAt }) => {
  say('active', { deviceId, generation, renewAt })
  openSession()
})
identity.on('failed', ({ error }) => say('failed', { code: error.code, hint: error.hint }))
identity.on('revoked', ({ by }) => {
  say('revoked', { by })
  session?.end(true)
  session = null
})

const timer = setInterval(() => {
  publish().catch((error: Error) => say('unpublished', { error: error.message }))
}, telemetrySeconds * 1000)
process.on('SIGUSR1', () => {
  identity.renew().catch((error: BirthmarkError) => say('unrenewed', { code: error.code }))
})
for (const signal of ['SIGTERM', 'SIGINT'] as const)
  process.once(signal, () => {
    clearInterval(timer)
    identity.close()
    if (session) session.end(false, () => process.exit(0))
    else process.exit(0)
  })

// From an earlier run: connect with what there is. start() does the rest, now and from here on.
if (identity.status().state === 'active') openSession()
identity.start()
