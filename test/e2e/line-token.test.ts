// A line whose root and issuing keys never leave their tokens: SoftHSM, by the command, from the root's desk to a verified manifest.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateSigningKey, type KeyType } from '@birthmark/factory-line'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { runCommandLine } from '../../packages/birthmark/src/command-line.ts'
import { createTerminal } from '../../packages/birthmark/src/terminal.ts'
import { type SoftToken, softToken } from '../support/soft-token.ts'

let token: SoftToken
let folder: string
let printed = ''
const file = (...names: string[]) => join(folder, ...names)

async function line(...args: string[]): Promise<number> {
  printed = ''
  const stream = {
    write(text: string) {
      printed += text
    },
  }
  return runCommandLine(['line', ...args], createTerminal({ stdout: stream, stderr: stream, env: {}, now: () => 0 }))
}

/** A key in the token, and the file that names it. */
function inToken(name: string, id: string, type: KeyType, pinFile = token.pinFile): string {
  token.importKey(generateSigningKey(type).pem, name, id)
  const settings = [
    `library: ${token.library}`,
    `token: { label: ${token.label} }`,
    `key: { label: ${name} }`,
    `pin: { file: ${pinFile} }`,
  ]
  writeFileSync(file(`${name}.yaml`), settings.join('\n'))
  return file(`${name}.yaml`)
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bm-line-token-'))
  token = softToken()
})
afterEach(() => {
  token.remove()
  rmSync(folder, { recursive: true })
})

test.each<[KeyType, KeyType]>([
  ['P-384', 'P-256'],
  ['RSA-2048', 'P-384'],
])('a root of %s and an issuing CA of %s in tokens: units are born, and openssl takes them', async (rootType, issuingType) => {
  const at = ['--dir', file('factory')]
  const desk = ['--dir', file('desk')]
  expect(await line('root', '--organization', 'Acme', ...desk, '--token', inToken('root', '01', rootType))).toBe(0)
  const asked = ['request', '--organization', 'Acme', '--sku', 'gw-2', '--station', 'A3', '--out', file('r.json')]
  expect(await line(...asked, ...at, '--token', inToken('issuing', '02', issuingType))).toBe(0)
  const sign = ['sign', file('r.json'), '--quota', '3', '--until', '2099-01-01', '--out', file('g.pem')]
  expect(await line(...sign, ...desk)).toBe(0)
  expect(await line('accept', file('g.pem'), '--root', file('desk', 'root.pem'), ...at)).toBe(0)
  writeFileSync(file('u.csv'), 'serial\nS-1\nS-2\n')
  expect(await line('run', '--csv', file('u.csv'), '--simulate', '--out', file('units'), ...at)).toBe(0)
  expect(printed).toContain('2 good')
  const check = ['-CAfile', file('desk', 'root.pem'), '-untrusted', file('factory', 'issuing.pem'), file('units', 'S-1.pem')]
  expect(execFileSync('openssl', ['verify', ...check], { encoding: 'utf8' })).toContain('OK')

  // No key file of either CA, and no PIN in what the folders and the reports hold.
  expect(existsSync(file('factory', 'issuing.key.pem'))).toBe(false)
  expect(readdirSync(file('desk')).sort()).toEqual(['root.pem', 'root.token.json'])
  for (const each of ['desk', 'factory'])
    for (const name of readdirSync(file(each))) expect(readFileSync(file(each, name), 'latin1')).not.toContain(token.pin)

  // What only reads needs no token; what signs says what is missing, and goes on where it was.
  token.unplug()
  expect(await line('status', ...at)).toBe(0)
  writeFileSync(file('u.csv'), 'serial\nS-1\nS-2\nS-3\n')
  const more = ['run', '--csv', file('u.csv'), '--allow-host-keys', '--out', file('units'), ...at]
  expect(await line(...more)).toBe(1)
  expect(printed).toContain('token_absent')
  token.plug()
  expect(await line(...more)).toBe(0)
  expect(printed).toContain('1 issued and to be read back, 2 done before')
})

