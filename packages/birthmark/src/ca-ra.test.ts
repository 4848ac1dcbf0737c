// `birthmark ca ra` from the shell: which issuer the RA is of, what it leaves alone, and a key that lives elsewhere.

import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { softwareRa } from '@birthmark/est-server'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { runCommandLine } from './command-line.ts'
import { isRaOf } from './ra-certificate.ts'
import { ensureTwoTier, writeChain } from './server-certificate.ts'
import { createTerminal } from './terminal.ts'

let folder = ''
const file = (...names: string[]): string => join(folder, ...names)
const config = () => file('birthmark.yaml')

async function run(...args: string[]): Promise<{ code: number; printed: string; result: Record<string, unknown> }> {
  const said = { out: '', err: '' }
  const to = (name: 'out' | 'err') => ({
    write(text: string) {
      said[name] += text
    },
  })
  const terminal = createTerminal({ stdout: to('out'), stderr: to('err'), env: {}, now: () => 0 })
  const code = await runCommandLine(args, terminal)
  return { code, printed: said.out + said.err, result: args.includes('--json') ? JSON.parse(said.out.trim() || '{}') : {} }
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bm-'))
  expect((await run('init', folder, '--fleet', 'acme', '--host', 'est.acme.test')).code).toBe(0)
  await ensureTwoTier(file('maker'), 'Acme', 'device', randomBytes)
  copyFileSync(file('maker', 'root.pem'), file('birth-anchors.pem'))
  const { root, issuing } = await ensureTwoTier(file('issuer-2'), 'Acme 2', 'operational', randomBytes)
  writeChain(file('issuer-2'), { root, issuing: issuing.certificate })
})
afterAll(() => rmSync(folder, { recursive: true }))

const der = (...names: string[]) => new Uint8Array(Buffer.from(readFileSync(file(...names), 'utf8').split('-----')[2], 'base64'))

test('under the present issuer while no other is to come, under that one once it is; made once', async () => {
  const first = await run('ca', 'ra', file('scep-a'), '--config', config(), '--json')
  expect(first).toMatchObject({ code: 0, result: { role: 'present', fresh: true, key: file('scep-a', 'ra.key.pem') } })
  expect(isRaOf(der('scep-a', 'ra.pem'), der('issuer', 'issuing.pem'))).toBe(true)

  const yaml = readFileSync(config(), 'utf8')
  writeFileSync(
    config(),
    yaml.replace(/^issuer: .*\n/m, 'issuer:\n  next: { certificate: issuer-2/chain.pem, key: issuer-2/issuing.key.pem }\n'),
  )
  const second = await run('ca', 'ra', file('scep-b'), '--config', config())
  expect(second).toMatchObject({
    code: 0,
    printed: expect.stringContaining('next: { certificate: scep-b/ra.pem, key: scep-b/ra.key.pem }'),
  })
  expect(isRaOf(der('scep-b', 'ra.pem'), der('issuer-2', 'issuing.pem'))).toBe(true)
  expect(statSync(file('scep-b', 'ra.key.pem')).mode & 0o777).toBe(0o600)
  const pem = (name: string) => readFileSync(file('scep-b', name), 'utf8')
  await softwareRa({ certificate: pem('ra.pem'), privateKeyPem: pem('ra.key.pem') }).close()

  const before = [pem('ra.pem'), pem('ra.key.pem')]
  expect((await run('ca', 'ra', file('scep-b'), '--config', config(), '--json')).result).toMatchObject({
    role: 'next',
    fresh: false,
  })
  expect([pem('ra.pem'), pem('ra.key.pem')]).toEqual(before)
})

test('the RA of another issuer, or a key without its certificate, stays as it is', async () => {
  const held = readFileSync(file('scep-a', 'ra.pem'), 'utf8')
  const refused = await run('ca', 'ra', file('scep-a'), '--config', config())
  expect(refused).toMatchObject({ code: 2, printed: expect.stringContaining('name a new folder') })
  expect(readFileSync(file('scep-a', 'ra.pem'), 'utf8')).toBe(held)
  rmSync(file('scep-a', 'ra.pem'))
  const key = readFileSync(file('scep-a', 'ra.key.pem'), 'utf8')
  expect((await run('ca', 'ra', file('scep-a'), '--config', config())).code).toBe(2)
  expect(readFileSync(file('scep-a', 'ra.key.pem'), 'utf8')).toBe(key)
})

test('of a key in a token it is told the public half, and makes no other', async () => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  writeFileSync(file('token.pub.pem'), publicKey.export({ type: 'spki', format: 'pem' }))
  const made = await run('ca', 'ra', file('scep-c'), '--config', config(), '--public-key', file('token.pub.pem'), '--json')
  expect(made).toMatchObject({ code: 0, result: { key: null, fresh: true } })
  expect(existsSync(file('scep-c', 'ra.key.pem'))).toBe(false)
  const ra = softwareRa({ certificate: readFileSync(file('scep-c', 'ra.pem'), 'utf8'), privateKeyPem: pem })
  await ra.close()
  writeFileSync(file('token.key.pem'), pem)
  const { publicKey: curve } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  writeFileSync(file('curve.pem'), curve.export({ type: 'spki', format: 'pem' }))
  for (const wrong of ['token.key.pem', 'curve.pem'])
    expect((await run('ca', 'ra', file('scep-d'), '--config', config(), '--public-key', file(wrong))).code, wrong).toBe(2)
  expect(existsSync(file('scep-d'))).toBe(false)
})

test('what is there is as it was only for the key that it is of: another one, or none that can be read, is refused and changes nothing', async () => {
  const ask = (name: string, ...publicKey: string[]) =>
    run('ca', 'ra', file(name), '--config', config(), ...publicKey.flatMap(key => ['--public-key', file(key)]), '--json')
  const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  writeFileSync(file('token-2.pub.pem'), publicKey.export({ type: 'spki', format: 'pem' }))
  const held = ['scep-b', 'scep-c'].map(name => readFileSync(file(name, 'ra.pem'), 'utf8'))

  expect(await ask('scep-c', 'token.pub.pem')).toMatchObject({ code: 0, result: { fresh: false, key: null } })
  for (const name of ['scep-b', 'scep-c'])
    expect(await ask(name, 'token-2.pub.pem')).toMatchObject({ code: 2, printed: expect.stringContaining('of another key than') })
  // Its key is in a token: there is no file to name in the configuration.
  expect(await ask('scep-c')).toMatchObject({ code: 2, printed: expect.stringContaining('--public-key FILE') })
  copyFileSync(file('token.key.pem'), file('scep-b', 'ra.key.pem'))
  expect(await ask('scep-b')).toMatchObject({ code: 2, printed: expect.stringContaining('of another key than') })
  expect(['scep-b', 'scep-c'].map(name => readFileSync(file(name, 'ra.pem'), 'utf8'))).toEqual(held)
  expect(existsSync(file('scep-c', 'ra.key.pem'))).toBe(false)
})
