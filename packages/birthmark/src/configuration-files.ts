// The files that a configuration leads to. Recorded by the process that judges them and played back in its workers, so that a worker that
// is started anew works by the same configuration as its siblings, whatever has been written to the disk since.

import { readFileSync, statSync } from 'node:fs'

export interface ConfigurationFile {
  text: string
  /** Permission bits. */
  mode: number
  bytes: number
}

/** Throws the system's error for what cannot be read. */
export type ReadFile = (path: string) => ConfigurationFile

/** No file of a configuration is larger: a CA bundle is some hundred kilobytes. */
const fileBytesMax = 4_194_304

export const fromDisk: ReadFile = path => {
  const { size: bytes, mode } = statSync(path)
  if (bytes > fileBytesMax) throw Object.assign(new Error(`${path} is too large`), { code: 'EFBIG' })
  return { text: readFileSync(path, 'utf8'), mode: mode & 0o777, bytes }
}

export function recording(read: ReadFile): { read: ReadFile; files: Map<string, ConfigurationFile> } {
  const files = new Map<string, ConfigurationFile>()
  return {
    files,
    read(path) {
      const file = files.get(path) ?? read(path)
      files.set(path, file)
      return file
    },
  }
}

export function playedBack(files: Map<string, ConfigurationFile>): ReadFile {
  return path => {
    const file = files.get(path)
    if (file === undefined) throw Object.assign(new Error(`${path} was not read before`), { code: 'ENOENT' })
    return file
  }
}
