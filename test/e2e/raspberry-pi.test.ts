// examples/raspberry-pi against `birthmark dev`: enrolls, publishes, renews without a restart, goes on after one.
import { execFileSync, spawn } from 'node:child_process'
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { tpmConfiguration } from '@birthmark/device-sdk/node'
import { expect, it } from 'vitest'
import { birthmark, development } from '../support/command.ts'
import { withTpm } from '../support/tpm.ts'

const script = fileURLToPath(new URL('../../examples/raspberry-pi/service.ts', import.meta.url))

function service(...folders: string[]) {
  const child = spawn(process.execPath, ['--conditions=source', '--disable-warning=ExperimentalWarning', script, ...folders], {
    env: { ...process.env, TELEMETRY_SECONDS: '0.2' },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let text = ''
  child.stdout.on('data', (part: Buffer) => {
    text += part.toString()
  })
  const ended = new Promise<number | null>(resolve => child.once('close', resolve))
  const said = (event: string, generation: number) =>
    expect.poll(() => text, { timeout: 30_000 }).toMatch(new RegExp(`"event":"${event}".*"generation":${generation}\\b`))
  return { child, ended, said, text: () => text }
}

it('enrolls, publishes, renews without a restart, and goes on after one', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'pi-'))
  const [dev, configuration, state] = ['dev', 'etc', 'var'].map(name => join(folder, name))
  const running = await development(dev)
  const line = ['--dir', join(dev, 'factory')]
  expect((await birthmark('line', 'issue', 'pi-1', '--make-key', '--out', folder, ...line)).code).toBe(0)
  expect((await birthmark('line', 'manifest', '--out', join(folder, 'm.jsonl'), ...line)).code).toBe(0)
  const imported = await birthmark('manifest', 'import', join(folder, 'm.jsonl'), '--dir', dev)
  expect(imported.code, imported.stderr).toBe(0)
  cpSync(join(dev, 'device'), configuration, { recursive: true })
  copyFileSync(join(folder, 'pi-1.pem'), join(configuration, 'birth.pem'))
  copyFileSync(join(folder, 'pi-1.key.pem'), join(configuration, 'birth.key.pem'))

  writeFileSync(join(configuration, 'passphrase'), 'sealed by a TPM\n')

  const first = service(configuration, state)
  await first.said('published', 1)
  first.child.kill('SIGUSR1')
  await first.said('published', 2)
  first.child.kill('SIGTERM')
  expect(await first.ended).toBe(0)
  expect(first.text()).not.toMatch(/"event":"(failed|unrenewed|revoked)"/)

  const keys = readdirSync(join(state, 'keys')).map(name => readFileSync(join(state, 'keys', name), 'utf8'))
  expect(keys.map(key => key.split('\n')[0])).toEqual(Array(3).fill('-----BEGIN ENCRYPTED PRIVATE KEY-----'))
  const second = service(configuration, state)
  await second.said('published', 2)
  second.child.kill('SIGTERM')
  expect(await second.ended).toBe(0)
  await running.stop()
  rmSync(folder, { recursive: true, force: true })
}, 120_000)

