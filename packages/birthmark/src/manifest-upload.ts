// A manifest on its way over the operator's socket. It may have half a gigabyte and is read twice, to be verified and then for its units: so it is
// laid down in a file without a name, which a crash takes away, and at either end a block of it is in memory. Nothing counts before the last
// byte has come and the signature over it holds.

import { randomUUID } from 'node:crypto'
import { type FileHandle, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type ManifestFile, manifestOnDisk } from '@birthmark/factory-line'
import { CommandError } from './command-error.ts'

/** What the socket's own buffers take at once. */
const blockBytes = 65_536

export interface ManifestProgress {
  /** `sent`: bytes to the server. `taken`: units into its store. */
  stage: 'sent' | 'taken'
  done: number
  of: number
}

/** The blocks of a file, each its own bytes. */
export function* blocksOf(file: ManifestFile, onProgress?: (progress: ManifestProgress) => void): Generator<Uint8Array> {
  for (let at = 0; at < file.size; ) {
    const block = new Uint8Array(Math.min(blockBytes, file.size - at))
    const read = file.read(block, at)
    // A file that shrinks meanwhile: the server waits for the rest in vain, and takes nothing.
    if (read === 0)
      throw new CommandError('file_changed', 'the file became shorter while it was read', 'let nobody write to it', 'failed')
    yield block.subarray(0, read)
    at += read
    onProgress?.({ stage: 'sent', done: at, of: file.size })
  }
}

/**
 * Runs `work` on all that comes, on disk. Rejects, without having called it, with `request_invalid` for more than `bytesMax`, and when the sender
 * breaks off. `folder`: of the server's state, on a medium that has room for stores.
 */
export async function withUpload<T>(
  content: AsyncIterable<Uint8Array>,
  folder: string,
  bytesMax: number,
  work: (file: ManifestFile) => Promise<T>,
): Promise<T> {
  const path = join(folder, `upload-${randomUUID()}`)
  const handle = await open(path, 'wx+', 0o600)
  try {
    await rm(path)
    await laidDown(content, handle, bytesMax)
    return await work(manifestOnDisk(handle.fd))
  } finally {
    await handle.close()
  }
}

async function laidDown(content: AsyncIterable<Uint8Array>, handle: FileHandle, bytesMax: number): Promise<void> {
  let length = 0
  for await (const part of content) {
    length += part.length
    if (length > bytesMax) throw new CommandError('request_invalid', `more than ${bytesMax} bytes`, 'send less at once', 'usage')
    await handle.writeFile(part)
  }
}
