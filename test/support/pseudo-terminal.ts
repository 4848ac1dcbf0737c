// A command at a terminal: a real pseudo-terminal of a given width (script, of bsdutils), and the screen as somebody sits in front of it sees it.

import { type ChildProcess, spawn } from 'node:child_process'

export interface TerminalProgram {
  child: ChildProcess
  /** Everything that was written, control sequences included. */
  written(): string
  /** As keys are pressed: '\u0003' is Ctrl-C. */
  type(keys: string): void
  ended: Promise<number | null>
}

const quoted = (word: string) => `'${word.replaceAll("'", "'\\''")}'`

export function atTerminal(columns: number, command: string[], env: Record<string, string | undefined>): TerminalProgram {
  const line = `stty cols ${columns} rows 40; exec ${command.map(quoted).join(' ')}`
  const child = spawn('script', ['--quiet', '--return', '--flush', '--command', line, '/dev/null'], {
    env: { ...process.env, TERM: 'xterm', SHELL: '/bin/sh', ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  let written = ''
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    written += part
  })
  return {
    child,
    written: () => written,
    type: keys => void child.stdin.write(keys),
    ended: new Promise(resolve => child.once('close', resolve)),
  }
}

export const escapeCharacter = String.fromCharCode(27)
const token = new RegExp(`${escapeCharacter}\\[(\\d*)([A-Za-z])|\\r|\\n|[^${escapeCharacter}\\r\\n]`, 'gu')

/**
 * The lines of the screen after all of it was written. Knows what our output uses: up, clear line, clear below, colours, carriage return, line feed.
 * Throws for anything else, and for a line that would have wrapped.
 */
export function screenOf(written: string, columns: number): string[] {
  const lines: string[][] = [[]]
  let [row, column] = [0, 0]
  for (const [text, number, control] of written.matchAll(token)) {
    if (control === 'A') row = Math.max(0, row - Number(number || 1))
    else if (control === 'K') lines[row] = []
    else if (control === 'J') lines.splice(row)
    else if (control !== undefined && control !== 'm') throw new Error(`ESC [${number}${control}`)
    else if (text === '\r') column = 0
    else if (text === '\n') row++
    else if (control === undefined) {
      if (column >= columns) throw new Error(`it wraps: ${lines[row].join('')}`)
      lines[row][column++] = text
    }
    while (lines.length <= row) lines.push([])
  }
  return lines.map(line => Array.from(line, cell => cell ?? ' ').join(''))
}
