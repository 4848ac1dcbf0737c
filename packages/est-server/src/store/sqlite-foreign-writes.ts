// Whether another connection has written: what the writer remembers of the file between its transactions holds for as long as nobody has.

import type { DatabaseSync } from 'node:sqlite'
import { prepareNumber } from './sqlite-rows.ts'

export interface ForeignWrites {
  /** Another number when another connection has committed. */
  version(): number
  /** To be called when a transaction ends: within one it stands still, and is asked for once. */
  forget(): void
}

export function foreignWrites(db: DatabaseSync): ForeignWrites {
  const dataVersion = prepareNumber(db, 'PRAGMA data_version')
  let version = -1
  return {
    version() {
      if (version < 0) version = dataVersion()!
      return version
    },
    forget() {
      version = -1
    },
  }
}
