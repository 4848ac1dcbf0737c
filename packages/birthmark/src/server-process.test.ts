import { spawnSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { flagsFor, lineFlags, serverEnvironment, serverFlags } from './server-process.ts'

const program = `
import { becomeServer } from ${JSON.stringify(new URL('./server-process.ts', import.meta.url).href)}
const before = process.env.BEFORE ?? String(process.pid)
process.env.BEFORE = before
becomeServer(process)
console.log(JSON.stringify({ same: before === String(process.pid), flags: process.execArgv, tunables: process.env.GLIBC_TUNABLES, rest: process.argv.slice(1) }))
`

function run(env: Record<string, string> = {}) {
  const args = [
    '--input-type=module',
    '--disable-warning=ExperimentalWarning',
    '-e',
    program,
    '--',
    'serve',
    '--config',
    'a b.yaml',
  ]
  const { stdout, stderr } = spawnSync(process.execPath, args, { env: { ...process.env, ...env }, encoding: 'utf8' })
  expect(stderr).toBe('')
  return JSON.parse(stdout)
}

describe('the process of a server', () => {
  it('replaces itself once, under its process id, with its flags and arguments', () => {
    const seen = run()
    expect(seen.same).toBe(true)
    expect(seen.flags).toContain('--single-threaded-gc')
    expect(seen.flags).toContain('--disable-warning=ExperimentalWarning')
    expect(seen.tunables).toMatch(/tcache_count/)
    expect(seen.rest).toEqual(['serve', '--config', 'a b.yaml'])
  })

  it('does not try again when the flags were lost on the way', () => {
    expect(run({ BIRTHMARK_SERVER_PROCESS: '1' }).flags).not.toContain('--single-threaded-gc')
  })

  it('is what serve and the long work of the line run in, and nothing else', () => {
    expect([flagsFor('serve', '--config'), flagsFor('line', 'run')]).toEqual([serverFlags, lineFlags])
    expect([flagsFor('line', 'status'), flagsFor('status', 'run'), flagsFor(undefined, undefined)]).toEqual([[], [], []])
  })

  it('leaves an operator’s own tuning of the allocator alone', () => {
    expect(serverEnvironment({ GLIBC_TUNABLES: 'glibc.malloc.arena_max=1' }).GLIBC_TUNABLES).toBe('glibc.malloc.arena_max=1')
  })
})
