// Where the test vectors of other authors are. They are read in place; in CI a missing suite is a failure, elsewhere it is left out aloud.
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

export const vectorsFolder = process.env.BIRTHMARK_VECTORS ?? join(root, '..', 'shared', 'vectors')

/** The path of a suite's file, or null (with one line on stderr) where the vectors are not at hand. Throws in CI. */
export function vectorFile(...path: string[]): string | null {
  const file = join(vectorsFolder, ...path)
  if (existsSync(file)) return file
  if (process.env.CI) throw new Error(`vectors missing in CI: ${path.join('/')}`)
  process.stderr.write(`left out: vectors ${path.join('/')} (set BIRTHMARK_VECTORS to their folder)\n`)
  return null
}