test('init with --sku and --token: a line in one go whose issuing key is in a token, the root’s in a file or in a token too', async () => {
  const limits = ['--station', 'A3', '--quota', '2', '--until', '2099-01-01']
  const init = (sku: string, desk: string, ...more: string[]) =>
    line('init', '--organization', 'Acme', '--sku', sku, '--dir', file(sku), '--desk', file(desk), ...limits, ...more)
  writeFileSync(file('u.csv'), 'serial\nS-1\nS-2\nS-3\n')
  const issue = (sku: string) => line('run', '--csv', file('u.csv'), '--simulate', '--out', file(sku, 'units'), '--dir', file(sku))

  const first = inToken('issuing', '02', 'P-256')
  token.unplug()
  expect(await init('gw-2', 'desk', '--token', first)).toBe(1)
  expect(printed).toContain('token_absent')
  expect(['gw-2', 'desk'].filter(each => existsSync(file(each)))).toEqual([])
  token.plug()
  expect(await init('gw-2', 'desk', '--token', first)).toBe(0)
  expect(printed).toContain('issuing CA for gw-2: station A3, 2 units')
  expect(await line('root', '--organization', 'Acme', '--dir', file('vault'), '--token', inToken('root', '01', 'P-384'))).toBe(0)
  expect(await init('gw-3', 'vault', '--token', inToken('issuing-3', '03', 'RSA-2048'))).toBe(0)
  expect(printed).toContain('root that was there')

  for (const [sku, desk] of [
    ['gw-2', 'desk'],
    ['gw-3', 'vault'],
  ]) {
    // The quota that the root has signed is two.
    expect(await issue(sku)).toBe(3)
    expect(printed).toContain('quota_spent')
    const check = ['-CAfile', file(desk, 'root.pem'), '-untrusted', file(sku, 'issuing.pem')]
    for (const unit of ['S-1.pem', 'S-2.pem'])
      expect(execFileSync('openssl', ['verify', ...check, file(sku, 'units', unit)], { encoding: 'utf8' })).toContain('OK')
    expect(existsSync(file(sku, 'issuing.key.pem'))).toBe(false)
    expect(readdirSync(file(sku))).toContain('issuing.token.json')
    for (const name of readdirSync(file(sku)).filter(each => each !== 'units'))
      expect(readFileSync(file(sku, name), 'latin1'), name).not.toContain(token.pin)
  }
  expect([readdirSync(file('desk')).sort(), readdirSync(file('vault')).sort()]).toEqual([
    ['root.key.pem', 'root.pem'],
    ['root.pem', 'root.token.json'],
  ])

  // The key in the token signs, and nothing in its stead.
  writeFileSync(file('u.csv'), 'serial\nS-4\n')
  const third = ['--token', inToken('issuing-4', '04', 'P-256')]
  expect(await init('gw-4', 'desk', ...third)).toBe(0)
  token.unplug()
  expect(await line('status', '--dir', file('gw-4'))).toBe(0)
  expect(await issue('gw-4')).toBe(1)
  expect(printed).toContain('token_absent')
})

test('[F40] a wrong PIN is tried once, and a file that does not say enough is refused by its field', async () => {
  writeFileSync(file('wrong'), 'not-the-pin\n', { mode: 0o600 })
  const settings = inToken('root', '01', 'P-256', file('wrong'))
  const before = token.logins()
  for (const code of ['token_pin_wrong', 'token_pin_withheld']) {
    expect(await line('root', '--organization', 'Acme', '--dir', file('desk'), '--token', settings)).toBe(1)
    expect(printed).toContain(code)
  }
  expect(token.logins()).toBe(before + 1)
  writeFileSync(settings, readFileSync(settings, 'utf8').replace(/^pin.*$/m, 'pin: { text: 1234 }'))
  expect(await line('root', '--organization', 'Acme', '--dir', file('desk'), '--token', settings)).toBe(2)
  expect(printed).toContain('pin')
})
