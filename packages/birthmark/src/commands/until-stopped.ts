// A program that runs until it is told to stop: by a signal, or because it can promise nothing more.

// SIGHUP: the terminal was closed.
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/**
 * Starts, waits for a signal or `stop(error)`, then closes what was started. Rejects with the error that `stop` was given.
 * A second signal does not wait for an orderly end.
 */
export async function untilStopped(start: (stop: (error?: Error) => void) => Promise<() => Promise<void>>): Promise<void> {
  let stop: (error?: Error) => void = () => {}
  const stopped = new Promise<Error | undefined>(resolve => {
    stop = resolve
  })
  const release = takeSignals(stop)
  try {
    const close = await start(stop)
    // Nothing else may hold the event loop open (an embedder's unref'd sockets); this does.
    const hold = setInterval(() => {}, 1 << 30)
    const error = await stopped
    clearInterval(hold)
    await close()
    if (error) throw error
  } finally {
    release()
  }
}

/** Calls `asked` at the first signal; a second one ends the process. Until what it returns is called. */
export function takeSignals(asked: () => void): () => void {
  let before = false
  const onSignal = (): void => {
    if (before) process.exit(130)
    before = true
    asked()
  }
  for (const signal of SIGNALS) process.on(signal, onSignal)
  return () => {
    for (const signal of SIGNALS) process.off(signal, onSignal)
  }
}
