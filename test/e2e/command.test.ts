// The `birthmark` command through real processes: what it says, what it answers to mistakes, and how it starts, stops and goes on.

import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { birthmark, birthmarkProgram, development } from '../support/command.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
let folder: string
const file = (...names: string[]): string => join(folder, ...names)

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'bm-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const complaint = /^error: [a-z_]+: .+\nnext: .+\n$/

test('a mistake ends with exit 2, a sentence and a next step, and prints nothing on stdout', async () => {
  const { code, stdout, stderr } = await birthmark('line', 'issue')
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).toMatch(complaint)
})

describe('completion', () => {
  test('bash completes commands, subcommands and options', async () => {
    const { code, stdout } = await birthmark('completion', 'bash')
    expect(code).toBe(0)
    const script = file('completion.bash')
    writeFileSync(script, stdout)
    const complete = (...words: string[]): string[] => {
      const list = words.map(word => `'${word}'`).join(' ')
      const ask = `source ${script}; COMP_WORDS=(${list}); COMP_CWORD=${words.length - 1}; _birthmark; printf '%s\\n' "\${COMPREPLY[@]}"`
      return execFileSync('bash', ['-c', ask], { encoding: 'utf8' }).trim().split('\n')
    }
    expect(complete('birthmark', 'rev')).toEqual(['revoke'])
    expect(complete('birthmark', 'line', 'm')).toEqual(['manifest'])
    expect(complete('birthmark', 'line', 'issue', '--ma')).toEqual(['--make-key'])
    expect(complete('birthmark', 'sim', 'fleet', '--cou')).toEqual(['--count'])
  })
})

describe('without a server', () => {
  test.each([['devices'], ['revoke batch=1 --reason x'], ['secret mint gw-7'], ['sim fleet --count 1']])(
    '%s says that none runs and how to start one',
    async typed => {
      const { code, stderr } = await birthmark(...typed.split(' '), '--dir', file('nowhere'))
      expect(stderr).toMatch(complaint)
      expect(stderr).toContain('birthmark')
      expect([1, 4]).toContain(code)
    },
  )
})

describe('dev', () => {
  test('refuses every interface but loopback', async () => {
    for (const host of ['0.0.0.0', '::', '192.0.2.1', 'example.com']) {
      const { code, stderr } = await birthmark('dev', '--dir', file('refused'), '--host', host)
      expect(code).toBe(3)
      expect(stderr).toMatch(/^error: not_loopback: .+\nnext: .*birthmark serve\n$/)
    }
  })

  test('starts, tells what to type next, stops at SIGINT, and goes on with the same state', async () => {
    const state = file('resume')
    const first = await development(state)
    expect(statSync(state).mode & 0o777).toBe(0o700)
    expect(statSync(join(state, 'admin.sock')).mode & 0o777).toBe(0o600)
    for (const key of [
      'issuer/issuing.key.pem',
      'server/server.key.pem',
      'factory/root.key.pem',
      'notice.key.pem',
      'heartbeat.key',
    ])
      expect(statSync(join(state, key)).mode & 0o777, key).toBe(0o600)
    const text = execFileSync('openssl', ['x509', '-in', join(state, 'server', 'server.pem'), '-noout', '-issuer'], {
      encoding: 'utf8',
    })
    expect(text).toContain('not for production')

    const fleet = await birthmark('sim', 'fleet', '--count', '4', '--seconds', '1', '--dir', state, '--json')
    expect(fleet.code).toBe(0)
    expect(fleet.json.at(-1)).toMatchObject({ event: 'done', devices: 4, enrolled: 4, cut: 0 })

    const second = await birthmark('dev', '--dir', state, '--est-port', '0', '--mqtt-port', '0')
    expect(second).toMatchObject({ code: 1, stderr: expect.stringMatching(/^error: already_running: /) })

    const port = new URL(first.est).port
    const busy = await birthmark('dev', '--dir', file('busy'), '--est-port', port, '--mqtt-port', '0')
    expect(busy).toMatchObject({ code: 1, stderr: expect.stringMatching(/^error: port_busy: .+\nnext: .+--est-port/) })

    const { code, stderr } = await first.stop()
    expect(code).toBe(0)
    for (const said of ['Next, in another terminal:', `birthmark sim fleet --count 20 --dir ${state}`, 'Ctrl-C stops it'])
      expect(stderr).toContain(said)

    const issuer = readFileSync(join(state, 'issuer', 'issuing.pem'), 'utf8')
    const again = await development(state)
    const listed = await birthmark('devices', 'enrolled', '--dir', state, '--json')
    expect(listed.json).toHaveLength(4)
    expect(listed.json[0]).toMatchObject({
      state: 'enrolled',
      keyOrigin: 'device',
      groups: [expect.stringMatching(/^batch=sim-[ab]$/)],
    })
    expect(readFileSync(join(state, 'issuer', 'issuing.pem'), 'utf8')).toBe(issuer)
    const afterwards = await again.stop()
    expect(afterwards.code).toBe(0)
    expect(afterwards.stderr).toContain('(from before)')
  })

  test('told to end through npm, it ends as well, and its state is free', async () => {
    const state = file('through-npm')
    const args = ['run', '-s', 'birthmark', '--', 'dev', '--dir', state, '--est-port', '0', '--mqtt-port', '0', '--json']
    const npm = spawn('npm', args, { cwd: root, stdio: ['ignore', 'pipe', 'ignore'] })
    await new Promise(said => npm.stdout.once('data', said))
    npm.kill('SIGTERM')
    // Not the end of npm alone: whoever holds its output has ended.
    await new Promise(closed => npm.once('close', closed))
    const again = await development(state)
    expect((await again.stop()).code).toBe(0)
  }, 60_000)

  test('[F67] killed in the middle of an enrollment, it has lost nothing that a device was told', async () => {
    const state = file('killed')
    const first = await development(state)
    const fleet = birthmarkProgram('sim', 'fleet', '--count', '200', '--seconds', '110', '--dir', state, '--json')
    // As soon as some are through, and while others wait for their answer.
    let enrolled = 0
    while (enrolled < 20) {
      const { json } = await birthmark('devices', 'enrolled', '--limit', '1000', '--dir', state, '--json')
      enrolled = json.length
    }
    first.child.kill('SIGKILL')
    await first.ended
    const { est, mqtt } = first
    const again = await development(state, '--est-port', new URL(est).port, '--mqtt-port', new URL(mqtt).port)
    const recorded = async () => (await birthmark('devices', 'enrolled', '--limit', '1000', '--dir', state, '--json')).json.length
    expect(await recorded()).toBeGreaterThanOrEqual(enrolled)
    // Whoever was cut off comes back by itself.
    await expect.poll(recorded, { timeout: 60_000, interval: 1000 }).toBe(200)
    const told = await fleet.stop()
    expect(told.json.findLast(line => line.event === 'done')).toMatchObject({ devices: 200, enrolled: 200 })
    expect((await again.stop()).code).toBe(0)
  }, 120_000)
})
