import { randomBytes } from 'node:crypto'
import { chmodSync, copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { CommandError } from './command-error.ts'
import { runCommandLine } from './command-line.ts'
import { readConfiguration } from './configuration.ts'
import { ensureTwoTier } from './server-certificate.ts'
import { createTerminal } from './terminal.ts'

let folder: string
const file = (...names: string[]): string => join(folder, ...names)
const configuration = (): string => file('birthmark.yaml')
const silent = { write: () => true }

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bm-'))
  const terminal = createTerminal({ stdout: silent, stderr: silent, env: {}, now: () => 0 })
  expect(
    await runCommandLine(['init', folder, '--fleet', 'acme', '--host', 'est.acme.test', '--host', '192.0.2.7'], terminal),
  ).toBe(0)
  await ensureTwoTier(file('maker'), 'Acme', 'device', randomBytes)
  copyFileSync(file('maker', 'root.pem'), file('birth-anchors.pem'))
})
afterEach(() => rmSync(folder, { recursive: true }))

/** What `readConfiguration` complains about, without the path in front. */
function complaint(): { code: string; message: string; next: string } {
  try {
    readConfiguration(configuration())
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    return { code: error.code, message: error.message.replaceAll(`${folder}/`, ''), next: error.next }
  }
  throw new Error('no complaint')
}

function change(from: string | RegExp, to: string): number {
  const text = readFileSync(configuration(), 'utf8')
  const at = text.search(from)
  expect(at).toBeGreaterThanOrEqual(0)
  writeFileSync(configuration(), text.replace(from, to))
  return text.slice(0, at).split('\n').length
}

test('what init writes is sound, and paths are relative to the file', () => {
  const settings = readConfiguration(configuration())
  expect(settings).toMatchObject({ fleet: 'acme', state: file('state'), development: false })
  expect(settings.profiles).toMatchObject([
    { label: null, lifetimeSeconds: 90 * 86_400, admitSecrets: true, requireManifest: true },
  ])
  expect(settings.est).toMatchObject({ host: '0.0.0.0', port: 8443 })
  expect(settings.mqtt).toMatchObject({ kind: 'embedded', port: 8883, services: { observer: 'observer' } })
  expect(settings.issuer.certificates).toHaveLength(2)
})

const token = (name: string, key: string): string =>
  `pkcs11: { library: x.so, token: { ${name} }, key: { ${key} }, pin: { file: p } }`

test.each([
  [/fleet: acme/, 'fleet: ACME!', 'fleet is 1 to 32 of a-z, 0-9 and hyphen'],
  [/port: 8443/, 'port: 84430', 'est.port is more than 65535'],
  [/port: 8443/, 'port: yes', 'est.port'],
  [/lifetime: 90d/, 'lifetime: forever', 'certificates.lifetime is like 90d, 12h or 10m'],
  [/lifetime: 90d/, 'lifetime: 9m', 'certificates.lifetime is 9m'],
  [/log:/, 'lag:', 'lag is not known'],
  [/anchors: \[birth-anchors.pem\]/, 'anchors: [nowhere.pem]', 'birth.anchors.0: cannot read nowhere.pem (ENOENT)'],
  [/anchors: \[birth-anchors.pem\]/, 'anchors: []', 'birth.anchors'],
  [
    /key: issuer\/issuing.key.pem.*\n +passphrase:\n.*/,
    'key: notice.key.pem',
    'issuer.key: notice.key.pem is not the key of issuer/chain.pem',
  ],
  [/passphrase:\n +file: .*/, 'passphrase: { file: issuer/root.pem }', 'issuer.passphrase: '],
  [
    /key: issuer\/issuing.key.pem.*\n +passphrase:\n.*/,
    'key: issuer/issuing.key.pem',
    'issuer.key: issuer/issuing.key.pem is encrypted',
  ],
  [/passphrase:\n +file: .*/, 'passphrase: secret', 'issuer.passphrase is {file: PATH} or {credential: NAME}'],
  [/passphrase:\n +file: .*/, 'passphrase: { credential: x }', 'issuer.passphrase: credential x: this process was given none'],
  [/certificate: issuer/, `${token('label: t', 'id: 01')}\n  certificate: issuer`, 'issuer.pkcs11.key.id'],
  [/certificate: issuer/, `${token('', 'label: k')}\n  certificate: issuer`, 'issuer.pkcs11.token needs a label or a serial'],
  [/issuer:/, `issuer:\n  ${token('label: t', 'label: k')}`, 'issuer needs key or pkcs11, one of them'],
  [/key: notice.key.pem/, 'key: birth-anchors.pem', 'notices.key: birth-anchors.pem may be read by others'],
  [
    /anchors: \[server\/root.pem\]/,
    'anchors: [issuer/root.pem]',
    'server.anchors: the device issuer is named as an anchor of the server',
  ],
])('%s → %s is refused, with the line', (from, to, said) => {
  const line = change(from, to)
  const { code, message, next } = complaint()
  expect(code).toBe('configuration')
  expect(message).toContain(`birthmark.yaml:${line}: ${said}`)
  expect(next).not.toBe('')
})

