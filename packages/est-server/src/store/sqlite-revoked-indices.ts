// Which certificates and devices are revoked by themselves, as the writer knows it: every enrollment asks, and nearly always it is nobody. The
// blocks that were asked for are remembered for as long as nobody else has written.

import type { DatabaseSync } from 'node:sqlite'
import { blockOf, hasNumber } from './bit-blocks.ts'
import type { ForeignWrites } from './sqlite-foreign-writes.ts'
import { prepare } from './sqlite-rows.ts'

/** 8 MB when all of them hold something: 64 million certificates. */
const blocksMax = 16_384

export interface RevokedIndices {
  /** By a list, a range, a floor, or the end of its issuer. */
  isRevoked(fleet: string, idx: number, issuer: Uint8Array): boolean
  isIssuerRevoked(fleet: string, issuer: Uint8Array): boolean
  /** Whether the device with this key was revoked by itself. */
  isClosed(key: number): boolean
  /** To be called when something was revoked or a transaction undone here. */
  forget(): void
}

export function revokedIndices(db: DatabaseSync, foreign: ForeignWrites): RevokedIndices {
  const indexBlock = prepare<{ bits: Uint8Array }>(db, 'SELECT bits FROM revoked_indices WHERE fleet = ? AND block = ?')
  const deviceBlock = prepare<{ bits: Uint8Array }>(db, 'SELECT bits FROM closed_devices WHERE block = ?')
  const whole = prepare<{ kind: string; start: number; issuer: Uint8Array | null }>(
    db,
    "SELECT kind, start, issuer FROM revoked_sets WHERE fleet = ? AND kind IN ('floor', 'issuer')",
  )
  const blocks = new Map<string, Uint8Array | null>()
  const wholes = new Map<string, { floor: number; issuers: Uint8Array[] }>()
  let version = -1

  function look(): void {
    const now = foreign.version()
    if (now !== version) forget()
    version = now
  }

  function forget(): void {
    blocks.clear()
    wholes.clear()
  }

  function block(name: string, read: () => { bits: Uint8Array } | undefined): Uint8Array | null {
    let bits = blocks.get(name)
    if (bits === undefined) {
      bits = read()?.bits ?? null
      if (blocks.size >= blocksMax) blocks.clear()
      blocks.set(name, bits)
    }
    return bits
  }

  function wholeOf(fleet: string) {
    let found = wholes.get(fleet)
    if (found === undefined) {
      const rows = whole.all(fleet)
      found = {
        floor: rows.reduce((floor, { kind, start }) => (kind === 'floor' ? Math.max(floor, start) : floor), 0),
        issuers: rows.flatMap(({ issuer }) => (issuer === null ? [] : [issuer])),
      }
      wholes.set(fleet, found)
    }
    return found
  }

  const isIssuerRevoked = (fleet: string, issuer: Uint8Array) => {
    look()
    return wholeOf(fleet).issuers.some(one => Buffer.compare(one, issuer) === 0)
  }

  return {
    isRevoked(fleet, idx, issuer) {
      if (isIssuerRevoked(fleet, issuer) || idx < wholeOf(fleet).floor) return true
      const at = blockOf(idx)
      return hasNumber(
        block(`${at} ${fleet}`, () => indexBlock.get(fleet, at)),
        idx,
      )
    },
    isIssuerRevoked,
    isClosed(key) {
      look()
      const at = blockOf(key)
      return hasNumber(
        block(`${at}`, () => deviceBlock.get(at)),
        key,
      )
    },
    forget,
  }
}