it('with keys in a TPM: enrolls, publishes, renews without a restart, and no file holds a key that opens elsewhere', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'pi-tpm-'))
  const [dev, configuration, state, chip, birth] = ['dev', 'etc', 'var', 'tpm', 'birth'].map(name => join(folder, name))
  writeFileSync(join(folder, 'openssl.cnf'), tpmConfiguration())
  // Its number in a file, for the signals that systemd would send it.
  const onBoard = (name: string, ...args: string[]) => {
    const program = fileURLToPath(new URL(`../../examples/raspberry-pi/${name}`, import.meta.url))
    const node = [
      process.execPath,
      `--openssl-config=${folder}/openssl.cnf`,
      '--conditions=source',
      '--disable-warning=ExperimentalWarning',
    ]
    const prepared = 'export DEVICE_KEYS=tpm TELEMETRY_SECONDS=0.2'
    const start = ['sh', '-c', 'echo $$ >"$0"; exec "$@"', join(folder, 'pid'), ...node, program, ...args]
    return withTpm(chip, start, { prepared, seconds: 90 })
  }
  const line = onBoard('tpm-birth-key.ts', birth, 'pi-2')
  const [request, trouble] = await Promise.all([text(line.stdout), text(line.stderr)])
  expect(request, trouble).toContain('BEGIN CERTIFICATE REQUEST')
  writeFileSync(join(folder, 'pi-2.csr'), request)

  const running = await development(dev)
  const factory = ['--dir', join(dev, 'factory')]
  expect((await birthmark('line', 'issue', 'pi-2', '--csr', join(folder, 'pi-2.csr'), '--out', folder, ...factory)).code).toBe(0)
  expect((await birthmark('line', 'manifest', '--out', join(folder, 'm.jsonl'), ...factory)).code).toBe(0)
  expect((await birthmark('manifest', 'import', join(folder, 'm.jsonl'), '--dir', dev)).code).toBe(0)
  cpSync(join(dev, 'device'), configuration, { recursive: true })
  copyFileSync(join(folder, 'pi-2.pem'), join(configuration, 'birth.pem'))
  copyFileSync(join(birth, 'birth.key'), join(configuration, 'birth.key.pem'))

  const service = onBoard('service.ts', configuration, state)
  let log = ''
  service.stdout.on('data', (part: Buffer) => {
    log += part.toString()
  })
  service.stderr.on('data', (part: Buffer) => {
    log += part.toString()
  })
  const ended = new Promise(resolve => service.once('close', resolve))
  const said = (event: string, generation: number) =>
    expect.poll(() => log, { timeout: 40_000 }).toMatch(new RegExp(`"event":"${event}".*"generation":${generation}\\b`))
  const signal = (name: NodeJS.Signals) => process.kill(Number(readFileSync(join(folder, 'pid'), 'utf8')), name)
  await said('published', 1)
  signal('SIGUSR1')
  await said('published', 2)
  signal('SIGTERM')
  expect(await ended).toBe(0)
  expect(log).not.toMatch(/"event":"(failed|unrenewed|revoked)"/)
  const keys = readdirSync(join(state, 'keys')).map(name => readFileSync(join(state, 'keys', name), 'utf8'))
  expect(keys.map(key => key.split('\n')[0])).toEqual(Array(3).fill('-----BEGIN TSS2 PRIVATE KEY-----'))
  await running.stop()
  rmSync(folder, { recursive: true, force: true })
}, 150_000)

it('has a unit file that leaves the service little, with a TPM hardly more', () => {
  const name = 'birthmark-device.service'
  const folder = mkdtempSync(join(tmpdir(), 'pi-unit-'))
  const units = join(folder, 'etc/systemd/system')
  const given = (file: string) => fileURLToPath(new URL(`../../examples/raspberry-pi/${file}`, import.meta.url))
  mkdirSync(join(units, `${name}.d`), { recursive: true })
  copyFileSync(given(name), join(units, name))
  const exposure = () => {
    const env = { ...process.env, LC_ALL: 'C.UTF-8', SYSTEMD_EMOJI: '0' }
    const options = ['--offline=true', '--no-pager', `--root=${folder}`]
    const text = execFileSync('systemd-analyze', ['security', ...options, name], { encoding: 'utf8', env })
    return Number(/Overall exposure level for \S+: ([\d.]+)/.exec(text)?.[1])
  }
  const files = exposure()
  copyFileSync(given('tpm.conf'), join(units, `${name}.d/tpm.conf`))
  const tpm = exposure()
  rmSync(folder, { recursive: true })
  expect(files).toBeLessThanOrEqual(1.1)
  // The manager's socket, and the group that it serves: the drop-in was read.
  expect(tpm).toBeGreaterThan(files)
  expect(tpm).toBeLessThanOrEqual(1.3)
})