test('[F47] an external broker is trusted by its anchors alone, with a certificate or without, never with half of one', () => {
  const text = readFileSync(configuration(), 'utf8').replace(/^mqtt:[\s\S]*?(?=^server:)/m, '')
  const external = (more: string): void =>
    writeFileSync(configuration(), `${text}\nmqtt: { url: mqtts://broker.test:8883, anchors: server/root.pem${more} }\n`)
  external('')
  expect(readConfiguration(configuration()).mqtt).toMatchObject({ kind: 'external', certificate: null, key: null })
  external(', certificate: server/observer.pem, key: server/observer.key.pem')
  expect(readConfiguration(configuration()).mqtt).toMatchObject({ key: expect.stringContaining('PRIVATE KEY') })
  for (const alone of ['certificate: server/observer.pem', 'key: server/observer.key.pem']) {
    external(`, ${alone}`)
    expect(complaint().message).toContain(`mqtt.${alone.split(':')[0]} stands alone`)
  }
})

test('an external mosquitto is commanded by a certificate that it knows, and given lists only where there are some; mistakes name their line', () => {
  const text = readFileSync(configuration(), 'utf8').replace(/^mqtt:[\s\S]*?(?=^server:)/m, '')
  const pair = 'certificate: server/observer.pem, key: server/observer.key.pem'
  const enforcing = (more: string, url = `, ${pair}`, rest = ''): void =>
    writeFileSync(
      configuration(),
      `${text}${rest}\nmqtt:\n  { url: mqtts://broker.test:8883, anchors: server/root.pem${url},\n    enforce:\n      { kind: ${more} } }\n`,
    )
  enforcing('mosquitto')
  expect(readConfiguration(configuration()).mqtt).toMatchObject({ enforce: { own: null, crl: null } })
  enforcing(`mosquitto, ${pair}`, '')
  expect(readConfiguration(configuration()).mqtt).toMatchObject({
    key: null,
    enforce: { own: { key: expect.stringContaining('PRIVATE KEY') } },
  })
  const status = '\nstatus: { url: http://status.test }'
  enforcing('mosquitto, crl: { file: devices.crl, pid: /run/mosquitto.pid }', undefined, status)
  expect(readConfiguration(configuration()).mqtt).toMatchObject({
    enforce: { crl: { file: file('devices.crl'), pid: '/run/mosquitto.pid' } },
  })
  for (const [more, url, rest, said] of [
    ['emqx', undefined, '', 'mqtt.enforce.kind is mosquitto'],
    ['mosquitto, speed: 1', undefined, '', 'mqtt.enforce.speed is not known'],
    ['mosquitto', '', '', 'mqtt.enforce: mosquitto takes commands'],
    ['mosquitto, certificate: server/observer.pem', undefined, '', 'mqtt.enforce.certificate stands alone'],
    ['mosquitto, crl: { file: a }', undefined, status, 'mqtt.enforce.crl.pid is missing'],
    ['mosquitto, crl: { file: a, pid: b }', undefined, '', 'mqtt.enforce.crl: there are no revocation lists'],
    ['mosquitto, crl: { file: no/a, pid: b }', undefined, status, 'mqtt.enforce.crl.file: there is no folder'],
  ] as const) {
    enforcing(more, url, rest)
    const { message } = complaint()
    expect(message).toContain(said)
    expect(message).toMatch(/^birthmark\.yaml:\d+: /)
  }
})

