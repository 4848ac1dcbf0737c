// Keys at rest and keys that never leave: files under a passphrase; a token whose keys open mutual TLS, by OpenSSL's pkcs11 engine (SoftHSM); and a TPM (swtpm
// behind Debian's resource manager), by its PKCS #11 and by OpenSSL's provider.
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process'
import { createPublicKey, verify } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { encodeName, SERIAL_NUMBER } from '@birthmark/device-sdk/core'
import { createIdentity, fileKeys, memoryStore, tokenConfiguration, tpmConfiguration, tpmKeys } from '@birthmark/device-sdk/node'
import { neverExpires, startTestEst } from '@birthmark/device-sdk/testing'
import { afterEach, expect, test } from 'vitest'
import { lifeByLine } from '../support/birth-by-line.ts'
import { bareToken, privateKeysIn, softHsm } from '../support/soft-token.ts'
import { tpmPkcs11, tpmToken, withTpm } from '../support/tpm.ts'

const program = fileURLToPath(new URL('../support/token-device.ts', import.meta.url))
const node = [process.execPath, '--conditions=source', '--disable-warning=ExperimentalWarning', '--disable-warning=DEP0183']
const folders: string[] = []
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true })
})
const scratch = () => {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-keys-'))
  folders.push(folder)
  return folder
}

const pin = 'pin-735182'
/** Born and enrolled with the birth key, renewed with the operational one, each new one proven over TLS. */
const became = { state: 'active', generation: 2, deviceId: 'token-1', key: null, engine: 'pkcs11' }
const story = [
  ['simpleenroll', 'serialNumber=token-1', 200],
  ['cacerts', 'CN=token-1\nserialNumber=token-1', 200],
  ['simplereenroll', 'CN=token-1\nserialNumber=token-1', 200],
  ['cacerts', 'CN=token-1\nserialNumber=token-1', 200],
]

/** Starts a device, certifies its birth key when it shows it, and gives back what it said and what the server saw. */
async function live(folder: string, start: (server: string) => ChildProcessWithoutNullStreams) {
  const est = await startTestEst()
  writeFileSync(join(folder, 'server.json'), JSON.stringify({ url: est.url, trust: est.trust }))
  const told = await lifeByLine(start(join(folder, 'server.json')), async spki => {
    const subject = encodeName([{ oid: SERIAL_NUMBER, value: 'token-1' }])
    return est.authorities.birth.issue({ profile: 'birth', subject, spki, notBefore: 1577836800, notAfter: neverExpires })
  }).finally(() => est.close())
  return { told, seen: est.requests.flatMap(({ operation, client, status }) => (client ? [[operation, client, status]] : [])) }
}

test('a PKCS #11 token: enrolls, renews and opens mutual TLS with keys that it never shows', async () => {
  const folder = scratch()
  const env = bareToken(folder, 'dev ice', pin)
  writeFileSync(join(folder, 'openssl.cnf'), tokenConfiguration(softHsm))
  const { told, seen } = await live(folder, server =>
    spawn(node[0], [`--openssl-config=${folder}/openssl.cnf`, ...node.slice(1), program, softHsm, 'dev ice', pin, server], {
      env,
      stdio: 'pipe',
      timeout: 60_000,
    }),
  )
  expect(told).toMatchObject(became)
  expect(seen).toEqual(story)
  expect(told.shown).not.toContain(pin)
  expect(privateKeysIn(env, pin)).toEqual(Array(3).fill('sensitive, always sensitive, never extractable, local'))
})

test('a TPM by its PKCS #11 makes a key and signs with it', async () => {
  const folder = scratch()
  const command = [...node, fileURLToPath(new URL('../support/token-signature.ts', import.meta.url)), tpmPkcs11(), 'device', pin]
  const child = withTpm(folder, command, { prepared: tpmToken('device', pin) })
  const [stdout, trouble] = await Promise.all([text(child.stdout), text(child.stderr)])
  if (!stdout) throw new Error(trouble)
  const { made, found, signature } = JSON.parse(stdout) as Record<string, string>
  expect(found).toBe(made)
  const key = createPublicKey({ key: Buffer.from(made, 'hex'), format: 'der', type: 'spki' })
  expect(verify('sha256', Buffer.from([1, 2, 3]), key, Buffer.from(signature, 'hex'))).toBe(true)
}, 70_000)

