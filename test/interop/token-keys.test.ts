// Keys at rest and keys that never leave: files under a passphrase; a token whose keys open mutual TLS, by OpenSSL's pkcs11 engine (SoftHSM); and a TPM (swtpm
// behind Debian's resource manager) that makes keys and signs. What of TLS a TPM's keys do not do on Node: docs/device-keys.md.
import { execFile, execFileSync, spawn } from 'node:child_process'
import { createPublicKey, verify } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { encodeName, SERIAL_NUMBER } from '@birthmark/device-sdk/core'
import { createIdentity, fileKeys, memoryStore, tokenConfiguration } from '@birthmark/device-sdk/node'
import { neverExpires, startTestEst } from '@birthmark/device-sdk/testing'
import { afterEach, expect, test } from 'vitest'
import { softHsm } from '../support/soft-token.ts'

const run = promisify(execFile)
const program = fileURLToPath(new URL('../support/token-device.ts', import.meta.url))
const node = [
  process.execPath,
  '--conditions=source',
  '--disable-warning=ExperimentalWarning',
  '--disable-warning=DEP0183',
  program,
]
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

/** Runs the device, certifies its birth key when it shows it, and gives back what it said and what the server saw. */
async function live(
  folder: string,
  library: string,
  token: string,
  start: (args: string[], file: string) => [string, string[], object?],
) {
  const est = await startTestEst()
  writeFileSync(join(folder, 'server.json'), JSON.stringify({ url: est.url, trust: est.trust }))
  writeFileSync(join(folder, 'openssl.cnf'), tokenConfiguration(library))
  const [command, args, env] = start(
    [...node.slice(1), library, token, pin, join(folder, 'server.json')],
    join(folder, 'openssl.cnf'),
  )
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: 'pipe', timeout: 60_000 })
  let said = ''
  let trouble = ''
  child.stderr.on('data', part => {
    trouble += part
  })
  child.stdout.on('data', part => {
    const before = said.includes('\n')
    said += part
    if (before || !said.includes('\n')) return
    const spki = new Uint8Array(Buffer.from(said.split('\n')[0], 'hex'))
    const subject = encodeName([{ oid: SERIAL_NUMBER, value: 'token-1' }])
    const birth = est.authorities.birth.issue({ profile: 'birth', subject, spki, notBefore: 1577836800, notAfter: neverExpires })
    child.stdin.end(`${Buffer.from(birth).toString('hex')}\n`)
  })
  const code = await new Promise(resolve => child.on('close', resolve))
  await est.close()
  if (code !== 0) throw new Error(`the device ended with ${code}: ${trouble}`)
  const told = JSON.parse(said.split('\n')[1])
  return { told, seen: est.requests.flatMap(({ operation, client, status }) => (client ? [[operation, client, status]] : [])) }
}

test('a PKCS #11 token: enrolls, renews and opens mutual TLS with keys that it never shows', async () => {
  const folder = scratch()
  execFileSync('mkdir', [join(folder, 'tokens')])
  writeFileSync(
    join(folder, 'softhsm2.conf'),
    `directories.tokendir = ${folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n`,
  )
  const env = { ...process.env, SOFTHSM2_CONF: join(folder, 'softhsm2.conf') }
  execFileSync('softhsm2-util', ['--init-token', '--free', '--label', 'dev ice', '--pin', pin, '--so-pin', '12345678'], {
    env,
    stdio: 'pipe',
  })
  const { told, seen } = await live(folder, softHsm, 'dev ice', (args, file) => [
    node[0],
    [`--openssl-config=${file}`, ...args],
    env,
  ])
  expect(told).toMatchObject(became)
  expect(seen).toEqual(story)
  expect(told.shown).not.toContain(pin)
  const objects = execFileSync('pkcs11-tool', ['--module', softHsm, '--login', '--pin', pin, '-O'], {
    env,
    encoding: 'utf8',
    stdio: 'pipe',
  })
  expect(objects.match(/Private Key Object/g)).toHaveLength(3)
  expect(objects.match(/sensitive, always sensitive, never extractable/g)).toHaveLength(3)
})

test('a TPM by its PKCS #11 makes a key and signs with it', async () => {
  const folder = scratch()
  const pkcs11 = execFileSync('sh', ['-c', 'ls /usr/lib/*/pkcs11/libtpm2_pkcs11.so'], { encoding: 'utf8' }).trim()
  const script = `
    cd '${folder}' && mkdir state store
    # Free ports of this machine: swtpm wants two next to each other.
    for port in 24411 24421 24431 24441 24451; do
      swtpm socket --tpm2 --tpmstate dir=state --server type=tcp,port=$port,bindaddr=127.0.0.1 --ctrl type=tcp,port=$((port+1)),bindaddr=127.0.0.1 --flags not-need-init,startup-clear >swtpm.log 2>&1 &
      tpm=$!
      sleep 0.4
      kill -0 $tpm 2>/dev/null && break
    done
    tpm2-abrmd --allow-root --session --tcti=swtpm:host=127.0.0.1,port=$port >abrmd.log 2>&1 &
    manager=$!
    trap 'kill $manager $tpm 2>/dev/null' EXIT
    export TPM2_PKCS11_STORE="$PWD/store" TPM2_PKCS11_TCTI=tabrmd:bus_type=session TPM2TOOLS_TCTI=tabrmd:bus_type=session
    for try in 1 2 3 4 5 6 7 8 9 10; do sleep 0.3; tpm2_getcap properties-fixed >/dev/null 2>&1 && break; done
    tpm2_ptool init --path store >setup.log 2>&1
    tpm2_ptool addtoken --pid=1 --sopin=sopin-1 --userpin='${pin}' --label=device --path store >>setup.log 2>&1 || cat setup.log >&2
timeout 40 "$@"`
  const command = [...node.slice(0, -1), fileURLToPath(new URL('../support/token-signature.ts', import.meta.url))]
  const { stdout } = await run('dbus-run-session', ['--', 'sh', '-c', script, 'sh', ...command, pkcs11, 'device', pin], {
    timeout: 60_000,
  })
  const { made, found, signature } = JSON.parse(stdout) as Record<string, string>
  expect(found).toBe(made)
  const key = createPublicKey({ key: Buffer.from(made, 'hex'), format: 'der', type: 'spki' })
  expect(verify('sha256', Buffer.from([1, 2, 3]), key, Buffer.from(signature, 'hex'))).toBe(true)
}, 70_000)

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
