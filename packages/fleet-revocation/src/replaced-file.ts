// A file put in the place of another: written beside it, brought to the medium, renamed, and the name brought to the medium too. Who reads in between, or after
// a power cut, finds the old one or the new one.

import { open, rename } from 'node:fs/promises'
import { dirname } from 'node:path'

/** One at a time for a `path`; its folder must exist. `mode`: of a file that is made. Rejects with what the file system says; then the old one stands. */
export async function replaceFile(path: string, content: string | Uint8Array, mode: number): Promise<void> {
  const fresh = `${path}.new`
  const file = await open(fresh, 'w', mode)
  try {
    await file.writeFile(content)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(fresh, path)
  const folder = await open(dirname(path), 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}
