// Devices by what they are called, in SQLite: the reads and writes of selection.ts.

import type { DatabaseSync, SQLInputValue } from 'node:sqlite'
import { createSelectionCount, type GroupTotal, type LabelTotal, type SelectedRow } from './blast-radius.ts'
import { numberSet, packNumbers, unpackNumbers } from './number-set.ts'
import {
  type FreezeQuery,
  type FrozenSelection,
  type LabelChange,
  type LabelReport,
  labelsPerDeviceMax,
  labelValuesMax,
  nameAndValue,
  type Selector,
} from './selection.ts'
import { type Placeholders, selectorSql } from './selection-sql.ts'
import { iterate, prepare } from './sqlite-rows.ts'
import { type AuditEntry, pageRowsMax } from './store.ts'

/** Parameters in the order in which the text names them: `?1` is the first. */
function placeholders(values: SQLInputValue[]): Placeholders {
  const one = (value: string | number) => `?${values.push(value)}`
  const list = (of: unknown[]) => `(SELECT value FROM json_each(${one(JSON.stringify(of))}))`
  return { one, numbers: list, texts: list }
}

/** Groups and labels of the names that the selector speaks of. Read by name: a fleet may have 65,536 of each. */
function namesOf(db: DatabaseSync, fleet: string, selector: Selector) {
  // '>' is the character behind '='.
  const groups = prepare<{ gid: number; name: string }>(
    db,
    `SELECT gid, name FROM groups WHERE fleet = ?1 AND (name = ?2 OR name >= ?2 || '=' AND name < ?2 || '>')`,
  )
  const labels = prepare<{ number: number; name: string; value: string }>(
    db,
    'SELECT lid AS number, name, value FROM label_values WHERE fleet = ? AND name = ?',
  )
  const names = [...new Set(selector.map(term => term.name))]
  return {
    groups: names.flatMap(name => groups.all(fleet, name).map(group => ({ number: group.gid, ...nameAndValue(group.name) }))),
    labels: names.flatMap(name => labels.all(fleet, name)),
  }
}

/** The condition on devices `d`, and its parameters from `?2` on; `?1` is the fleet. */
export function selectorCondition(
  db: DatabaseSync,
  query: { fleet: string; selector: Selector; now: number },
): { sql: string; values: SQLInputValue[] } {
  const values: SQLInputValue[] = [query.fleet]
  const sql = selectorSql(query.selector, namesOf(db, query.fleet, query.selector), query.now, '?1', placeholders(values))
  return { sql, values }
}

/** Key, id, groups, labels, last issuance, whether enrolled, and a certificate's idx. */
type FrozenRow = [number, string, string, string, number | null, 0 | 1, number | null]

/** Reads everything in one transaction, for seconds: for a thread of its own (sqlite-scan.ts). */
export function freezeSelection(db: DatabaseSync, query: FreezeQuery): FrozenSelection {
  const { fleet, now, radius } = query
  db.exec('BEGIN')
  try {
    const groups = prepare<GroupTotal>(db, 'SELECT gid, name, devices FROM groups WHERE fleet = ? ORDER BY gid').all(fleet)
    const labels = prepare<LabelTotal>(
      db,
      'SELECT lid AS number, name, value, devices FROM label_values WHERE fleet = ? ORDER BY lid',
    ).all(fleet)
    const count = createSelectionCount(query, groups, labels)
    const condition = selectorCondition(db, query)
    const end = `?${condition.values.length + 1}`
    // A device and its certificates come one behind the other, those of the index by which an issuance is found again.
    const rows = iterate<FrozenRow>(
      db,
      `SELECT d.key, d.id, d.gids, d.lids, d.seen_at AS seenAt, d.latest IS NOT NULL AS enrolled, i.idx FROM devices d
       LEFT JOIN issuances i ON i.device = d.key AND i.state <> 'void' AND i.not_after >= ${end}
       WHERE d.fleet = ?1 AND ${condition.sql} ORDER BY d.id`,
      [...condition.values, now],
    )
    let last = -1
    for (const [key, id, gids, lids, seenAt, enrolled, idx] of rows) {
      if (key !== last) count.add({ key, id, gids, lids, seenAt, enrolled: enrolled === 1 })
      last = key
      if (idx !== null) count.addCertificate(idx)
    }
    const { name, value } = radius.gateway
    const isGateway = selectorCondition(db, { fleet, now, selector: [{ name, test: 'in', values: [value] }] })
    const gateways = prepare<Pick<SelectedRow, 'gids' | 'lids'>>(
      db,
      `SELECT d.gids, d.lids FROM devices d WHERE d.fleet = ?1 AND ${isGateway.sql}`,
    ).all(...isGateway.values)
    const { devices } = prepare<{ devices: number }>(db, 'SELECT count(*) AS devices FROM devices WHERE fleet = ?').get(fleet)!
    return count.finish({ fleetDevices: devices, issuedThrough: lastIssuance(db), gateways })
  } finally {
    db.exec('COMMIT')
  }
}

/** By row and not by idx: another process may still hold lower indices that it has not used. */
const lastIssuance = (db: DatabaseSync) =>
  prepare<{ key: number }>(db, 'SELECT coalesce(max(key), 0) AS key FROM issuances').get()!.key

export function certificatesSince(
  db: DatabaseSync,
  { fleet, devices, issuedThrough }: { fleet: string; devices: Uint8Array; issuedThrough: number },
): { certificates: Uint8Array; issuedThrough: number } {
  const wanted = numberSet(unpackNumbers(devices))
  const through = lastIssuance(db)
  const rows = prepare<{ idx: number; device: number }>(
    db,
    "SELECT idx, device FROM issuances WHERE key > ? AND key <= ? AND fleet = ? AND state <> 'void'",
  ).all(issuedThrough, through, fleet)
  const found = rows.filter(row => wanted.has(row.device)).map(row => row.idx)
  return { certificates: packNumbers(Uint32Array.from(found).sort()), issuedThrough: through }
}

