// How the process of a server or of a factory line is run: what V8 and the C library can only be told before they start. A process that was started plainly replaces
// itself once, under the same process id, with its descriptors and arguments, so that nobody has to write these flags into a unit file. What
// each is worth stands in docs/decisions/server-process.md.

/**
 * One thread collects garbage. V8 otherwise shares each collection of a few hundred kilobytes among helpers that cost more to wake than they
 * save, and on a server every core has requests to answer.
 */
export const serverFlags: readonly string[] = ['--single-threaded-gc']

/**
 * A station is often a small machine, and its journal of a million units is read in flat buffers: bounds on V8's heap, so that garbage is looked for
 * before the machine's memory is used up. 256 MB of resident memory for a million units are promised; V8's part of it is below 100.
 */
export const lineFlags: readonly string[] = [...serverFlags, '--max-semi-space-size=2', '--max-old-space-size=72']

/** Those of the line's commands that work through whole orders or journals. */
const lineWork = new Set(['run', 'listen', 'manifest', 'close', 'collect'])

/** What the process of a command needs; none for most. */
export function flagsFor(command: string | undefined, subcommand: string | undefined): readonly string[] {
  if (command === 'serve') return serverFlags
  return command === 'line' && subcommand !== undefined && lineWork.has(subcommand) ? lineFlags : []
}

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
export function becomeServer(self: NodeJS.Process, flags: readonly string[] = serverFlags): void {
  const missing = flags.filter(flag => !self.execArgv.includes(flag))
  if (missing.length === 0 || self.versions.bun !== undefined || self.platform === 'win32' || self.channel) return
  // Once, whatever becomes of the flags.
  const mark = 'BIRTHMARK_SERVER_PROCESS'
  if (self.env[mark] !== undefined || self.execve === undefined) return
  const argv = [self.execPath, ...missing, ...self.execArgv, ...self.argv.slice(1)]
  self.execve(self.execPath, argv, { ...serverEnvironment(self.env), [mark]: '1' } as Record<string, string>)
}
