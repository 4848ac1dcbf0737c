// Where an identity's records live: in a folder, or in memory for simulated devices and tests.

import type { Store } from '../../agent/ports.ts'
import type { Bytes } from '../../core/bytes.ts'
import { type Disk, nodeDisk, openFolder } from './disk.ts'

/**
 * Records as files of `folder` (made with mode 0700 when missing), each written beside, fsynced, renamed, and the folder fsynced: when
 * `put` returns it survives a power cut, and when it throws `store_write` (ENOSPC, EROFS, EIO, …) the old record is kept. One process
 * per folder. The records hold certificates and requests, nothing secret. `disk` is for tests.
 */
export function fileStore(folder: string, disk: Disk = nodeDisk): Store {
  const files = openFolder(folder, disk)
  return { get: files.read, put: files.replace, remove: files.remove }
}

/** Records that last as long as the process. */
export function memoryStore(): Store {
  const records = new Map<string, Bytes>()
  return {
    get: name => records.get(name) ?? null,
    // A copy: the caller's bytes are often views on something larger.
    put: (name, value) => void records.set(name, value.slice()),
    remove: name => void records.delete(name),
  }
}
