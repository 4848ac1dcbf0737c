/** Documented in `birthmark --help`; scripts may rely on them. */
export declare const exitCodes: {
    readonly ok: 0;
    readonly failed: 1;
    readonly usage: 2;
    readonly refused: 3;
    readonly unreachable: 4;
};
export type Exit = keyof typeof exitCodes;
export declare class CommandError extends Error {
    readonly code: string;
    readonly next: string;
    readonly exit: Exit;
    /** `next`: what the reader can type or change now. */
    constructor(code: string, sentence: string, next: string, exit?: Exit, cause?: unknown);
}
/** A mistake in what was typed or configured. */
export declare function usageError(sentence: string, next: string): CommandError;
export declare function explain(error: unknown): CommandError;
