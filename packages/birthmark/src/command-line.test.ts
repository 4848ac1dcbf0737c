import { describe, expect, test } from 'vitest'
import { runCommandLine } from './command-line.ts'
import { createTerminal } from './terminal.ts'

/** Runs the command with everything it prints kept. */
async function birthmark(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  let stdout = ''
  let stderr = ''
  const streams = {
    stdout: { write: (text: string) => (stdout += text) },
    stderr: { write: (text: string) => (stderr += text) },
    env: {},
    now: () => 0,
  }
  const code = await runCommandLine(argv, createTerminal(streams))
  return { code, stdout, stderr }
}

const complaint = /^error: [a-z_]+: .+\nnext: .+\n$/

describe('help', () => {
  test('the first page names every command, how to start, and the exit codes', async () => {
    const { code, stdout } = await birthmark('--help')
    expect(code).toBe(0)
    for (const name of [
      'dev',
      'init',
      'serve',
      'line',
      'manifest',
      'secret',
      'enroll',
      'sim',
      'devices',
      'revoke',
      'doctor',
      'completion',
    ])
      expect(stdout).toMatch(new RegExp(`^  ${name} `, 'm'))
    expect(stdout).toContain('Start here:')
    expect(stdout).toContain('Exit codes: 0 done')
  })

  test.each([
    'dev',
    'init',
    'serve',
    'line init',
    'line issue',
    'line manifest',
    'line status',
    'manifest import',
    'secret mint',
    'enroll',
    'sim fleet',
    'sim device',
    'devices',
    'revoke',
    'revoke parties',
    'doctor',
    'completion',
  ])('%s has examples and --json', async command => {
    const { code, stdout } = await birthmark(...command.split(' '), '--help')
    expect(code).toBe(0)
    expect(stdout).toContain(`Usage: birthmark ${command} `)
    expect(stdout).toContain('\nExamples:\n  ')
    expect(stdout).toContain('--json')
  })
})

describe('mistakes get exit 2, a sentence and a next step', () => {
  test.each([
    ['nonsense'],
    ['line'],
    ['line issue'],
    ['line issue SN-1'],
    ['line init'],
    ['revoke'],
    ['revoke batch=1'],
    ['devices a=b c=d'],
    ['devices --limit none'],
    ['dev --est-port 70000'],
    ['sim fleet --count 0'],
    ['sim device --birth x.pem'],
    ['enroll --server http://x --anchors y'],
    ['doctor --server https://x'],
    ['serve --config /nonexistent/birthmark.yaml'],
    ['manifest import /nonexistent/manifest'],
    ['completion tcsh'],
    ['dev --unknown'],
  ])('%s', async typed => {
    const { code, stderr, stdout } = await birthmark(...typed.split(' '))
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toMatch(complaint)
  })

  test('with --json the error is an object on stdout too', async () => {
    const { code, stdout } = await birthmark('revoke', 'batch=1', '--json')
    expect(code).toBe(2)
    const next = 'birthmark revoke --help'
    expect(JSON.parse(stdout)).toEqual({ error: { code: 'usage', message: expect.stringContaining('--reason'), next } })
  })
})

test('a subcommand that was called wrongly points to its own help', async () => {
  const { code, stdout } = await birthmark('revoke', 'plan', '--json')
  expect(code).toBe(2)
  expect(JSON.parse(stdout).error.next).toBe('birthmark revoke plan --help')
})

test('zsh and fish get a completion script that names every command', async () => {
  for (const shell of ['zsh', 'fish']) {
    const { code, stdout } = await birthmark('completion', shell)
    expect(code).toBe(0)
    for (const word of ['revoke', 'fleet', 'make-key']) expect(stdout).toContain(word)
  }
})

test('nothing typed is a request for help', async () => {
  const { code, stdout } = await birthmark()
  expect(code).toBe(0)
  expect(stdout).toContain('Start here:')
})
