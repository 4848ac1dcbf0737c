// Devices by what they are called, in PostgreSQL: the reads and writes of selection.ts. What takes seconds goes over a connection of its own and
// comes in pages, so that neither the connection of everybody else's reads nor this thread is held up by it.

import type { Client } from 'pg'
import { createSelectionCount, type GroupTotal, type LabelTotal } from './blast-radius.ts'
import { numberSet, packNumbers, unpackNumbers } from './number-set.ts'
import { highest, type Rows } from './postgres-rows.ts'
import type { Transaction } from './postgres-writer.ts'
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
import { type AuditEntry, pageRowsMax } from './store.ts'

function placeholders(values: unknown[]): Placeholders {
  const one = (value: unknown, type: string) => `$${values.push(value)}::${type}`
  return {
    one: value => one(value, typeof value === 'number' ? 'bigint' : 'text'),
    numbers: list => `(SELECT unnest(${one(list, 'integer[]')}))`,
    texts: list => `(SELECT unnest(${one(list, 'text[]')}))`,
  }
}

type Ask = <Row>(sql: string, values: unknown[]) => Promise<Row[]>

/** The condition on devices `d`, and its parameters from `$2` on; `$1` is the fleet. */
export async function postgresSelectorCondition(
  ask: Ask,
  { fleet, selector, now }: { fleet: string; selector: Selector; now: number },
): Promise<{ sql: string; values: unknown[] }> {
  const names = [...new Set(selector.map(term => term.name))]
  // '>' is the character behind '='.
  const groups = await ask<{ gid: number; name: string }>(
    `SELECT g.gid, g.name FROM unnest($2::text[]) AS n (name) JOIN groups g
     ON g.fleet = $1 AND (g.name = n.name COLLATE "C" OR g.name >= (n.name || '=') COLLATE "C" AND g.name < (n.name || '>') COLLATE "C")`,
    [fleet, names],
  )
  const labels = await ask<{ number: number; name: string; value: string }>(
    'SELECT lid AS number, name, value FROM label_values WHERE fleet = $1 AND name = ANY ($2::text[])',
    [fleet, names],
  )
  const values: unknown[] = [fleet]
  const known = { groups: groups.map(group => ({ number: group.gid, ...nameAndValue(group.name) })), labels }
  return { sql: selectorSql(selector, known, now, '$1', placeholders(values)), values }
}

/** Rows of one page: some 15 ms of this thread. */
const pageRows = 4000

interface SelectedSqlRow {
  key: number
  id: string
  gids: string
  lids: string
  seen_at: number | null
  enrolled: boolean
  idx: number | null
}

/** On a connection that is used for nothing else meanwhile. */
export async function freezePostgresSelection(client: Client, query: FreezeQuery): Promise<FrozenSelection> {
  const { fleet, now, radius } = query
  const ask: Ask = async (sql, values) => (await client.query(sql, values)).rows
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
  const groups = await ask<GroupTotal>('SELECT gid, name, devices FROM groups WHERE fleet = $1 ORDER BY gid', [fleet])
  const labels = await ask<LabelTotal>(
    'SELECT lid AS number, name, value, devices FROM label_values WHERE fleet = $1 ORDER BY lid',
    [fleet],
  )
  const count = createSelectionCount(query, groups, labels)
  const condition = await postgresSelectorCondition(ask, query)
  await client.query(
    `DECLARE selection NO SCROLL CURSOR FOR SELECT d.key, d.id, d.gids::text AS gids, d.lids::text AS lids, d.seen_at, d.latest IS NOT NULL AS enrolled, i.idx
     FROM devices d LEFT JOIN issuances i ON i.device = d.key AND i.state <> 'void' AND i.not_after >= $${condition.values.length + 1}::bigint
     WHERE d.fleet = $1 AND ${condition.sql} ORDER BY d.id`,
    [...condition.values, now],
  )
  let last = -1
  for (;;) {
    const page = await ask<SelectedSqlRow>(`FETCH ${pageRows} FROM selection`, [])
    for (const { seen_at: seenAt, idx, ...row } of page) {
      if (row.key !== last) count.add({ ...row, seenAt })
      last = row.key
      if (idx !== null) count.addCertificate(idx)
    }
    if (page.length < pageRows) break
  }
  const { name, value } = radius.gateway
  const isGateway = await postgresSelectorCondition(ask, { fleet, now, selector: [{ name, test: 'in', values: [value] }] })
  const gateways = await ask<{ gids: string; lids: string }>(
    `SELECT d.gids::text AS gids, d.lids::text AS lids FROM devices d WHERE d.fleet = $1 AND ${isGateway.sql}`,
    isGateway.values,
  )
  const [{ devices }] = await ask<{ devices: number }>('SELECT count(*) AS devices FROM devices WHERE fleet = $1', [fleet])
  const issuedThrough = await lastIssuance(ask)
  await client.query('COMMIT')
  return count.finish({ fleetDevices: devices, issuedThrough, gateways })
}

