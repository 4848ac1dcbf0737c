// From argv to an exit code. Promises that every failure ends as one `error:` and one `next:` line, and that only the command that was
// called for is loaded.

import { Command, CommanderError } from 'commander'
import { type Exit, exitCodes, explain, Interrupted, usageError } from './command-error.ts'
import { type CommandEntry, commandTable } from './command-table.ts'
import type { Terminal } from './terminal.ts'
import { VERSION } from './version.ts'

const EPILOGUE = `
Start here:
  birthmark dev                          a manufacturer, a server and a broker on this machine
  birthmark sim fleet --count 20         twenty devices that use them
  birthmark devices                      see them
  birthmark revoke batch=sim-a --reason stolen --yes

Exit codes: 0 done · 1 failed · 2 wrong usage or configuration · 3 refused · 4 not reachable
Every command takes --json (one JSON object a line on stdout) and --help (with examples). NO_COLOR is respected.`

/** The whole program, with the modules of `load` defined in full and the others by name alone. */
export async function buildProgram(terminal: Terminal, load: (entry: CommandEntry) => boolean): Promise<Command> {
  const program = new Command('birthmark')
    .description('Gives devices an identity and takes it back.')
    .version(VERSION, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print help for a command')
    .addHelpText('after', EPILOGUE)
  settle(program, terminal)
  for (const entry of commandTable) {
    const command = program
      .command(entry.name)
      .summary(entry.summary)
      .description(entry.summary)
      .helpOption('-h, --help', 'print help')
    settle(command, terminal)
    if (load(entry)) {
      const module = await entry.load()
      module.define(command, terminal)
      for (const inner of command.commands) settle(inner, terminal)
    }
  }
  return program
}

function settle(command: Command, terminal: Terminal): void {
  command.exitOverride().allowExcessArguments(false).showSuggestionAfterError(true)
  // Commander's own wording reaches the reader through our error form, not beside it.
  command.configureOutput({ writeOut: text => terminal.raw(text), writeErr: () => {}, outputError: () => {} })
}

/** The command and subcommands that were called, as far as there are such. */
function calledPath(program: Command | null, words: readonly string[]): string {
  const path: string[] = []
  let at = program?.commands ?? []
  for (const word of words) {
    const found = at.find(command => command.name() === word)
    if (!found) break
    path.push(word)
    at = found.commands
  }
  return path.map(word => `${word} `).join('')
}

/** Runs one command. Never throws; the result is the exit code. */
export async function runCommandLine(argv: string[], terminal: Terminal): Promise<number> {
  const json = argv.includes('--json')
  const output = terminal.with(json)
  const words = argv.filter(word => !word.startsWith('-') && word !== 'help')
  let program: Command | null = null
  try {
    const called = words[0] ?? ''
    program = await buildProgram(output, entry => entry.name === called)
    if (argv.length === 0) {
      program.outputHelp()
      return exitCodes.ok
    }
    await program.parseAsync(argv, { from: 'user' })
    return exitCodes.ok
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return exitCodes.ok
      const sentence =
        error.message === '(outputHelp)' ? 'a subcommand is missing' : error.message.replace(/^error: /, '').replace(/\n/g, ' ')
      output.error(usageError(sentence, `birthmark ${calledPath(program, words)}--help`))
      return exitCodes.usage
    }
    if (error instanceof Interrupted) return error.exitCode
    const told = explain(error)
    output.error(told)
    return exitCodes[told.exit as Exit]
  }
}
