// A relying party's memory in a file. A power cut leaves the old state or the new one.

import { readFile } from 'node:fs/promises'
import type { Bytes } from '@birthmark/device-sdk/core'
import { replaceFile } from './replaced-file.ts'

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
    save: state => replaceFile(path, state, 0o600),
  }
}
