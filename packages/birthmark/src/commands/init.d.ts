import type { Command } from 'commander';
import type { Terminal } from '../terminal.ts';
export declare function define(command: Command, terminal: Terminal): void;
