// Programs that nobody here wrote, from Debian. Where one is missing the suite is left out and says what to install; in CI that is a failure,
// since a suite that silently stops running proves nothing.

import { execFile } from 'node:child_process'
import { accessSync, constants, existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'

/** A program on PATH (or under /usr/sbin), or a file by its absolute path; and the package that brings it. */
export type Needs = Record<string, string>

function present(what: string): boolean {
  if (what.startsWith('/')) return existsSync(what)
  return [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin'].some(folder => {
    try {
      accessSync(join(folder, what), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** Whether the suite can run: `describe.skipIf(!available({ curl: 'curl' }))`. Throws in CI when it cannot. */
export function available(needs: Needs): boolean {
  const missing = Object.entries(needs).filter(([what]) => !present(what))
  if (missing.length === 0) return true
  const packages = [...new Set(missing.map(([, name]) => name))].join(' ')
  const sentence = `Not found: ${missing.map(([what]) => what).join(', ')}. Install with: apt-get install --no-install-recommends ${packages}`
  if (process.env.CI) throw new Error(sentence)
  process.stderr.write(`Left out: ${sentence}\n`)
  return false
}

const execute = promisify(execFile)

export interface Ran {
  stdout: string
  stderr: string
}

/** Runs a program to its end, at most 60 s; rejects when it fails, with what it wrote to stderr. `input` goes to its stdin. */
export async function run(
  program: string,
  args: string[],
  options: { cwd?: string; input?: string | Uint8Array } = {},
): Promise<Ran> {
  const running = execute(program, args, { cwd: options.cwd, timeout: 60_000, maxBuffer: 4 << 20 })
  running.child.stdin?.end(options.input)
  try {
    return await running
  } catch (error) {
    const { stderr, stdout } = error as Partial<Ran>
    throw new Error(`${program} ${args.join(' ')} failed: ${stderr || stdout}`, { cause: error })
  }
}
