// How the process of a server is run: what V8 and the C library can only be told before they start. A process that was started plainly replaces
// itself once, under the same process id, with its descriptors and arguments, so that nobody has to write these flags into a unit file. What
// each is worth stands in docs/decisions/server-process.md.

/**
 * One thread collects garbage. V8 otherwise shares each collection of a few hundred kilobytes among helpers that cost more to wake than they
 * save, and on a server every core has requests to answer.
 */
export const serverFlags: readonly string[] = ['--single-threaded-gc']

/**
 * glibc: keep freed blocks at hand per size, in place of joining and splitting them again; OpenSSL asks for hundreds of small ones a handshake.
 * Other C libraries ignore it.
 */
const allocation = 'glibc.malloc.tcache_count=1000:glibc.malloc.mxfast=0'

/** An operator's own tuning stands. */
export function serverEnvironment(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { GLIBC_TUNABLES: allocation, ...environment }
}

/**
 * Replaces this process by one with the flags; returns where they stand already or cannot be had: on Bun and Windows, and for the child of a
 * parent that talks to it, whose channel would not survive. Call it before anything is opened.
 */
export function becomeServer(self: NodeJS.Process): void {
  const missing = serverFlags.filter(flag => !self.execArgv.includes(flag))
  if (missing.length === 0 || self.versions.bun !== undefined || self.platform === 'win32' || self.channel) return
  // Once, whatever becomes of the flags.
  const mark = 'BIRTHMARK_SERVER_PROCESS'
  if (self.env[mark] !== undefined || self.execve === undefined) return
  const argv = [self.execPath, ...missing, ...self.execArgv, ...self.argv.slice(1)]
  self.execve(self.execPath, argv, { ...serverEnvironment(self.env), [mark]: '1' } as Record<string, string>)
}
