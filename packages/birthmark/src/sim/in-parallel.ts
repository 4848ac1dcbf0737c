// Many things to do, a bounded number of them at once.

/** Runs `work` over `items`, at most `width` at a time; the first failure is thrown once what runs has ended. */
export async function inParallel<T>(items: T[], width: number, work: (item: T, at: number) => Promise<void>): Promise<void> {
  let next = 0
  let failure: unknown = null
  const worker = async (): Promise<void> => {
    while (next < items.length && failure === null) {
      const at = next++
      try {
        await work(items[at], at)
      } catch (error) {
        failure ??= error
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, worker))
  if (failure !== null) throw failure
}

/** The value below which the share `p` of `values` lies (nearest rank); 0 of none. */
export function percentile(values: number[], p: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted.length ? sorted[Math.max(0, Math.ceil(p * sorted.length) - 1)] : 0
}
