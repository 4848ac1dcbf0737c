// Every read of the SQLite driver, on a read-only connection in the caller's thread: a prepared look-up of a cached page takes a few
// microseconds, less than the message to another thread would. WAL lets it see every commit and block none.

import type { DatabaseSync } from 'node:sqlite'
import type { Selector } from './selection.ts'
import { rememberedHolds } from './sqlite-campaigns.ts'
import {
  type CertificateSqlRow,
  certificateRecord,
  certificateSelect,
  heldAgainst,
  prepare,
  prepareList,
  unrevoked,
} from './sqlite-rows.ts'
import { selectorCondition } from './sqlite-selection.ts'
import type {
  AuditEntry,
  AuditRecord,
  CertificateRecord,
  DeviceQuery,
  DeviceRow,
  GroupRecord,
  GroupRule,
  NoticeRecord,
  OpenIntent,
  RevocationDraft,
  SecretRecord,
} from './store.ts'
import { pageRowsMax } from './store.ts'

type ListedDevice = {
  key: number
  id: string
  key_origin: string
  gids: string
  lids: string
  seen_at: number | null
  suspected_at: number | null
  closed: number
  serial: Uint8Array | null
  idx: number
  not_before: number
  not_after: number
}

export function sqliteReads(db: DatabaseSync) {
  const closedGroup = prepare(db, 'SELECT 1 FROM groups WHERE fleet = ? AND gid = ? AND bound IS NOT NULL')
  const isClosedGid = (fleet: string, gid: number) => closedGroup.get(fleet, gid) !== undefined
  const certificateBySerial = prepareList<CertificateSqlRow>(
    db,
    `${certificateSelect} WHERE i.issuer = +? AND i.serial = +? AND i.state = 'issued'`,
  )
  const clock = prepare<{ at: number }>(db, 'SELECT at FROM clock')
  const lastTime = () => clock.get()?.at ?? -1
  const secretByHash = prepare<{
    fleet: string
    id: string
    expires_at: number
    content_sha256: Uint8Array | null
    issued: number
  }>(
    db,
    'SELECT d.fleet, d.id, s.expires_at, s.content_sha256, s.issued FROM secrets s JOIN devices d ON d.key = s.device WHERE s.hash = +?',
  )
  const lastIdx = prepare<{ idx: number | null }>(db, 'SELECT max(idx) AS idx FROM issuances WHERE fleet = ?')
  const highestBound = prepare<{ bound: number | null }>(db, 'SELECT max(bound) AS bound FROM groups WHERE fleet = ?')
  const open = prepare<{
    issuer: Uint8Array
    serial: Uint8Array
    fleet: string
    id: string
    request_id: string
    started_at: number
  }>(
    db,
    `SELECT i.issuer, i.serial, i.fleet, d.id, i.request_id, i.started_at FROM issuances i JOIN devices d ON d.key = i.device
     WHERE i.state = 'intent' LIMIT ?`,
  )
  // CROSS JOIN keeps the order of the loops: from the few to what each of them points at.
  const listed = `SELECT d.key, d.id, d.key_origin, d.gids, d.lids, d.seen_at, d.suspected_at, i.serial, i.idx, i.not_before, i.not_after,
    EXISTS (SELECT 1 FROM json_each(d.gids) m CROSS JOIN groups g ON g.fleet = d.fleet AND g.gid = m.value WHERE g.bound IS NOT NULL)
    OR ${heldAgainst('d')} AS closed`
  const inState = `(?1 IS NULL OR ?1 = CASE WHEN closed THEN 'revoked' WHEN d.latest IS NULL THEN 'known' ELSE 'enrolled' END)`
  const deviceRow = prepare<ListedDevice>(
    db,
    `${listed} FROM devices d LEFT JOIN issuances i ON i.key = d.latest WHERE d.fleet = ? AND d.id = ?`,
  )
  const deviceRows = prepare<ListedDevice>(
    db,
    `${listed} FROM devices d LEFT JOIN issuances i ON i.key = d.latest
     WHERE d.fleet = ?2 AND d.id > ?3 AND ${inState} ORDER BY d.id LIMIT ?4`,
  )
  const groupRows = prepare<ListedDevice>(
    db,
    `${listed} FROM memberships s CROSS JOIN devices d ON d.fleet = s.fleet AND d.id = s.id LEFT JOIN issuances i ON i.key = d.latest
     WHERE s.fleet = ?2 AND s.gid = ?5 AND s.id > ?3 AND ${inState} ORDER BY s.id LIMIT ?4`,
  )
  const groups = prepare<GroupRecord>(db, 'SELECT gid, name, devices, bound FROM groups WHERE fleet = ? ORDER BY gid')
  const groupByName = prepare<GroupRecord & { closed_seq: number | null }>(
    db,
    'SELECT gid, name, devices, bound, closed_seq FROM groups WHERE fleet = ? AND name = ?',
  )
  const uncovered = prepare<{ count: number }>(
    db,
    `SELECT count(*) AS count FROM memberships s INDEXED BY memberships_late CROSS JOIN devices d ON d.fleet = s.fleet AND d.id = s.id
     CROSS JOIN issuances i ON i.device = d.key
     WHERE s.fleet = ? AND s.gid = ? AND s.joined_after > 0 AND i.state <> 'void' AND i.idx <= s.joined_after AND i.not_after >= ? AND ${unrevoked}`,
  )
  const labelByLid = prepare<{ name: string; value: string }>(
    db,
    'SELECT name, value FROM label_values WHERE fleet = ? AND lid = ?',
  )
  const holds = rememberedHolds(db)
  const groupName = prepare<{ name: string }>(db, 'SELECT name FROM groups WHERE fleet = ? AND gid = ?')
  const rules = prepare<{ gid: number; bound: number; reason: number | null }>(
    db,
    'SELECT gid, bound, reason FROM groups WHERE fleet = ? AND bound IS NOT NULL ORDER BY closed_seq DESC LIMIT ?',
  )
  const noticeColumns = 'SELECT seq, notice, sha256, at FROM notices'
  const pending = prepare<NoticeRecord>(db, `${noticeColumns} WHERE fleet = ? AND delivered_at IS NULL ORDER BY seq LIMIT ?`)
  const noticeBySeq = prepare<NoticeRecord>(db, `${noticeColumns} WHERE fleet = ? AND seq = ?`)
  const lastNotice = prepare<NoticeRecord>(db, `${noticeColumns} WHERE fleet = ? ORDER BY seq DESC LIMIT 1`)
  const auditRows = prepare<AuditEntry & { n: number; hash: Uint8Array; request_id: string }>(
    db,
    'SELECT n, at, kind, request_id, fleet, device, "by", code, detail, hash FROM audit WHERE n > ? ORDER BY n LIMIT ?',
  )

  const rulesOf = (fleet: string, limit: number): GroupRule[] =>
    rules
      .all(fleet, limit)
      .map(r => ({ kind: 'group', gid: r.gid, bound: r.bound, ...(r.reason === null ? {} : { reason: r.reason }) }))

  const leasedIdx = prepare<{ next: number }>(db, 'SELECT next FROM idx_leases WHERE fleet = ?')
  const nextIdx = (fleet: string) =>
    Math.max((lastIdx.get(fleet)?.idx ?? 0) + 1, highestBound.get(fleet)?.bound ?? 1, leasedIdx.get(fleet)?.next ?? 1)

  const listedDevice = (fleet: string, row: ListedDevice): DeviceRow => ({
    id: row.id,
    state: row.closed ? 'revoked' : row.serial === null ? 'known' : 'enrolled',
    groups: (JSON.parse(row.gids) as number[]).map(gid => groupName.get(fleet, gid)?.name ?? `gid ${gid}`),
    keyOrigin: row.key_origin,
    certificate:
      row.serial === null ? null : { serial: row.serial, idx: row.idx, notBefore: row.not_before, notAfter: row.not_after },
    seenAt: row.seen_at,
    suspectedAt: row.suspected_at,
    labels: Object.fromEntries(
      (JSON.parse(row.lids) as number[]).flatMap(lid => {
        const label = labelByLid.get(fleet, lid)
        return label ? [[label.name, label.value]] : []
      }),
    ),
    quarantinedBy: holds.now().campaignOf(fleet, row.key),
  })

  return {
    nextIdx,

    lastTime,

    certificate: (issuer: Uint8Array, serial: Uint8Array): CertificateRecord | null =>
      certificateRecord(certificateBySerial(issuer, serial)),

    secret(hash: Uint8Array): SecretRecord | null {
      const s = secretByHash.get(hash)
      if (s === undefined) return null
      return { fleet: s.fleet, deviceId: s.id, expiresAt: s.expires_at, contentSha256: s.content_sha256, issued: s.issued === 1 }
    },

    openIntents: (limit: number): OpenIntent[] =>
      open.all(Math.min(limit, pageRowsMax)).map(o => ({
        issuer: o.issuer,
        serial: o.serial,
        fleet: o.fleet,
        deviceId: o.id,
        requestId: o.request_id,
        at: o.started_at,
      })),

    device(fleet: string, id: string): DeviceRow | null {
      const row = deviceRow.get(fleet, id)
      return row ? listedDevice(fleet, row) : null
    },

    devices(query: DeviceQuery): DeviceRow[] {
      const { fleet, group: name, state = null, after = '' } = query
      const limit = Math.min(query.limit, pageRowsMax)
      const group = name === undefined ? null : groupByName.get(fleet, name)
      if (group === undefined) return []
      const rows = group ? groupRows.all(state, fleet, after, limit, group.gid) : deviceRows.all(state, fleet, after, limit)
      return rows.map(row => listedDevice(fleet, row))
    },

    selected(query: { fleet: string; selector: Selector; now: number; after: string; limit: number }): DeviceRow[] {
      const condition = selectorCondition(db, query)
      const [after, limit] = [`?${condition.values.length + 1}`, `?${condition.values.length + 2}`]
      const rows = prepare<ListedDevice>(
        db,
        `${listed} FROM devices d LEFT JOIN issuances i ON i.key = d.latest WHERE d.fleet = ?1 AND ${condition.sql} AND d.id > ${after}
         ORDER BY d.id LIMIT ${limit}`,
      ).all(...condition.values, query.after, Math.min(query.limit, pageRowsMax))
      return rows.map(row => listedDevice(query.fleet, row))
    },

    groups: (fleet: string): GroupRecord[] => groups.all(fleet).map(g => ({ ...g })),

    isClosed: (fleet: string, gids: number[]): boolean => gids.some(gid => isClosedGid(fleet, gid)),

    draftRevocation(fleet: string, name: string, rulesMax: number, now: number): RevocationDraft | null {
      const group = groupByName.get(fleet, name)
      if (group === undefined) return null
      const last = lastNotice.get(fleet)
      const closing = group.closed_seq === null ? undefined : noticeBySeq.get(fleet, group.closed_seq)
      return {
        gid: group.gid,
        devices: group.devices,
        uncovered: uncovered.get(fleet, group.gid, now)?.count ?? 0,
        closed: closing && group.bound !== null ? { bound: group.bound, notice: { ...closing } } : null,
        idxNext: nextIdx(fleet),
        seq: (last?.seq ?? 0) + 1,
        previousSha256: last?.sha256 ?? null,
        rules: rulesOf(fleet, rulesMax),
      }
    },

    rules: (fleet: string, limit = -1): GroupRule[] => rulesOf(fleet, limit),
    outboxPending: (fleet: string, limit: number): NoticeRecord[] =>
      pending.all(fleet, Math.min(limit, pageRowsMax)).map(n => ({ ...n })),

    notice(fleet: string, seq: number): NoticeRecord | null {
      const row = noticeBySeq.get(fleet, seq)
      return row ? { ...row } : null
    },

    audit: (after: number, limit: number): AuditRecord[] =>
      auditRows.all(after, Math.min(limit, pageRowsMax)).map(({ request_id, ...rest }) => ({ ...rest, requestId: request_id })),
  }
}

/**
 * One read transaction for every look-up of a turn of the event loop. After each commit of the writer a connection drops its page cache at its
 * next transaction, and filling it again costs several times the look-up.
 */
export function readSnapshot(db: DatabaseSync): { begin(): void; end(): void } {
  const beginning = db.prepare('BEGIN')
  const ending = db.prepare('COMMIT')
  const undoing = db.prepare('ROLLBACK')
  let open = false
  const end = () => {
    if (!open) return
    open = false
    // Nothing was written, and nobody waits for this: a medium that cannot be read is for the next reader to hear of.
    try {
      ending.run()
    } catch {
      if (db.isTransaction) undoing.run()
    }
  }
  return {
    begin() {
      if (open) return
      beginning.run()
      open = true
      setImmediate(end)
    },
    end,
  }
}
