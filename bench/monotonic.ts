/** CLOCK_MONOTONIC in milliseconds, which all processes of a machine share. */
export const monotonicMs = () => Number(process.hrtime.bigint()) / 1e6
