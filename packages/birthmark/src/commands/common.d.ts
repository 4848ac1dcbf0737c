import type { Command } from 'commander';
/** Finishes a command that runs: --json and examples. */
export declare function leaf(command: Command, examples: [command: string, what: string][], more?: string): Command;
export declare const defaultState = ".birthmark/dev";
/** The state folder of a running `dev` or `serve`. */
export declare function stateOption(command: Command): Command;
/** Collects a repeatable option. */
export declare function collect(value: string, before?: string[]): string[];
export declare function wholeNumber(name: string, least: number, most: number): (text: string) => number;
/** A file that was named on the command line; `bytesMax` guards against naming the wrong one. */
export declare function readInput(file: string, bytesMax: number): Buffer;
/** A word as a shell takes it back. */
export declare function quoted(word: string): string;
