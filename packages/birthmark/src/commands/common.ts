// What the commands share: the --json option, examples in help, the state folder, and files named on the command line.

import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { CommandError, usageError } from '../command-error.ts'

/** Finishes a command that runs: --json and examples. */
export function leaf(command: Command, examples: [command: string, what: string][], more = ''): Command {
  const width = Math.max(...examples.map(([typed]) => typed.length))
  const lines = examples.map(([typed, what]) => `  ${typed.padEnd(width)}   ${what}`)
  return command
    .option('--json', 'print JSON, one object a line, on stdout')
    .addHelpText('after', `\nExamples:\n${lines.join('\n')}${more ? `\n\n${more}` : ''}`)
}

export const defaultState = '.birthmark/dev'

/** The state folder of a running `dev` or `serve`. */
export function stateOption(command: Command): Command {
  return command.option(
    '--dir <folder>',
    'state folder of the server (or $BIRTHMARK_STATE)',
    process.env.BIRTHMARK_STATE ?? defaultState,
  )
}

/** ` --dir …` for a command to paste, nothing for the default. */
export function withDir(folder: string): string {
  return folder === defaultState ? '' : ` --dir ${quoted(folder)}`
}

/** `1 unit`, `2 units`. */
export const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? '' : 's'}`

/** Collects a repeatable option. */
export function collect(value: string, before: string[] = []): string[] {
  return [...before, value]
}

export function wholeNumber(name: string, least: number, most: number): (text: string) => number {
  return text => {
    const value = Number(text)
    if (!/^\d{1,9}$/.test(text) || value < least || value > most)
      throw usageError(`${name} is a whole number from ${least} to ${most}, not '${text}'`, 'give such a number')
    return value
  }
}

/** A file that was named on the command line; `bytesMax` guards against naming the wrong one. */
export function readInput(file: string, bytesMax: number): Buffer {
  return withInput(file, bytesMax, fd => readFileSync(fd))
}

/** Runs `work` on the open file. */
export function withInput<T>(file: string, bytesMax: number, work: (fd: number) => T): T {
  const fd = openInput(file, bytesMax)
  const close = () => closeSync(fd)
  let done: T
  try {
    done = work(fd)
  } catch (error) {
    close()
    throw error
  }
  if (done instanceof Promise) return done.finally(close) as T
  close()
  return done
}

function openInput(file: string, bytesMax: number): number {
  try {
    const fd = openSync(file, 'r')
    const { size } = fstatSync(fd)
    if (size <= bytesMax) return fd
    closeSync(fd)
    throw new CommandError('file_too_large', `${file} has ${size} bytes; at most ${bytesMax}`, 'name the right file', 'usage')
  } catch (error) {
    if (error instanceof CommandError) throw error
    const { code } = error as NodeJS.ErrnoException
    throw new CommandError(
      'file_unreadable',
      `cannot read ${file} (${code ?? 'error'})`,
      'check the path and its permissions',
      'usage',
      error,
    )
  }
}

/** A word as a shell takes it back. */
export function quoted(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}