export function withoutCertificate(db: DatabaseSync, { devices, now }: { devices: Uint8Array; now: number }): number {
  const one = prepare<{ has: number }>(
    db,
    "SELECT 1 AS has FROM issuances WHERE device = ? AND state <> 'void' AND not_after >= ? LIMIT 1",
  )
  let count = 0
  for (const key of unpackNumbers(devices)) if (one.get(key, now) === undefined) count++
  return count
}

export function selectionReads(db: DatabaseSync) {
  const byKey = prepare<{ id: string }>(db, 'SELECT id FROM devices WHERE key = ?')
  const values = prepare<{ name: string; value: string; devices: number }>(
    db,
    'SELECT name, value, devices FROM label_values WHERE fleet = ? AND devices > 0 ORDER BY name, value',
  )
  return {
    labelValues: (fleet: string) => values.all(fleet).map(row => ({ ...row })),
    deviceIds(devices: Uint8Array, after: number, limit: number): { ids: string[]; next: number | null } {
      const keys = unpackNumbers(devices)
      let from = keys.findIndex(key => key > after)
      if (from < 0) from = keys.length
      const page = keys.subarray(from, from + Math.min(limit, pageRowsMax))
      const ids = [...page].flatMap(key => byKey.get(key)?.id ?? [])
      return { ids, next: from + page.length < keys.length ? page[page.length - 1] : null }
    },
  }
}

export interface SelectionWrites {
  labelDevices(asked: { fleet: string; changes: LabelChange[]; audit: AuditEntry }): LabelReport
}

export function selectionWrites(db: DatabaseSync, audit: (entry: AuditEntry) => void): SelectionWrites {
  const deviceById = prepare<{ key: number; lids: string }>(db, 'SELECT key, lids FROM devices WHERE fleet = ? AND id = ?')
  const labelByValue = prepare<{ lid: number }>(db, 'SELECT lid FROM label_values WHERE fleet = ? AND name = ? AND value = ?')
  const labelByLid = prepare<{ name: string }>(db, 'SELECT name FROM label_values WHERE fleet = ? AND lid = ?')
  const lastLid = prepare<{ lid: number | null; count: number }>(
    db,
    'SELECT max(lid) AS lid, count(*) AS count FROM label_values WHERE fleet = ?',
  )
  const forgetUnused = prepare(db, 'DELETE FROM label_values WHERE fleet = ? AND devices = 0')
  const insertLabel = prepare(db, 'INSERT INTO label_values (fleet, lid, name, value) VALUES (?, ?, ?, ?)')
  const insertMember = prepare(db, 'INSERT INTO label_members (fleet, lid, id) VALUES (?, ?, ?)')
  const deleteMember = prepare(db, 'DELETE FROM label_members WHERE fleet = ? AND lid = ? AND id = ?')
  const count = prepare(db, 'UPDATE label_values SET devices = devices + ? WHERE fleet = ? AND lid = ?')
  const updateDevice = prepare(db, 'UPDATE devices SET lids = ? WHERE key = ?')

  function lidOf(fleet: string, name: string, value: string): number | null {
    const known = labelByValue.get(fleet, name, value)
    if (known) return known.lid
    if (lastLid.get(fleet)!.count >= labelValuesMax) forgetUnused.run(fleet)
    const { lid, count } = lastLid.get(fleet)!
    if (count >= labelValuesMax) return null
    insertLabel.run(fleet, (lid ?? 0) + 1, name, value)
    return (lid ?? 0) + 1
  }

  function label(fleet: string, change: LabelChange): 'changed' | 'unchanged' | string {
    const device = deviceById.get(fleet, change.id)
    if (device === undefined) return 'is not known'
    const before = JSON.parse(device.lids) as number[]
    const gone = new Set([...change.unset, ...Object.keys(change.set)])
    const kept = before.filter(lid => !gone.has(labelByLid.get(fleet, lid)?.name ?? ''))
    const wanted = Object.entries(change.set).map(([name, value]) => lidOf(fleet, name, value))
    if (wanted.includes(null)) return `labels of the fleet have ${labelValuesMax} values already`
    const after = [...kept, ...(wanted as number[])].sort((a, b) => a - b)
    if (after.length > labelsPerDeviceMax) return `would have more than ${labelsPerDeviceMax} labels`
    if (JSON.stringify(after) === JSON.stringify(before)) return 'unchanged'
    for (const lid of before)
      if (!after.includes(lid)) {
        deleteMember.run(fleet, lid, change.id)
        count.run(-1, fleet, lid)
      }
    for (const lid of after)
      if (!before.includes(lid)) {
        insertMember.run(fleet, lid, change.id)
        count.run(1, fleet, lid)
      }
    updateDevice.run(JSON.stringify(after), device.key)
    return 'changed'
  }

  return {
    labelDevices({ fleet, changes, audit: entry }) {
      const report: LabelReport = { changed: 0, unchanged: 0, refused: [] }
      for (const change of changes) {
        const outcome = label(fleet, change)
        if (outcome === 'changed' || outcome === 'unchanged') report[outcome]++
        else report.refused.push({ id: change.id, reason: outcome })
      }
      if (report.changed > 0) audit({ ...entry, detail: `${report.changed} devices labelled: ${entry.detail}` })
      return report
    },
  }
}