/** By row and not by idx: another process may still hold lower indices that it has not used. Rows appear in their order, since writes stand in line. */
async function lastIssuance(ask: Ask): Promise<number> {
  return (await ask<{ key: number }>(`SELECT ${highest('key', 'issuances')} AS key`, []))[0].key
}

export function postgresSelectionReads(rows: Rows) {
  return {
    labelValues: (fleet: string): Promise<{ name: string; value: string; devices: number }[]> =>
      rows('labels', 'SELECT name, value, devices FROM label_values WHERE fleet = $1 AND devices > 0 ORDER BY name, value', [
        fleet,
      ]),

    async certificatesSince(
      fleet: string,
      devices: Uint8Array,
      from: number,
    ): Promise<{ certificates: Uint8Array; issuedThrough: number }> {
      const wanted = numberSet(unpackNumbers(devices))
      const through = await lastIssuance((sql, values) => rows('last-issuance', sql, values))
      const found: number[] = []
      for (let after = from; after < through; ) {
        const page = await rows<{ key: number; idx: number; device: number; fleet: string; state: string }>(
          'issued-since',
          `SELECT key, idx, device, fleet, state FROM issuances WHERE key > $1 AND key <= $2 ORDER BY key LIMIT ${pageRows}`,
          [after, through],
        )
        for (const row of page) if (row.fleet === fleet && row.state !== 'void' && wanted.has(row.device)) found.push(row.idx)
        after = page.length < pageRows ? through : page[page.length - 1].key
      }
      return { certificates: packNumbers(Uint32Array.from(found).sort()), issuedThrough: through }
    },

    async withoutCertificate(devices: Uint8Array, now: number): Promise<number> {
      const keys = unpackNumbers(devices)
      let count = 0
      for (let from = 0; from < keys.length; from += pageRows) {
        const [page] = await rows<{ count: number }>(
          'without-certificate',
          `SELECT count(*) AS count FROM unnest($1::bigint[]) AS k (key) WHERE NOT EXISTS
           (SELECT FROM issuances i WHERE i.device = k.key AND i.state <> 'void' AND i.not_after >= $2)`,
          [[...keys.subarray(from, from + pageRows)], now],
        )
        count += page.count
      }
      return count
    },

    async deviceIds(devices: Uint8Array, after: number, limit: number): Promise<{ ids: string[]; next: number | null }> {
      const keys = unpackNumbers(devices)
      const at = keys.findIndex(key => key > after)
      const from = at < 0 ? keys.length : at
      const page = keys.subarray(from, from + Math.min(limit, pageRowsMax))
      const found = await rows<{ id: string }>('ids-of', 'SELECT id FROM devices WHERE key = ANY ($1::bigint[]) ORDER BY key', [
        [...page],
      ])
      return { ids: found.map(row => row.id), next: from + page.length < keys.length ? page[page.length - 1] : null }
    },
  }
}

