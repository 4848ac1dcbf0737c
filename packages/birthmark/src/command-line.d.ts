import { Command } from 'commander';
import { type CommandEntry } from './command-table.ts';
import type { Terminal } from './terminal.ts';
/** The whole program, with the modules of `load` defined in full and the others by name alone. */
export declare function buildProgram(terminal: Terminal, load: (entry: CommandEntry) => boolean): Promise<Command>;
/** Runs one command. Never throws; the result is the exit code. */
export declare function runCommandLine(argv: string[], terminal: Terminal): Promise<number>;
