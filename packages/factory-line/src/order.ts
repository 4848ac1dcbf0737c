// The order: a CSV with a line a unit. Promises that every line was judged before the first unit is made, and that a million lines need
// a few tens of megabytes: the file is read again where a unit is looked up.

import { closeSync, openSync, readSync } from 'node:fs'
import { FactoryError } from './errors.ts'
import { groupsMax, SERIAL } from './station.ts'
import { fingerprintIndex, fingerprintOf } from './unit-index.ts'

export interface OrderUnit {
  serial: string
  /** null where the order does not say: any SKU, any station. */
  sku: string | null
  station: string | null
  /** `name=value`. */
  groups: string[]
}

export interface Order {
  /** Units, all stations. */
  count: number
  /** Null when the order does not have it. */
  unit(serial: string): OrderUnit | null
  /** In the order's own order. */
  units(): Iterable<OrderUnit>
  close(): void
}

// A serial, a SKU, a station and eight groups fit into less than 1,200 characters.
const lineBytesMax = 4096
export const orderUnitsMax = 10_000_000
const KNOWN = ['serial', 'mac', 'sku', 'station', 'groups']

/**
 * Opens a CSV (RFC 4180, UTF-8, a header line). Columns: `serial`, or `mac` where the address is the serial; and, if present, `sku`,
 * `station`, `groups` (`name=value` apart by `;`). Others are refused by name, since a misspelt column would silently not hold.
 * Throws `order_malformed` with the line's number, `order_unreadable`.
 */
export function openOrder(file: string): Order {
  let fd: number
  try {
    fd = openSync(file, 'r')
  } catch (error) {
    throw new FactoryError('order_unreadable', `cannot read ${file}`, error)
  }
  let columns: string[] = []
  let offsets = new Float64Array(1024)
  let count = 0
  const index = fingerprintIndex()

  const parse = (text: string, number: number): OrderUnit => {
    const cells = cellsOf(text, number)
    if (cells.length !== columns.length) throw bad(number, `${cells.length} cells under ${columns.length} columns`)
    const cell = (name: string): string => cells[columns.indexOf(name)] ?? ''
    const serial = cell(columns.includes('serial') ? 'serial' : 'mac')
    if (!SERIAL.test(serial)) throw bad(number, 'a serial is 1 to 64 of A-Z a-z 0-9 . _ : -')
    const groups = cell('groups').split(';').filter(Boolean)
    if (groups.length > groupsMax) throw bad(number, `${groups.length} groups; at most ${groupsMax}`)
    return { serial, sku: cell('sku') || null, station: cell('station') || null, groups }
  }
  const bytes = Buffer.alloc(lineBytesMax)
  const lineAt = (offset: number): string => {
    const length = readSync(fd, bytes, 0, bytes.length, offset)
    const end = bytes.subarray(0, length).indexOf(0x0a)
    return bytes.toString('utf8', 0, end < 0 ? length : end)
  }

  try {
    let number = 0
    for (const [text, offset] of linesOf(fd)) {
      number++
      if (number === 1) {
        columns = cellsOf(text.replace(/^\ufeff/, ''), 1).map(name => name.toLowerCase())
        for (const name of columns)
          if (!KNOWN.includes(name)) throw bad(1, `column '${name.slice(0, 40)}'; known are ${KNOWN.join(', ')}`)
        if (!columns.includes('serial') && !columns.includes('mac')) throw bad(1, "a column 'serial' or 'mac' is needed")
        continue
      }
      if (text.trim() === '') continue
      const { serial } = parse(text, number)
      const print = fingerprintOf(serial)
      if (index.find(print, each => parse(lineAt(offsets[each]), 0).serial === serial) >= 0)
        throw bad(number, `${serial} is there twice`)
      if (count >= orderUnitsMax) throw bad(number, `more than ${orderUnitsMax} units`)
      if (count === offsets.length) {
        const grown = new Float64Array(Math.ceil(offsets.length * 1.5))
        grown.set(offsets)
        offsets = grown
      }
      offsets[count] = offset
      index.add(print, count++)
    }
    if (count === 0) throw bad(1, 'no unit')
  } catch (error) {
    closeSync(fd)
    throw error
  }

  return {
    count,
    unit(serial) {
      let found: OrderUnit | null = null
      const at = index.find(fingerprintOf(serial), each => {
        found = parse(lineAt(offsets[each]), 0)
        return found.serial === serial
      })
      return at < 0 ? null : found
    },
    *units() {
      for (let each = 0; each < count; each++) yield parse(lineAt(offsets[each]), 0)
    },
    close() {
      closeSync(fd)
      index.clear()
    },
  }
}

function* linesOf(fd: number): Generator<[text: string, offset: number]> {
  const chunk = Buffer.alloc(1 << 18)
  let rest = Buffer.alloc(0)
  let offset = 0
  for (let position = 0, number = 0; ; ) {
    const length = readSync(fd, chunk, 0, chunk.length, position)
    position += length
    const bytes = Buffer.concat([rest, chunk.subarray(0, length)])
    let begin = 0
    for (let nl = bytes.indexOf(0x0a); nl >= 0; nl = bytes.indexOf(0x0a, begin)) {
      number++
      if (nl - begin > lineBytesMax) throw bad(number, `more than ${lineBytesMax} bytes`)
      yield [bytes.toString('utf8', begin, nl), offset + begin]
      begin = nl + 1
    }
    offset += begin
    rest = Buffer.from(bytes.subarray(begin))
    if (rest.length > lineBytesMax) throw bad(number + 1, `more than ${lineBytesMax} bytes`)
    if (length === 0) {
      if (rest.length > 0) yield [rest.toString('utf8'), offset]
      return
    }
  }
}

/** One record of RFC 4180 without line breaks inside quotes: nothing here has any. */
function cellsOf(line: string, number: number): string[] {
  const text = line.replace(/\r$/, '')
  const cells: string[] = []
  for (let at = 0; at <= text.length; ) {
    if (text[at] !== '"') {
      const end = text.indexOf(',', at)
      cells.push(text.slice(at, end < 0 ? text.length : end).trim())
      at = end < 0 ? text.length + 1 : end + 1
      continue
    }
    let cell = ''
    let i = at + 1
    for (; ; i++) {
      if (i >= text.length) throw bad(number, 'a quote is not closed')
      if (text[i] !== '"') cell += text[i]
      else if (text[i + 1] === '"') cell += text[i++]
      else break
    }
    if (i + 1 < text.length && text[i + 1] !== ',') throw bad(number, 'text after a closing quote')
    cells.push(cell)
    at = i + 2
  }
  return cells
}

function bad(number: number, detail: string): FactoryError {
  return new FactoryError('order_malformed', `line ${number}: ${detail}`)
}