export async function labelPostgresDevices(
  tx: Transaction,
  { fleet, changes, audit }: { fleet: string; changes: LabelChange[]; audit: AuditEntry },
): Promise<LabelReport> {
  const report: LabelReport = { changed: 0, unchanged: 0, refused: [] }
  for (const change of changes) {
    const outcome = await label(tx, fleet, change)
    if (outcome === 'changed' || outcome === 'unchanged') report[outcome]++
    else report.refused.push({ id: change.id, reason: outcome })
  }
  if (report.changed > 0) tx.audit({ ...audit, detail: `${report.changed} devices labelled: ${audit.detail}` })
  return report
}

async function lidOf(tx: Transaction, fleet: string, name: string, value: string): Promise<number | null> {
  const sql = 'SELECT lid FROM label_values WHERE fleet = $1 AND name = $2 AND value = $3'
  const [known] = await tx.rows<{ lid: number }>('lid', sql, [fleet, name, value])
  if (known) return known.lid
  const last = async () =>
    (
      await tx.rows<{ lid: number; count: number }>(
        'last-lid',
        'SELECT coalesce(max(lid), 0) AS lid, count(*) AS count FROM label_values WHERE fleet = $1',
        [fleet],
      )
    )[0]
  if ((await last()).count >= labelValuesMax)
    await tx.run('forget-labels', 'DELETE FROM label_values WHERE fleet = $1 AND devices = 0', [fleet])
  const { lid, count } = await last()
  if (count >= labelValuesMax) return null
  await tx.run('add-label', 'INSERT INTO label_values (fleet, lid, name, value) VALUES ($1, $2, $3, $4)', [
    fleet,
    lid + 1,
    name,
    value,
  ])
  return lid + 1
}

async function label(tx: Transaction, fleet: string, change: LabelChange): Promise<'changed' | 'unchanged' | string> {
  const [device] = await tx.rows<{ key: number; lids: number[] }>(
    'label-device',
    'SELECT key, lids FROM devices WHERE fleet = $1 AND id = $2',
    [fleet, change.id],
  )
  if (device === undefined) return 'is not known'
  const named = await tx.rows<{ lid: number; name: string }>(
    'label-names',
    'SELECT lid, name FROM label_values WHERE fleet = $1 AND lid = ANY ($2::integer[])',
    [fleet, device.lids],
  )
  const gone = new Set([...change.unset, ...Object.keys(change.set)])
  const kept = named.filter(one => !gone.has(one.name)).map(one => one.lid)
  const wanted: number[] = []
  for (const [name, value] of Object.entries(change.set)) {
    const lid = await lidOf(tx, fleet, name, value)
    if (lid === null) return `labels of the fleet have ${labelValuesMax} values already`
    wanted.push(lid)
  }
  const after = [...kept, ...wanted].sort((a, b) => a - b)
  if (after.length > labelsPerDeviceMax) return `would have more than ${labelsPerDeviceMax} labels`
  const lost = device.lids.filter(lid => !after.includes(lid))
  const joined = after.filter(lid => !device.lids.includes(lid))
  if (lost.length + joined.length === 0) return 'unchanged'
  await tx.run('unlabel', 'DELETE FROM label_members WHERE fleet = $1 AND id = $2 AND lid = ANY ($3::integer[])', [
    ...[fleet, change.id, lost],
  ])
  await tx.run('label', 'INSERT INTO label_members (fleet, id, lid) SELECT $1, $2, unnest($3::integer[])', [
    fleet,
    change.id,
    joined,
  ])
  await tx.run(
    'count-labels',
    `UPDATE label_values SET devices = devices + CASE WHEN lid = ANY ($2::integer[]) THEN 1 ELSE -1 END
     WHERE fleet = $1 AND lid = ANY ($2::integer[] || $3::integer[])`,
    [fleet, joined, lost],
  )
  await tx.run('label-device-row', 'UPDATE devices SET lids = $1 WHERE key = $2', [after, device.key])
  return 'changed'
}
