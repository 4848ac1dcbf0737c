import { expect, test } from 'vitest'
import { CommandError } from './command-error.ts'
import { createTerminal, printable, type Terminal } from './terminal.ts'

function captured(options: { isTTY?: boolean; env?: Record<string, string>; json?: boolean } = {}): {
  terminal: Terminal
  out: () => string
  err: () => string
  wait: (ms: number) => void
} {
  let stdout = ''
  let stderr = ''
  let now = 0
  const isTTY = options.isTTY ?? false
  const terminal = createTerminal(
    {
      stdout: { write: text => (stdout += text), isTTY, columns: 40 },
      stderr: { write: text => (stderr += text), isTTY },
      env: options.env ?? {},
      now: () => now,
    },
    options.json,
  )
  return {
    terminal,
    out: () => stdout,
    err: () => stderr,
    wait: ms => {
      now += ms
    },
  }
}

test('a line that was made says what and where', () => {
  const { terminal, out } = captured()
  terminal.done('key', '/tmp/key.pem')
  terminal.bad('clock', 'before this release', 'set it')
  expect(out()).toBe('✔ key — /tmp/key.pem\n✘ clock — before this release\n  next: set it\n')
})

test('colour only on a terminal, and never with NO_COLOR', () => {
  for (const [options, coloured] of [
    [{ isTTY: true }, true],
    [{ isTTY: false }, false],
    [{ isTTY: true, env: { NO_COLOR: '1' } }, false],
    [{ isTTY: true, env: { TERM: 'dumb' } }, false],
  ] as const) {
    const { terminal, out } = captured(options)
    terminal.done('x')
    expect(out().includes('\u001b[32m')).toBe(coloured)
  }
})

test('progress is rewritten on a terminal and cut to its width; elsewhere it is a line every three seconds', () => {
  const live = captured({ isTTY: true, env: { NO_COLOR: '1' } })
  live.terminal.progress('y'.repeat(100))
  live.terminal.done('x')
  expect(live.out()).toBe(`\r\u001b[2K${'y'.repeat(39)}\r\u001b[2K✔ x\n`)
  const log = captured()
  for (let i = 0; i < 10; i++) {
    log.terminal.progress(`at ${i}`)
    log.wait(1000)
  }
  expect(log.out()).toBe('at 0\nat 3\nat 6\nat 9\n')
})

test('with --json stdout carries objects alone', () => {
  const { terminal, out, err } = captured({ json: true })
  terminal.done('made', 'here')
  terminal.result({ made: true })
  terminal.error(new CommandError('port_busy', 'taken', 'another port'))
  expect(out()).toBe('{"made":true}\n{"error":{"code":"port_busy","message":"taken","next":"another port"}}\n')
  expect(err()).toBe('✔ made — here\nerror: port_busy: taken\nnext: another port\n')
})

test('[F66] nothing in a name moves the cursor or forges a line', () => {
  const evil = 'a\u001b[2J\r\n✔ all good\u202e\u0085b'
  expect(printable(evil)).not.toMatch(/[\u0000-\u001f\u0085\u202e]/)
  const { terminal, out } = captured()
  terminal.table(['device'], [[evil]])
  expect(out().split('\n')).toHaveLength(3)
})

test('from a clone, what is printed to be typed is what works there', () => {
  const { terminal, out, err } = captured({ env: { npm_lifecycle_event: 'birthmark' } })
  terminal.commands('Next:', ['birthmark devices --dir x', 'curl birthmark.example'])
  terminal.error(new CommandError('not_running', 'no server', 'start it: birthmark dev'))
  expect(out()).toBe('\nNext:\n  npm run --silent birthmark -- devices --dir x\n  curl birthmark.example\n')
  expect(err()).toContain('next: start it: npm run --silent birthmark -- dev\n')
})

test('lines that stay where they are are cut by the cells they take, and what is left over below them goes', () => {
  const { terminal, out } = captured({ isTTY: true })
  const show = terminal.block()
  show(['✔ planned', `· ${'漏'.repeat(30)}`, 'e\u0301'.repeat(60)])
  // 39 cells: a wide character takes two, a mark none, and nothing is cut in half.
  const first = `\u001b[2K\u001b[32m✔\u001b[0m planned\n\u001b[2K\u001b[2m·\u001b[0m ${'漏'.repeat(18)}\n\u001b[2K${'e\u0301'.repeat(39)}\n`
  expect(out()).toBe(first)
  show(['✔ undone'])
  expect(out().slice(first.length)).toBe('\u001b[3A\u001b[2K\u001b[32m✔\u001b[0m undone\n\u001b[J')
})

test('a terminal that does not know its width has eighty, and a dumb one gets lines', () => {
  const write = (text: string) => (written += text)
  let written = ''
  for (const env of [{ NO_COLOR: '1' }, { TERM: 'dumb' }]) {
    const streams = { stdout: { write, isTTY: true, columns: 0 }, stderr: { write }, env, now: () => 0 }
    createTerminal(streams).block()(['x'.repeat(100)])
  }
  expect(written).toBe(`\u001b[2K${'x'.repeat(79)}\n${'x'.repeat(100)}\n`)
})
