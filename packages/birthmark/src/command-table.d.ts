import type { Command } from 'commander';
import type { Terminal } from './terminal.ts';
export interface CommandModule {
    /** Adds options, arguments, help text and actions to `command`, which has its name and summary already. */
    define(command: Command, terminal: Terminal): void;
}
export interface CommandEntry {
    name: string;
    summary: string;
    load(): Promise<CommandModule>;
}
export declare const commandTable: CommandEntry[];
