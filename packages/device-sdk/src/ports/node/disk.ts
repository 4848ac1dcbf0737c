// The few calls of a file system that the stores need, so that a test can pull the plug between any two of them, and the one way to
// replace a file: write beside it, fsync, rename, fsync the folder. A power cut leaves the old file or the new one.

import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Bytes } from '../../core/bytes.ts'
import { type DeviceError, type DeviceErrorCode, deviceError } from '../../core/errors.ts'

/** Paths are the caller's. Every call throws the system's error as it is. */
export interface Disk {
  /** Null when there is no such file. */
  read(path: string): Bytes | null
  /** Creates or empties `path`, mode 0600, and writes. Until `sync` a power cut may keep nothing of it, or half. */
  write(path: string, bytes: Bytes): void
  sync(path: string): void
  /** Replaces `to`. Until `syncFolder` a power cut may undo it. */
  rename(from: string, to: string): void
  /** No error when there is no such file. Until `syncFolder` a power cut may undo it. */
  remove(path: string): void
  /** Mode 0700; parents are made as well. */
  makeFolder(path: string): void
  syncFolder(path: string): void
}

function synced(path: string, flags: string): void {
  const file = openSync(path, flags)
  try {
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}

export const nodeDisk: Disk = {
  read(path) {
    try {
      return new Uint8Array(readFileSync(path))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
      throw error
    }
  },
  write(path, bytes) {
    // Whatever lies there, a left-over of a power cut with another mode perhaps, is not written into.
    rmSync(path, { force: true })
    const file = openSync(path, 'wx', 0o600)
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at)
    } finally {
      closeSync(file)
    }
  },
  sync: path => synced(path, 'r+'),
  rename: renameSync,
  remove: path => rmSync(path, { force: true }),
  makeFolder: path => void mkdirSync(path, { recursive: true, mode: 0o700 }),
  syncFolder: path => synced(path, 'r'),
}

function wrapped(code: DeviceErrorCode, what: string, error: unknown): DeviceError {
  const out = deviceError(code, `${what}: ${(error as NodeJS.ErrnoException).code ?? (error as Error).message}`)
  out.cause = error
  return out
}

/** Files of one folder by short names, each replaced as a whole. Errors are `store_read` and `store_write`; an odd name is a TypeError. */
export interface Folder {
  read(name: string): Bytes | null
  replace(name: string, bytes: Bytes): void
  remove(name: string): void
}

export function openFolder(path: string, disk: Disk): Folder {
  const file = (name: string) => {
    // A name is ours (`op-0`, `birth.key`) or a caller's: never a way out of the folder.
    if (!/^[a-z0-9][a-z0-9.-]{0,63}$/.test(name)) throw new TypeError(`no name for a record: '${name}'`)
    return join(path, name)
  }
  const writing = (name: string, f: (target: string) => void) => {
    const target = file(name)
    try {
      disk.makeFolder(path)
      f(target)
      disk.syncFolder(path)
    } catch (error) {
      throw wrapped('store_write', target, error)
    }
  }
  return {
    read(name) {
      const target = file(name)
      try {
        return disk.read(target)
      } catch (error) {
        throw wrapped('store_read', target, error)
      }
    },
    replace(name, bytes) {
      writing(name, target => {
        const beside = `${target}.tmp`
        try {
          disk.write(beside, bytes)
          disk.sync(beside)
          disk.rename(beside, target)
        } catch (error) {
          // A full disk must not stay full of our half file. If this fails too, the next write empties it.
          try {
            disk.remove(beside)
          } catch {}
          throw error
        }
      })
    },
    remove: name => writing(name, target => disk.remove(target)),
  }
}
