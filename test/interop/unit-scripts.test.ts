// The scripts that a unit's certificate goes into a token or a TPM with, run as they are: OpenSC on SoftHSM, tpm2-tools on swtpm.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type UnitFormat, unitFile } from '@birthmark/factory-line'
import { afterEach, beforeEach, expect, test } from 'vitest'
import espVectors from '../../packages/factory-line/src/esp-secure-cert.vectors.json' with { type: 'json' }
import { softHsm } from '../support/soft-token.ts'

const [{ certificate, ca }] = espVectors.units
const unit = {
  serial: 'U:1',
  certificate: Buffer.from(certificate, 'base64'),
  chain: [Buffer.from(ca, 'base64')],
  hostKey: null,
}
let folder: string
let tpm: ChildProcess | null = null

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bm-scripts-'))
  for (const format of ['der', 'pkcs11', 'tpm'] as UnitFormat[]) {
    const { name, content } = unitFile(format, unit)
    writeFileSync(join(folder, name), content)
  }
})
afterEach(async () => {
  if (tpm) {
    const ended = new Promise(resolve => tpm?.once('exit', resolve))
    tpm.kill()
    await ended
    tpm = null
  }
  rmSync(folder, { recursive: true })
})

const run = (script: string, environment: Record<string, string>) =>
  execFileSync('sh', ['-e', script], { cwd: folder, env: { ...process.env, ...environment }, stdio: 'pipe' })

test('a token holds the certificate beside its key, and gives it back', () => {
  mkdirSync(join(folder, 'tokens'))
  writeFileSync(join(folder, 'softhsm2.conf'), `directories.tokendir = ${join(folder, 'tokens')}\nobjectstore.backend = file\n`)
  const environment = {
    SOFTHSM2_CONF: join(folder, 'softhsm2.conf'),
    PKCS11_MODULE: softHsm,
    PKCS11_TOKEN: 'unit',
    PKCS11_PIN: '648219',
  }
  const util = ['--init-token', '--free', '--label', 'unit', '--pin', '648219', '--so-pin', '12345678']
  execFileSync('softhsm2-util', util, { env: { ...process.env, ...environment }, stdio: 'pipe' })
  run('U_1.pkcs11.sh', environment)
  expect(readFileSync(join(folder, 'U_1.readback.der'))).toEqual(unit.certificate)
})

test('a TPM holds the certificate in its NV range, and gives it back', async () => {
  const port = await freePair()
  mkdirSync(join(folder, 'state'))
  const server = (kind: string, at: number) => [kind, `type=tcp,port=${at},bindaddr=127.0.0.1`]
  const flags = ['--tpmstate', `dir=${join(folder, 'state')}`, '--flags', 'not-need-init,startup-clear']
  tpm = spawn('swtpm', ['socket', '--tpm2', ...server('--server', port), ...server('--ctrl', port + 1), ...flags], {
    stdio: 'ignore',
  })
  const environment = { TPM2TOOLS_TCTI: `swtpm:host=127.0.0.1,port=${port}` }
  for (let tries = 0; ; tries++) {
    try {
      execFileSync('tpm2_getrandom', ['4'], { env: { ...process.env, ...environment }, stdio: 'pipe' })
      break
    } catch (error) {
      if (tries === 50) throw error
      await new Promise(resolve => setTimeout(resolve, 100))
    }
  }
  run('U_1.tpm.sh', environment)
  expect(readFileSync(join(folder, 'U_1.readback.der'))).toEqual(unit.certificate)
})

/** Two free ports side by side: tpm2-tools expects the control channel at the next one. */
async function freePair(): Promise<number> {
  const listen = (port: number) =>
    new Promise<ReturnType<typeof createServer> | null>(resolve => {
      const server = createServer()
      server.once('error', () => resolve(null))
      server.listen(port, '127.0.0.1', () => resolve(server))
    })
  for (let tries = 0; tries < 50; tries++) {
    const first = await listen(0)
    if (!first) continue
    const { port } = first.address() as { port: number }
    const second = await listen(port + 1)
    for (const each of [first, second]) each?.close()
    if (second) return port
  }
  throw new Error('no two free ports side by side')
}
