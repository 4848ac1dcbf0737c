// The commands of the line from the root's desk to the day's end, and the endpoint for testers.

import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { birthRequest, generateSigningKey } from '@birthmark/factory-line'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { runCommandLine } from './command-line.ts'
import { openLineEndpoint } from './line-endpoint.ts'
import { openLine } from './line-folder.ts'
import { ensureServerCertificate, ensureServiceCertificate, ensureTwoTier } from './server-certificate.ts'
import { createTerminal } from './terminal.ts'

let folder: string
let printed: string
const file = (...names: string[]): string => join(folder, ...names)

async function run(...args: string[]): Promise<number> {
  printed = ''
  const stream = {
    write(text: string) {
      printed += text
    },
  }
  return runCommandLine(args, createTerminal({ stdout: stream, stderr: stream, env: {}, now: () => 0 }))
}

const line = (...args: string[]): Promise<number> => run('line', ...args, '--dir', file('factory'))

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bm-line-'))
  expect(await run('line', 'root', '--organization', 'Acme', '--dir', file('desk'))).toBe(0)
  expect(await line('request', '--organization', 'Acme', '--sku', 'gw-2', '--station', 'A3', '--out', file('r.json'))).toBe(0)
  const sign = ['sign', file('r.json'), '--dir', file('desk'), '--quota', '3', '--until', '2099-01-01', '--out', file('g.pem')]
  expect(await run('line', ...sign)).toBe(0)
  expect(await line('accept', file('g.pem'), '--root', file('desk', 'root.pem'))).toBe(0)
})

afterEach(() => rmSync(folder, { recursive: true }))

test('an order is worked through, resumed, closed; host keys are loud; openssl takes what comes out', async () => {
  writeFileSync(file('u.csv'), 'serial,sku,station,groups\nS-1,gw-2,A3,lot=42\nS-2,gw-9,A3,\nS-3,,B1,\n')
  const order = ['run', '--station', 'A3', '--csv', file('u.csv'), '--out', file('units')]
  expect(await line(...order, '--simulate')).toBe(3)
  expect(printed).toContain('wrong_sku')
  // What to type next is for this line's folder and needs nothing added to it.
  const at = `--dir ${file('factory')}`
  expect(printed).toContain(`birthmark line close --out reports ${at}\n`)
  expect(printed).toContain(`birthmark line manifest --out manifest.jsonl ${at}\n`)
  expect(printed).toMatch(new RegExp(`birthmark line scrap SERIAL --step issue --cause WHY ${at}\n`))
  const check = [
    'verify',
    '-CAfile',
    file('desk', 'root.pem'),
    '-untrusted',
    file('factory', 'issuing.pem'),
    file('units', 'S-1.pem'),
  ]
  expect(execFileSync('openssl', check, { encoding: 'utf8' })).toContain('OK')
  expect(await line(...order, '--simulate', '--json')).toBe(3)
  expect(printed).toContain('"passed":1')
  expect(printed).toContain('"elsewhere":1')

  writeFileSync(file('h.csv'), 'serial\nS-4\n')
  expect(await line('run', '--csv', file('h.csv'), '--out', file('units'), '--allow-host-keys')).toBe(0)
  expect(printed).toContain('KEYS ARE MADE ON THIS HOST')
  expect(await line('close', '--out', file('reports'))).toBe(3)
  expect(printed).toContain('line_unaccounted')
  expect(await line('confirm', 'S-4', '--held', file('units', 'S-1.pem'))).toBe(3)
  expect(await line('confirm', 'S-4', '--held', file('units', 'S-4.pem'))).toBe(0)
  expect(await line('close', '--out', file('reports'))).toBe(0)
  expect(JSON.parse(readFileSync(file('reports', 'yield.json'), 'utf8'))).toMatchObject({ good: 2, unaccounted: 0, hostKeys: 1 })
  expect(readFileSync(file('reports', 'yield.html'), 'utf8')).toContain('host-keys')

  expect(await line('manifest', '--out', file('m.jsonl'))).toBe(0)
  expect(await run('manifest', 'verify', file('m.jsonl'), '--root', file('desk', 'root.pem'))).toBe(0)
  expect(printed).toContain('2 units')
  expect(printed).toContain('1 of their keys')
  const collect = [
    'line',
    'collect',
    file('factory', 'journal.jsonl'),
    '--root',
    file('desk', 'root.pem'),
    '--state',
    file('c.json'),
  ]
  expect(await run(...collect)).toBe(0)
})

