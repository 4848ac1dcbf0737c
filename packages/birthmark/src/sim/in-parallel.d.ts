/** Runs `work` over `items`, at most `width` at a time; the first failure is thrown once what runs has ended. */
export declare function inParallel<T>(items: T[], width: number, work: (item: T, at: number) => Promise<void>): Promise<void>;
/** The value below which the share `p` of `values` lies (nearest rank); 0 of none. */
export declare function percentile(values: number[], p: number): number;