test('earlier issuing CAs are read, and are no anchors of the server either', () => {
  change(/# previous: \[old-issuing.pem\]/, 'previous: [maker/issuing.pem]')
  writeFileSync(configuration(), readFileSync(configuration(), 'utf8').replace('previous: [maker', '  previous: [maker'))
  expect(readConfiguration(configuration()).issuer.previous).toHaveLength(1)
  change(/anchors: \[server\/root.pem\]/, 'anchors: [maker/issuing.pem]')
  expect(complaint().message).toContain('the device issuer is named as an anchor of the server')
})

test('a missing part, broken YAML and an alias bomb are told', () => {
  change(/^issuer:[\s\S]*?\n\n/m, '')
  expect(complaint().message).toContain('issuer is missing')
  writeFileSync(configuration(), 'fleet: [acme\nstate: x\n')
  expect(complaint().message).toMatch(/^birthmark.yaml:\d+: /)
  const bomb = [
    'a: &a [x,x,x,x,x,x,x,x,x]',
    ...'bcdefgh'.split('').map((name, i) => `${name}: &${name} [${Array(9).fill(`*${'abcdefgh'[i]}`)}]`),
  ]
  writeFileSync(configuration(), bomb.join('\n'))
  expect(complaint().code).toBe('configuration')
})

test('the issuer keys of init are encrypted, and their passphrase opens them', () => {
  for (const name of ['issuing.key.pem', 'root.key.pem'])
    expect(readFileSync(file('issuer', name), 'utf8')).toMatch(/^-----BEGIN ENCRYPTED PRIVATE KEY-----/)
  writeFileSync(file('other'), 'another passphrase\n', { mode: 0o600 })
  change(/file: .*passphrase/, 'file: other')
  expect(complaint().message).toContain('issuer.passphrase: it does not open issuer/issuing.key.pem')
  chmodSync(file('other'), 0o644)
  expect(complaint()).toMatchObject({ next: expect.stringContaining('consider the secret known') })
})

test('a systemd credential opens the issuer key', () => {
  change(/file: .*passphrase/, 'credential: passphrase')
  process.env.CREDENTIALS_DIRECTORY = file('issuer')
  try {
    expect(readConfiguration(configuration()).issuer.key).toMatchObject({ passphrase: { credential: 'passphrase' } })
  } finally {
    delete process.env.CREDENTIALS_DIRECTORY
  }
})

test('a key that others may read is refused, and the next step repairs it', () => {
  chmodSync(file('issuer', 'issuing.key.pem'), 0o640)
  expect(complaint()).toMatchObject({ next: `chmod 600 ${file('issuer', 'issuing.key.pem')}` })
})

test('certificates of birthmark dev are refused', async () => {
  await ensureTwoTier(file('dev'), 'Birthmark development, not for production', 'device', randomBytes)
  change(/birth-anchors.pem/, 'dev/root.pem')
  expect(complaint()).toMatchObject({ code: 'development_certificate' })
})

test('a store in PostgreSQL: by a unix socket as it is, over the network only with anchors, its password in a file of the owner', () => {
  const store = (lines: string) =>
    writeFileSync(configuration(), `${readFileSync(configuration(), 'utf8').split('\nstore:')[0]}\nstore:\n  postgres: ${lines}\n`)
  store('{ host: /run/postgresql, database: birthmark, user: birthmark }')
  expect(readConfiguration(configuration()).store).toEqual({
    ...{ kind: 'postgres', host: '/run/postgresql', port: 5432, database: 'birthmark', user: 'birthmark', password: null },
    ...{ anchors: null, schema: 'birthmark' },
  })
  store('{ host: db.acme.test, database: birthmark, user: birthmark }')
  expect(complaint().message).toMatch(/store.postgres.host is another machine/)
  writeFileSync(file('db.password'), 'hush\n', { mode: 0o644 })
  store('{ host: localhost, database: birthmark, user: birthmark, password: { file: db.password } }')
  expect(complaint().message).toMatch(/db.password may be read by others/)
  chmodSync(file('db.password'), 0o600)
  expect(readConfiguration(configuration()).store).toMatchObject({ password: { file: file('db.password') } })
  store('{ host: localhost, database: birthmark, user: birthmark, password: hush }')
  expect(complaint().message).toMatch(/store.postgres.password is \{file: PATH\} or \{credential: NAME\}/)
})
