// What one process of several on a port and a store may give, so that all of them together give what one alone would: the kernel spreads the
// connections of an address, and of a device, over them by chance, so each takes an equal part. Said to nobody and asked of nobody: a
// budget costs a look into memory, however many processes there are.

/**
 * A part of `whole`, a number of things held at once. `least`: chance does not deal evenly, and small parts would refuse who is within the
 * whole; so much each process gives in any case.
 */
export function shareOf(whole: number, processes: number, least: number): number {
  return processes === 1 ? whole : Math.min(whole, Math.max(least, Math.ceil(whole / processes)))
}
