import type { CommandError } from './command-error.ts';
export interface Terminal {
    readonly json: boolean;
    /** A line for people. */
    line(text?: string): void;
    /** `✔ what — where` */
    done(what: string, where?: string): void;
    /** `✘ what — why`, then the next step. */
    bad(what: string, why: string, next: string): void;
    /** Commands ready to paste, one a line. */
    commands(title: string, commands: string[]): void;
    /** One line that is rewritten on a terminal. Elsewhere it appears at most every few seconds. */
    progress(text: string): void;
    table(header: string[], rows: string[][]): void;
    /** One JSON object on stdout, with --json alone. */
    result(value: object): void;
    /** `error: code: sentence` and `next: …` on stderr; with --json also an object on stdout. */
    error(error: CommandError): void;
    /** Text as it is, on stdout: help, a script, a file that was asked for. */
    raw(text: string): void;
    /** The same terminal in JSON form or not. */
    with(json: boolean): Terminal;
}
export interface Streams {
    stdout: {
        write(text: string): unknown;
        isTTY?: boolean;
        columns?: number;
    };
    stderr: {
        write(text: string): unknown;
        isTTY?: boolean;
        columns?: number;
    };
    env: Record<string, string | undefined>;
    /** Milliseconds, for the pace of progress lines. */
    now(): number;
}
export declare function printable(text: string): string;
export declare function createTerminal(streams: Streams, json?: boolean): Terminal;
