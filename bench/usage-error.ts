// Arguments that a benchmark does not know: the command says so and how it is used, instead of a trace.

export class UsageError extends Error {}
