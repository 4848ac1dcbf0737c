// What a command prints. People read lines on stdout; with --json stdout carries JSON alone, one object a line, and the lines go to
// stderr. Colour and rewritten lines only on a terminal, and never with NO_COLOR (no-color.org).

import type { CommandError } from './command-error.ts'
import { commandTable } from './command-table.ts'
import { cutToWidth } from './display-width.ts'

export interface Terminal {
  readonly json: boolean
  /** A line for people. */
  line(text?: string): void
  /** `✔ what — where` */
  done(what: string, where?: string): void
  /** `✘ what — why`, then the next step. */
  bad(what: string, why: string, next: string): void
  /** Commands ready to paste, one a line. */
  commands(title: string, commands: string[]): void
  /** One line that is rewritten on a terminal. Elsewhere it appears at most every few seconds. */
  progress(text: string): void
  /** Lines that stay where they are and change, on a terminal. Elsewhere they are printed when one of them has changed. */
  block(): (lines: string[]) => void
  table(header: string[], rows: string[][]): void
  /** One JSON object on stdout, with --json alone. */
  result(value: object): void
  /** `error: code: sentence` and `next: …` on stderr; with --json also an object on stdout. */
  error(error: CommandError): void
  /** Text as it is, on stdout: help, a script, a file that was asked for. */
  raw(text: string): void
  /** The same terminal in JSON form or not. */
  with(json: boolean): Terminal
}

export interface Streams {
  stdout: { write(text: string): unknown; isTTY?: boolean; columns?: number }
  stderr: { write(text: string): unknown; isTTY?: boolean; columns?: number }
  env: Record<string, string | undefined>
  /** Milliseconds, for the pace of progress lines. */
  now(): number
}

// Names come from devices and strangers' certificates: nothing they hold may move the cursor or forge a line (FAULTS 66).
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g

export function printable(text: string): string {
  return text.replace(CONTROL, '\u{fffd}')
}

const names = commandTable.map(({ name }) => name).join('|')
const ownCommand = new RegExp(`\\bbirthmark (?=(?:${names}|--help)\\b)`, 'g')

export function createTerminal(streams: Streams, json = false): Terminal {
  // From a clone there is no `birthmark` on the PATH: what is printed to be typed is what works there.
  const typed = (text: string): string =>
    streams.env.npm_lifecycle_event ? text.replace(ownCommand, 'npm run --silent birthmark -- ') : text
  const people = json ? streams.stderr : streams.stdout
  // A dumb one knows no way back to a line.
  const live = Boolean(people.isTTY) && streams.env.TERM !== 'dumb'
  const paint = (code: number, text: string, on = live): string =>
    on && !streams.env.NO_COLOR && streams.env.TERM !== 'dumb' ? `\u001b[${code}m${text}\u001b[0m` : text
  let rewriting = false
  let lastProgress = Number.NEGATIVE_INFINITY

  // Short of the last cell, behind which some terminals wrap. One that does not know its width says 0.
  const width = () => Math.max(20, (people.columns || 80) - 1)
  const marks: { [mark: string]: number } = { '✔': 32, '✘': 31, '·': 2, '!': 33 }
  const marked = (text: string) => (text[0] in marks ? paint(marks[text[0]], text[0]) + text.slice(1) : text)

  const write = (text: string): void => {
    if (rewriting) people.write('\r\u001b[2K')
    rewriting = false
    people.write(`${text}\n`)
  }
  const line = (text = ''): void => write(text)

  return {
    json,
    line,
    done: (what, where) => write(`${paint(32, '✔')} ${what}${where ? paint(2, ` — ${where}`) : ''}`),
    bad(what, why, next) {
      write(`${paint(31, '✘')} ${what} — ${why}`)
      write(`  next: ${typed(next)}`)
    },
    commands(title, commands) {
      write('')
      write(title)
      for (const command of commands) write(`  ${paint(36, typed(command))}`)
    },
    progress(text) {
      if (live) {
        people.write(`\r\u001b[2K${cutToWidth(text, width())}`)
        rewriting = true
        return
      }
      // A log file wants a pulse, not a film.
      if (streams.now() - lastProgress < 3000) return
      lastProgress = streams.now()
      people.write(`${text}\n`)
    },
    block() {
      let shown: string[] = []
      return lines => {
        if (lines.join('\n') === shown.join('\n')) return
        if (live) {
          // Up over what was shown, and each line anew; cut, since a line that wraps would be two. What is left over below goes.
          const up = shown.length > 0 ? `\u001b[${shown.length}A` : ''
          const text = lines.map(one => `\u001b[2K${marked(cutToWidth(one, width()))}\n`).join('')
          people.write(`${up}${text}${shown.length > lines.length ? '\u001b[J' : ''}`)
        } else for (const one of lines) if (!shown.includes(one)) people.write(`${one}\n`)
        shown = lines
      }
    },
    table(header, rows) {
      const cells = [header, ...rows].map(row => row.map(printable))
      const widths = header.map((_, column) => Math.max(...cells.map(row => (row[column] ?? '').length)))
      const form = (row: string[]): string =>
        row
          .map((cell, column) => cell.padEnd(widths[column]))
          .join('  ')
          .trimEnd()
      write(paint(1, form(cells[0])))
      for (const row of cells.slice(1)) write(form(row))
    },
    result(value) {
      if (json) streams.stdout.write(`${JSON.stringify(value)}\n`)
    },
    error(error) {
      if (rewriting) people.write('\r\u001b[2K')
      rewriting = false
      const { stderr } = streams
      stderr.write(
        `${paint(31, 'error:', Boolean(stderr.isTTY))} ${error.code}: ${printable(error.message)}\nnext: ${typed(error.next)}\n`,
      )
      if (json)
        streams.stdout.write(`${JSON.stringify({ error: { code: error.code, message: error.message, next: error.next } })}\n`)
      if (streams.env.BIRTHMARK_TRACE)
        stderr.write(`${error.stack ?? ''}\n${error.cause instanceof Error ? (error.cause.stack ?? '') : ''}\n`)
    },
    raw: text => void streams.stdout.write(text),
    with: wanted => (wanted === json ? createTerminal(streams, json) : createTerminal(streams, wanted)),
  }
}