test('init with --sku makes root, issuing CA and station in one go, and the next SKU under the same root', async () => {
  const init = (sku: string, ...more: string[]) =>
    run('line', 'init', '--organization', 'Acme', '--sku', sku, '--dir', file(sku), '--desk', file('root'), ...more)
  const limits = ['--station', 'B1', '--quota', '2', '--until', '2099-01-01']
  expect(await init('gw-3')).toBe(2)
  expect(printed).toContain('--station, --quota and --until')
  expect(await init('gw-3', '--station', 'B1', '--quota', '2', '--until', '2026-01-01')).toBe(2)
  expect(await run('line', 'init', '--organization', 'Acme', '--dir', file('t'), '--quota', '2')).toBe(2)
  for (const sku of ['gw-3', 'gw-4']) expect(await init(sku, ...limits)).toBe(0)
  expect(await init('gw-4', ...limits)).toBe(1)
  expect(printed).toContain('authority_exists')
  for (const sku of ['gw-3', 'gw-4']) {
    const check = ['verify', '-x509_strict', '-CAfile', file('root', 'root.pem'), file(sku, 'issuing.pem')]
    expect(execFileSync('openssl', check, { encoding: 'utf8' })).toContain('OK')
    expect(existsSync(file(sku, 'root.key.pem'))).toBe(false)
    expect(await run('line', 'status', '--dir', file(sku))).toBe(0)
    expect(printed).toMatch(new RegExp(`station B1: ${sku}, 2 units, \\S+ to 2099-01-01`))
  }
  // A reader of the help is led to both ways.
  expect(await run('line', '--help')).toBe(0)
  expect(printed).toMatch(/--quota 10000 --until .*an issuing CA for one SKU, its root in \.\/desk/)
  expect(printed).toContain('line root (once), request, sign, accept')
})

test('a quota that is spent in the middle of an order ends it with what was done, and what failed is named with its reason', async () => {
  writeFileSync(file('u.csv'), `serial,sku\nS-0,gw-9\n${[1, 2, 3, 4, 5].map(n => `S-${n},`).join('\n')}\n`)
  const order = ['run', '--csv', file('u.csv'), '--out', file('units'), '--simulate']
  expect(await line(...order)).toBe(3)
  expect(printed).toMatch(/✔ 3 good, 0 issued .* 1 failed/)
  expect(printed).toContain('1 × issue: wrong_sku\n      S-0 is a gw-9; this CA is for gw-2')
  expect(printed).toMatch(/error: quota_spent: .*\nnext: .*birthmark line request --dir FOLDER/)
  expect(await line('run', '--station', 'B7', '--csv', file('u.csv'), '--simulate')).toBe(3)
  expect(printed).toContain('wrong_station')
  expect(await line('run', '--csv', file('none.csv'), '--simulate')).toBe(2)
  expect(printed).toContain('order_unreadable')
  await run('line', 'request', '--organization', 'A', '--sku', 's', '--station', 'Z', '--dir', file('z'), '--out', file('z.json'))
  expect(await run('line', 'status', '--dir', file('z'))).toBe(1)
  expect(printed).toMatch(/has not got it yet\nnext: .*birthmark line sign/)
})