test('a TPM by OpenSSL’s provider: keys that no power cut locks, mutual TLS as often as wanted, renewed under an open connection', async () => {
  const folder = scratch()
  writeFileSync(join(folder, 'openssl.cnf'), tpmConfiguration())
  const device = fileURLToPath(new URL('../support/tpm-device.ts', import.meta.url))
  const { told, seen } = await live(folder, server =>
    withTpm(folder, [node[0], `--openssl-config=${folder}/openssl.cnf`, ...node.slice(1), device, folder, server]),
  )
  expect(told).toMatchObject({ state: 'active', generation: 3, deviceId: 'token-1' })
  expect(told.answers).toBe(Array(41).fill('200').join(' '))
  // Of two identities, each for two trusts.
  expect(told.contexts).toBe(4)
  const operational = 'CN=token-1\nserialNumber=token-1'
  const connections = Array(20).fill(['cacerts', operational, 200])
  const renewed = [
    ['simplereenroll', operational, 200],
    ['cacerts', operational, 200],
  ]
  expect(seen).toEqual([...story.slice(0, 2), ...connections, ...renewed, ...connections, connections[0], ...renewed])
  expect(told.shown).not.toContain('PRIVATE KEY')
  for (const slot of ['birth', 'op-0', 'op-1']) {
    const file = join(folder, 'keys', `${slot}.key`)
    expect(statSync(file).mode & 0o777).toBe(0o600)
    // Wrapped by the TPM; and of no worth where that isn't.
    const parsed = execFileSync('openssl', ['asn1parse', '-in', file], { encoding: 'utf8' })
    expect(parsed).toContain('2.23.133.10.1.3')
    // fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, sign (TPM 2.0 Part 2, 8.3.2).
    expect(/DUMP\]:....0023000B(........)/.exec(parsed)?.[1]).toBe('00040472')
    expect(() => execFileSync('openssl', ['pkey', '-in', file, '-noout'], { stdio: 'pipe' })).toThrow()
  }
}, 70_000)

test('without the provider in OpenSSL’s configuration a TPM’s key says what is missing', () => {
  const folder = scratch()
  const wrapped = 'MIHyBgZngQUKAQOgAwEB/wIEQAAAAQ=='
  writeFileSync(join(folder, 'op-0.key'), `-----BEGIN TSS2 PRIVATE KEY-----\n${wrapped}\n-----END TSS2 PRIVATE KEY-----\n`)
  let code: string | undefined
  tpmKeys(folder).sign('op-0', new Uint8Array(3), error => {
    code = `${error?.code} ${error?.message}`
  })
  expect(code).toMatch(/^key_unavailable .*tpmConfiguration/)
  tpmKeys(folder).sign('op-1', new Uint8Array(3), error => {
    code = error?.code
  })
  expect(code).toBe('key_unavailable')
})

test('a file under a passphrase: mode 0600, opened by openssl with it and by nobody without, and it enrolls', async () => {
  const folder = scratch()
  const passphrase = 'correct horse battery staple'
  const est = await startTestEst()
  const keys = fileKeys(folder, 'P-256', undefined, { passphrase })
  const store = memoryStore()
  await est.bear('file-1', { keys, store })
  const identity = createIdentity({ keys, store, server: { url: est.url }, trust: est.trust })
  expect((await identity.enroll()).state).toBe('active')
  identity.close()
  for (const slot of ['birth', 'op-1']) {
    const file = join(folder, `${slot}.key`)
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(readFileSync(file, 'utf8')).toContain('BEGIN ENCRYPTED PRIVATE KEY')
    const text = execFileSync('openssl', ['pkey', '-in', file, '-passin', `pass:${passphrase}`, '-noout', '-text'], {
      encoding: 'utf8',
    })
    expect(text).toContain('NIST CURVE: P-256')
    expect(() => execFileSync('openssl', ['pkey', '-in', file, '-passin', 'pass:wrong', '-noout'], { stdio: 'pipe' })).toThrow()
  }
  // After a reboot: with the passphrase the same identity, without it a code that says what is wrong.
  const boot = (words: string | undefined) =>
    createIdentity({
      keys: fileKeys(folder, 'P-256', undefined, { passphrase: words }),
      store,
      server: { url: est.url },
      trust: est.trust,
    })
  expect((await boot(passphrase).renew()).generation).toBe(2)
  for (const words of [undefined, 'wrong'])
    await expect(boot(words).renew()).rejects.toMatchObject({
      code: 'key_unavailable',
      message: expect.not.stringContaining('wrong'),
    })
  expect(() => boot('')).toThrow(TypeError)
  await est.close()
})
