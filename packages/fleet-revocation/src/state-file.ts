// A relying party's memory in a file: written beside it, brought to the medium, then put in its place. A power cut leaves the old state or
// the new one.

import { open, readFile, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Bytes } from '@birthmark/device-sdk/core'

/** For `createRelyingParty`'s `state`. One process at a time writes `path`; its folder must exist. */
export function stateFile(path: string): { load(): Promise<Bytes | null>; save(state: Bytes): Promise<void> } {
  return {
    load: async () => {
      try {
        return new Uint8Array(await readFile(path))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
        throw error
      }
    },
    save: async state => {
      const fresh = `${path}.new`
      const file = await open(fresh, 'w', 0o600)
      try {
        await file.writeFile(state)
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
    },
  }
}
