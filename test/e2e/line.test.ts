// The line as its engineers run it: processes, testers with curl over mutual TLS, a terminal, Ctrl-C in the middle of an order.
import { execFile, execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { birthmark, birthmarkProgram } from '../support/command.ts'

let folder: string
const file = (...names: string[]) => join(folder, ...names)
const line = (...args: string[]) => birthmark('line', ...args, '--dir', file('factory'))

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bm-line-e2e-'))
  expect(await line('init', '--organization', 'Acme')).toMatchObject({ code: 0 })
})
afterEach(() => rmSync(folder, { recursive: true }))

test('two testers share a station: each unit one certificate, what fails is counted, and the day closes', async () => {
  for (const tester of ['T1', 'T2']) expect(await line('tester', tester)).toMatchObject({ code: 0 })
  const serials = Array.from({ length: 6 }, (_, i) => `SN-${i}`)
  writeFileSync(file('u.csv'), `serial\n${serials.join('\n')}\n`)
  const options = ['--csv', file('u.csv'), '--group', 'lot=42', '--port', '0', '--dir', file('factory'), '--json']
  const station = birthmarkProgram('line', 'listen', ...options)
  const { port } = await station.said(each => each.listening === true)
  const tls = (name: string) => file('factory', 'tls', name)
  const post = async (tester: string, path: string, data: string): Promise<number> => {
    const identity = ['--cacert', tls('root.pem'), '--cert', tls(`${tester}.pem`), '--key', tls(`${tester}.key.pem`)]
    const args = ['-s', '-o', file(`${tester}.answer`), '-w', '%{http_code}', ...identity, '--data-binary', data]
    const { stdout } = await promisify(execFile)('curl', [...args, `https://127.0.0.1:${port}/units/${path}`])
    return Number(stdout)
  }
  const unit = async (tester: string, serial: string): Promise<void> => {
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', file(`${serial}.key`)]
    execFileSync('openssl', ['req', '-new', ...key, '-subj', `/CN=${serial}`, '-out', file(`${serial}.csr`)], { stdio: 'pipe' })
    expect(await post(tester, serial, `@${file(`${serial}.csr`)}`)).toBe(200)
    writeFileSync(file(`${serial}.pem`), readFileSync(file(`${tester}.answer`)))
    expect(await post(tester, `${serial}/held`, `@${file(`${serial}.pem`)}`)).toBe(204)
  }
  await Promise.all([
    (async () => {
      for (const serial of serials.slice(0, 3)) await unit('T1', serial)
    })(),
    (async () => {
      for (const serial of serials.slice(3, 5)) await unit('T2', serial)
    })(),
  ])
  // The other tester asks for a unit of the first with the first one's request: the same certificate. A serial from elsewhere: none.
  expect(await post('T2', 'SN-0', `@${file('SN-0.csr')}`)).toBe(200)
  expect(readFileSync(file('T2.answer'))).toEqual(readFileSync(file('SN-0.pem')))
  expect(await post('T2', 'SN-77', `@${file('SN-0.csr')}`)).toBe(409)
  expect(readFileSync(file('T2.answer'), 'utf8')).toContain('not_in_order')
  expect(await post('T2', 'SN-5', `@${file('SN-1.csr')}`)).toBe(409)
  expect(readFileSync(file('T2.answer'), 'utf8')).toContain('key_taken')
  expect(await post('T2', 'SN-5/failed', '{"step":"radio","cause":"no signal"}')).toBe(204)
  const { code, json } = await station.stop('SIGINT')
  expect([code, json.at(-1)]).toEqual([
    0,
    { counts: expect.objectContaining({ issued: 6, good: 5, not_in_order: 1, key_taken: 1 }) },
  ])

  expect(await line('close', '--out', file('reports'))).toMatchObject({ code: 0 })
  const report = JSON.parse(readFileSync(file('reports', 'yield.json'), 'utf8'))
  expect(report).toMatchObject({
    reserved: 5,
    good: 5,
    unaccounted: 0,
    failures: [{ step: 'radio', cause: 'no signal', count: 1 }],
  })
  expect(await line('manifest', '--out', file('m.jsonl'))).toMatchObject({ code: 0 })
  expect(readFileSync(file('m.jsonl'), 'utf8').match(/"groups":\["lot=42"\]/g)).toHaveLength(5)
  const check = ['-CAfile', file('factory', 'root.pem'), '-untrusted', file('factory', 'issuing.pem'), file('SN-4.pem')]
  expect(execFileSync('openssl', ['verify', ...check], { encoding: 'utf8' })).toContain('OK')
})

test('Ctrl-C ends an order between two units, and the same command ends it for good, with a label for each', async () => {
  const count = 4000
  writeFileSync(file('u.csv'), `serial\n${Array.from({ length: count }, (_, i) => `SN-${i}`).join('\n')}\n`)
  const options = ['--csv', file('u.csv'), '--out', file('units'), '--simulate', '--dir', file('factory')]
  const run = birthmarkProgram('line', 'run', ...options)
  while (!existsSync(file('units', 'SN-40.pem'))) await new Promise(resolve => setTimeout(resolve, 20))
  const cut = await run.stop('SIGINT')
  expect(cut.code).toBe(1)
  expect(cut.stderr).toContain('error: interrupted')
  const labels = () => readFileSync(file('units', 'labels.csv'), 'utf8').trim().split('\n').slice(1)
  const made = labels().length
  expect(made).toBeGreaterThan(40)
  expect(made).toBeLessThan(count)
  // As a power cut may leave them: a row is missing, and half a one is there.
  writeFileSync(
    file('units', 'labels.csv'),
    readFileSync(file('units', 'labels.csv'), 'utf8').split('\n').slice(0, -2).join('\n') + '\nSN-',
  )
  writeFileSync(file('u.csv'), `serial\n${Array.from({ length: made + 5 }, (_, i) => `SN-${i}`).join('\n')}\n`)
  const [result] = (await birthmark('line', 'run', ...options, '--json')).json
  expect(result).toMatchObject({ passed: made, good: 5, failed: 0 })
  expect(new Set(labels().map(row => row.split(',')[0])).size).toBe(made + 5)
  expect(labels()).toHaveLength(made + 5)
  expect(await line('close', '--out', file('reports'))).toMatchObject({ code: 0 })
})

test('a terminal shows a bar, the rate and the yield in one line; a file gets plain lines', async () => {
  writeFileSync(file('u.csv'), `serial,sku\n${Array.from({ length: 40 }, (_, i) => `SN-${i},`).join('\n')}\n`)
  const bin = fileURLToPath(new URL('../../packages/birthmark/src/birthmark.ts', import.meta.url))
  const node = [process.execPath, '--conditions=source', '--disable-warning=ExperimentalWarning', bin]
  const command = [...node, 'line', 'run', '--csv', file('u.csv'), '--out', file('units'), '--simulate', '--dir', file('factory')]
  // util-linux's script gives the command a terminal of its own.
  const seen = execFileSync('script', ['-qec', command.join(' '), '/dev/null'], {
    encoding: 'utf8',
    env: { ...process.env, TERM: 'xterm' },
  })
  expect(seen).toMatch(/\r\u001b\[2K█{20} 40\/40 {2}[\d.]+\/s {2}yield 100\.0 %/)
  expect(seen).toContain('✔')
  const plain = await birthmark(
    'line',
    'run',
    '--csv',
    file('u.csv'),
    '--out',
    file('units'),
    '--simulate',
    '--dir',
    file('factory'),
  )
  expect(plain).toMatchObject({ code: 0, stdout: expect.not.stringContaining('\u001b') })
  expect(plain.stdout).toContain('40 done before')
})
