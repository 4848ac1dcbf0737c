import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { standingTable } from './standing-table.ts'

const find = (table: ReturnType<typeof standingTable>, issuer: number, serial: Uint8Array) => {
  const entry = table.find(issuer, serial, 0, serial.length)
  return entry < 0 ? null : { idx: table.idx(entry), ...table.place(entry) }
}

describe('the table of standings', () => {
  it('finds a serial of each length under its own issuer alone, wherever it stands in the bytes', () => {
    const table = standingTable(64)
    for (let length = 1; length <= 20; length++) {
      const serial = randomBytes(length).map((byte, i) => (i === 0 ? 0x41 : byte))
      const around = Buffer.concat([randomBytes(3), serial, randomBytes(4)])
      const standing = { fleet: 'meters', gids: [1, length], idx: 2 ** 31 - length }
      table.set(2, around, 3, 3 + length, standing)
      expect(find(table, 2, serial)).toEqual(standing)
      expect(find(table, 1, serial)).toBeNull()
      expect(find(table, 2, Buffer.concat([serial, new Uint8Array(1)]))).toBeNull()
      expect(find(table, 2, serial.subarray(1))).toBeNull()
    }
    expect(find(table, 2, new Uint8Array(21))).toBeNull()
    expect(find(table, 0, new Uint8Array())).toBeNull()
  })

  it('gives what was put in last under a serial, or nothing, however full it is', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.integer({ min: 0, max: 200 }), fc.nat(2 ** 31 - 1)), { maxLength: 600 }), puts => {
        const table = standingTable(64)
        const truth = new Map<number, number>()
        for (const [name, idx] of puts) {
          const serial = Buffer.from([0x41, name, name ^ 0x5a, 7, name])
          table.set(0, serial, 0, 5, { fleet: `f${name % 3}`, gids: [name % 5], idx })
          truth.set(name, idx)
          expect(find(table, 0, serial)).toEqual({ fleet: `f${name % 3}`, gids: [name % 5], idx })
        }
        for (const [name, idx] of truth)
          expect([undefined, idx]).toContain(find(table, 0, Buffer.from([0x41, name, name ^ 0x5a, 7, name]))?.idx)
      }),
    )
  })

  it('starts afresh when its certificates are in more sets of groups than are in use at a time', () => {
    const table = standingTable(8192)
    const serial = (n: number) => Buffer.from([0x41, n >> 8, n, 1])
    for (let n = 0; n <= 4096; n++) table.set(0, serial(n), 0, 4, { fleet: 'f', gids: [n], idx: n })
    expect(find(table, 0, serial(0))).toBeNull()
    expect(find(table, 0, serial(4096))).toEqual({ fleet: 'f', gids: [4096], idx: 4096 })
  })
})
