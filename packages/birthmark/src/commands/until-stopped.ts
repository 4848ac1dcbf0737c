// A program that runs until it is told to stop: by a signal, or because it can promise nothing more.

/**
 * Starts, waits for SIGINT, SIGTERM or `stop(error)`, then closes what was started. Rejects with the error that `stop` was given.
 * A second signal does not wait for an orderly end.
 */
export async function untilStopped(start: (stop: (error?: Error) => void) => Promise<() => Promise<void>>): Promise<void> {
  let stop: (error?: Error) => void = () => {}
  const stopped = new Promise<Error | undefined>(resolve => {
    stop = resolve
  })
  let asked = false
  const onSignal = (): void => {
    if (asked) process.exit(130)
    asked = true
    stop()
  }
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  try {
    const close = await start(stop)
    // Nothing else may hold the event loop open (an embedder's unref'd sockets); this does.
    const hold = setInterval(() => {}, 1 << 30)
    const error = await stopped
    clearInterval(hold)
    await close()
    if (error) throw error
  } finally {
    process.off('SIGINT', onSignal)
    process.off('SIGTERM', onSignal)
  }
}
