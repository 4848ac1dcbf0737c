/**
 * Starts, waits for a signal or `stop(error)`, then closes what was started. Rejects with the error that `stop` was given.
 * A second signal does not wait for an orderly end.
 */
export declare function untilStopped(start: (stop: (error?: Error) => void) => Promise<() => Promise<void>>): Promise<void>;
