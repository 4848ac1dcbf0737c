// One line of a journal that is open, by where it begins.

import { readSync } from 'node:fs'
import { FactoryError } from './errors.ts'
import { journalLineBytesMax, type Line } from './journal-line.ts'

/** `file`: its name, for the error. The reader throws `journal_corrupt` where no line begins, and for −1, which stands for a line that is not there. */
export function lineReader(fd: number, file: string): (offset: number) => Line {
  // One buffer for all: a buffer a line outruns the collector where a million units are read.
  const scratch = Buffer.alloc(journalLineBytesMax * 2)
  return offset => {
    // To readSync a place before the beginning is wherever it read last, and a line of somebody else's.
    if (offset < 0) throw new FactoryError('journal_corrupt', `a unit is known that no line of ${file} tells of`)
    for (let length = 2048; length <= journalLineBytesMax; length *= 4) {
      const read = readSync(fd, scratch, 0, length, offset)
      const end = scratch.subarray(0, read).indexOf(0x0a)
      if (end >= 0) return JSON.parse(scratch.toString('utf8', 0, end)) as Line
    }
    throw new FactoryError('journal_corrupt', `no line at ${offset} of ${file}`)
  }
}
