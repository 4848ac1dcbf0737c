// `labels.csv`, input of the label printer: a row for each unit, once. Promises that a run which was cut off anywhere is made whole by the next one: half a
// row is taken off, and a row that is missing is added when its unit comes by again.

import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs'
import { FactoryError } from './errors.ts'
import { LABEL_HEADER, labelRow } from './unit-files.ts'
import { fingerprintIndex, fingerprintOf } from './unit-index.ts'

export interface Labels {
  add(serial: string, sku: string | null, spkiSha256: string): void
  close(): void
}

const blockBytes = 1 << 16

/** Opens or starts the file. Throws `order_malformed` when it is another file. */
export function openLabels(file: string): Labels {
  const fd = openSync(file, 'a+', 0o644)
  // Serials, each in about ten bytes. That two have one fingerprint has odds of one in 30 million among a million.
  const known = fingerprintIndex()
  const isKnown = (serial: string): boolean => known.find(fingerprintOf(serial), () => true) >= 0
  const block = Buffer.alloc(blockBytes)
  let rest = ''
  let whole = 0
  for (let at = 0; ; ) {
    const length = readSync(fd, block, 0, blockBytes, at)
    if (length === 0) break
    at += length
    const lines = (rest + block.toString('latin1', 0, length)).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      if (whole === 0 && `${line}\n` !== LABEL_HEADER) {
        closeSync(fd)
        throw new FactoryError('order_malformed', `${file} holds something other than labels`)
      }
      whole += line.length + 1
      const serial = line.slice(0, line.indexOf(','))
      if (!isKnown(serial)) known.add(fingerprintOf(serial), 0)
    }
  }
  if (rest !== '') ftruncateSync(fd, whole)
  if (whole === 0) writeSync(fd, LABEL_HEADER)
  return {
    add(serial, sku, spkiSha256) {
      if (isKnown(serial)) return
      writeSync(fd, labelRow(serial, sku, spkiSha256))
      known.add(fingerprintOf(serial), 0)
    },
    close: () => closeSync(fd),
  }
}