test('units are handed over from holder to holder, and only who holds them by the chain imports them', async () => {
  writeFileSync(file('u.csv'), 'serial\nS-1\n')
  expect(await line('run', '--csv', file('u.csv'), '--simulate', '--out', file('units'))).toBe(0)
  expect(await line('manifest', '--out', file('m.jsonl'))).toBe(0)
  const root = ['--root', file('desk', 'root.pem'), '--owners', file('owners.jsonl')]
  for (const name of ['acme', 'bolt']) {
    execFileSync('openssl', ['genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', file(`${name}.key.pem`)])
    chmodSync(file(`${name}.key.pem`), 0o600)
    execFileSync('openssl', ['pkey', '-in', file(`${name}.key.pem`), '-pubout', '-out', file(`${name}.pub`)])
  }
  const hand = (...more: string[]) => run('manifest', 'handover', file('m.jsonl'), ...root, ...more)
  expect(await hand('--dir', file('factory'), '--to', file('acme.pub'), '--name', 'Acme Fleet')).toBe(0)
  expect(await hand('--key', file('bolt.key.pem'), '--to', file('bolt.pub'), '--name', 'Bolt')).toBe(3)
  expect(printed).toContain('handover_refused')
  expect(await hand('--key', file('acme.key.pem'), '--to', file('bolt.pub'), '--name', 'Bolt')).toBe(0)
  const verify = (owner: string) => run('manifest', 'verify', file('m.jsonl'), ...root, '--owner', file(owner))
  expect(await verify('bolt.pub')).toBe(0)
  expect(printed).toMatch(/handed over to Acme Fleet.*handed over to Bolt/s)
  expect(await verify('acme.pub')).toBe(3)
  const take = ['manifest', 'import', file('m.jsonl'), ...root, '--dir', file('server'), '--owner']
  expect(await run(...take, file('acme.pub'))).toBe(3)
  expect(printed).toContain('handover_refused')
  // Ours: it goes on to the server, and here is none.
  expect(await run(...take, file('bolt.pub'))).toBe(4)
  writeFileSync(file('owners.jsonl'), readFileSync(file('owners.jsonl'), 'utf8').split('\n').slice(1).join('\n'))
  expect(await verify('bolt.pub')).toBe(3)
  expect(printed).toContain('handover_order')
})

test('[F20] testers with a certificate are served, others are not', async () => {
  const { issuing } = await ensureTwoTier(file('tls'), 'Line', 'testers', randomBytes)
  await ensureServerCertificate(file('tls'), ['127.0.0.1'], issuing, randomBytes)
  await ensureServiceCertificate(file('tls'), 'T1', issuing, randomBytes)
  const read = (name: string): Buffer => readFileSync(file('tls', name))
  const { station } = openLine(file('factory'))
  const tls = { cert: read('server.pem'), key: read('server.key.pem'), ca: read('root.pem') }
  const seen: string[] = []
  const endpoint = await openLineEndpoint({
    host: '127.0.0.1',
    port: 0,
    tls,
    station,
    order: null,
    groups: [],
    seen: (...what) => void seen.push(what.join(' ')),
  })
  const post = (
    path: string,
    body: Uint8Array | string,
    identity: object = { cert: read('T1.pem'), key: read('T1.key.pem') },
  ): Promise<[number, string]> =>
    new Promise((resolve, reject) => {
      const sent = request(
        { host: '127.0.0.1', port: endpoint.port, path, method: 'POST', ca: read('root.pem'), agent: false, ...identity },
        response => {
          let text = ''
          response.on('data', part => (text += part)).on('end', () => resolve([response.statusCode ?? 0, text]))
        },
      )
      sent.on('error', reject).end(body)
    })
  const csr = await birthRequest('S-1', generateSigningKey().key)
  await expect(post('/units/S-1', csr, {})).rejects.toThrow()
  const [status, pem] = await post('/units/S-1', csr)
  expect([status, pem.slice(0, 27)]).toEqual([200, '-----BEGIN CERTIFICATE-----'])
  expect(await post('/units/S-1/held', pem)).toEqual([204, ''])
  expect((await post('/units/S-1', await birthRequest('S-1', generateSigningKey().key)))[0]).toBe(409)
  expect((await post('/units/S-1', 'garbage'))[0]).toBe(400)
  expect((await post('/units/S-2', new Uint8Array(70_000)))[0]).toBe(413)
  expect(await post('/units/S-9/failed', '{"step":"radio","cause":"no signal"}')).toEqual([204, ''])
  expect((await post('/elsewhere', ''))[0]).toBe(404)
  expect(seen.slice(0, 2)).toEqual(['T1 S-1 issued', 'T1 S-1 good'])
  await endpoint.close()
  station.close()
})
