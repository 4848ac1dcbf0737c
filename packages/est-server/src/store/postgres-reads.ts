// Every read of the PostgreSQL driver, as prepared statements. What every enrollment asks is gathered: the questions that wait while one
// statement is away go together in the next, so that a round trip is shared by all of them.

import { byteaArray, int4Array, textArray } from './postgres-array.ts'
import type { PostgresHolds } from './postgres-campaigns.ts'
import { unrevoked } from './postgres-manifest.ts'
import {
  type CertificateSqlRow,
  certificateColumns,
  certificateRecord,
  certificateSelect,
  type DeviceSqlRow,
  deviceColumns,
  deviceRecord,
  heldAgainst,
  joinLatest,
  nextIdx,
  prefixedCertificate,
  type Rows,
} from './postgres-rows.ts'
import { postgresSelectorCondition } from './postgres-selection.ts'
import type { HoldsOfFleets } from './quarantine.ts'
import type { Selector } from './selection.ts'
import type {
  AuditRecord,
  CertificateRecord,
  DeviceQuery,
  DeviceRow,
  EnrollmentFacts,
  GroupRecord,
  GroupRule,
  NoticeRecord,
  OpenIntent,
  RevocationDraft,
  SecretRecord,
} from './store.ts'
import { pageRowsMax } from './store.ts'

interface ListedDevice {
  key: number
  id: string
  key_origin: string
  groups: string
  labels: string
  holds_version: number
  seen_at: number | null
  suspected_at: number | null
  state: DeviceRow['state']
  serial: Uint8Array | null
  idx: number
  not_before: number
  not_after: number
}

const listedDevice = (fleet: string, row: ListedDevice, holds: HoldsOfFleets): DeviceRow => ({
  id: row.id,
  state: row.state,
  groups: JSON.parse(row.groups) as string[],
  keyOrigin: row.key_origin,
  certificate: row.serial && { serial: row.serial, idx: row.idx, notBefore: row.not_before, notAfter: row.not_after },
  seenAt: row.seen_at,
  suspectedAt: row.suspected_at,
  labels: Object.fromEntries(JSON.parse(row.labels) as [string, string][]),
  quarantinedBy: holds.campaignOf(fleet, row.key),
})

// The names of a device's groups in the order of their numbers, and how it stands.
const listed = `SELECT d.key, d.id, d.key_origin, d.seen_at, d.suspected_at, l.serial, l.idx, l.not_before, l.not_after,
  (SELECT coalesce(json_agg(g.name ORDER BY g.gid), '[]')::text FROM groups g WHERE g.fleet = d.fleet AND g.gid = ANY (d.gids)) AS groups,
  (SELECT coalesce(json_agg(json_build_array(v.name, v.value) ORDER BY v.lid), '[]')::text FROM label_values v
    WHERE v.fleet = d.fleet AND v.lid = ANY (d.lids)) AS labels, (SELECT holds_version FROM head) AS holds_version, s.state`
const standing = `${joinLatest} CROSS JOIN LATERAL (SELECT CASE
  WHEN EXISTS (SELECT 1 FROM groups g WHERE g.fleet = d.fleet AND g.gid = ANY (d.gids) AND g.bound IS NOT NULL) OR ${heldAgainst} THEN 'revoked'
  WHEN d.latest IS NULL THEN 'known' ELSE 'enrolled' END AS state) s`

type FactsRow = DeviceSqlRow & {
  latest_serial: Uint8Array | null
  same_serial: Uint8Array | null
  holder_id: string | null
  holder_fleet: string
  holder_idx: number
  birth_holder: string | null
  clock_at: number
  holds_version: number
}

const facts = `SELECT j.n, ${deviceColumns}, ${certificateColumns('l', 'latest_')}, ${certificateColumns('s', 'same_')},
  h.id AS holder_id, h.fleet AS holder_fleet, h.idx AS holder_idx, b.id AS birth_holder, head.clock_at, head.holds_version
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::integer[]) AS j (fleet, id, spki, content, n) CROSS JOIN head
LEFT JOIN devices d ON d.fleet = j.fleet AND d.id = j.id
${joinLatest}
LEFT JOIN LATERAL (SELECT * FROM issuances i WHERE i.device = d.key AND i.content_sha256 = j.content AND i.state <> 'void' AND i.state = 'issued'
  ORDER BY i.epoch DESC LIMIT 1) s ON true
LEFT JOIN LATERAL (SELECT o.id, o.fleet, i.idx FROM issuances i JOIN devices o ON o.key = i.device WHERE i.spki_sha256 = j.spki AND i.state <> 'void' AND i.state = 'issued'
  ORDER BY i.key DESC LIMIT 1) h ON true
LEFT JOIN devices b ON b.birth_spki_sha256 = j.spki
ORDER BY j.n`

interface Question {
  fleet: string
  deviceId: string
  spkiSha256: Uint8Array
  contentSha256: Uint8Array
  done: (facts: EnrollmentFacts) => void
  failed: (error: unknown) => void
}

/** Questions of one statement. */
const questionsMax = 256

function gatheredFacts(rows: Rows, held: PostgresHolds): (question: Omit<Question, 'done' | 'failed'>) => Promise<EnrollmentFacts> {
  const waiting: Question[] = []
  let away = false

  const recordOf = (row: FactsRow, { deviceId }: Question, holds: HoldsOfFleets): EnrollmentFacts => ({
    device: row.key === null ? null : deviceRecord(row, holds.of(row.fleet, row.key)),
    latest: prefixedCertificate(row as never, 'latest_', deviceId),
    same: prefixedCertificate(row as never, 'same_', deviceId),
    keyHolder: row.holder_id === null ? null : { deviceId: row.holder_id, fleet: row.holder_fleet, idx: row.holder_idx },
    birthKeyHolder: row.birth_holder,
    lastTime: row.clock_at,
  })

  async function send(): Promise<void> {
    const batch = waiting.splice(0, questionsMax)
    if (batch.length === 0) {
      away = false
      return
    }
    const answered = rows<FactsRow>('facts', facts, [
      ...[textArray(batch.map(q => q.fleet)), textArray(batch.map(q => q.deviceId)), byteaArray(batch.map(q => q.spkiSha256))],
      ...[byteaArray(batch.map(q => q.contentSha256)), int4Array(batch.map((_, n) => n))],
    ])
    // The next leave before this one's callers run.
    void answered.then(send, send)
    try {
      const answers = await answered
      const holds = await held.at(answers[0].holds_version, rows)
      for (const [n, question] of batch.entries()) question.done(recordOf(answers[n], question, holds))
    } catch (error) {
      for (const question of batch) question.failed(error)
    }
  }

  return question =>
    new Promise((done, failed) => {
      waiting.push({ ...question, done, failed })
      if (away) return
      away = true
      setImmediate(() => void send())
    })
}

export function postgresReads(rows: Rows, held: PostgresHolds) {
  const ask = gatheredFacts(rows, held)
  const listedDevices = async (fleet: string, found: ListedDevice[]): Promise<DeviceRow[]> => {
    if (found.length === 0) return []
    const holds = await held.at(found[0].holds_version, rows)
    return found.map(row => listedDevice(fleet, row, holds))
  }
  const one = async <Row>(name: string, sql: string, values: unknown[] = []): Promise<Row | undefined> =>
    (await rows<Row>(name, sql, values))[0]
  const groupByName = (fleet: string, name: string) =>
    one<GroupRecord & { closed_seq: number | null }>(
      'group-by-name',
      'SELECT gid, name, devices, bound, closed_seq FROM groups WHERE fleet = $1 AND name = $2',
      [fleet, name],
    )
  const noticeColumns = 'SELECT seq, notice, sha256, at FROM notices'
  const notice = async (fleet: string, seq: number): Promise<NoticeRecord | null> =>
    (await one<NoticeRecord>('notice', `${noticeColumns} WHERE fleet = $1 AND seq = $2`, [fleet, seq])) ?? null
  const rulesOf = async (fleet: string, limit: number | null): Promise<GroupRule[]> =>
    (
      await rows<{ gid: number; bound: number; reason: number | null }>(
        'rules',
        'SELECT gid, bound, reason FROM groups WHERE fleet = $1 AND bound IS NOT NULL ORDER BY closed_seq DESC LIMIT $2',
        [fleet, limit],
      )
    ).map(r => ({ kind: 'group', gid: r.gid, bound: r.bound, ...(r.reason === null ? {} : { reason: r.reason }) }))

  return {
    enrollmentFacts: (fleet: string, deviceId: string, spkiSha256: Uint8Array, contentSha256: Uint8Array) =>
      ask({ fleet, deviceId, spkiSha256, contentSha256 }),

    lastTime: async (): Promise<number> => (await one<{ at: number }>('clock-at', 'SELECT clock_at AS at FROM head'))!.at,

    certificate: async (issuer: Uint8Array, serial: Uint8Array): Promise<CertificateRecord | null> =>
      certificateRecord(
        await one<CertificateSqlRow>(
          'certificate',
          `${certificateSelect} WHERE i.issuer = $1 AND i.serial = $2 AND i.state = 'issued'`,
          [issuer, serial],
        ),
      ),

    async secret(hash: Uint8Array): Promise<SecretRecord | null> {
      const found = await one<SecretRecord>(
        'secret',
        `SELECT d.fleet, d.id AS "deviceId", s.expires_at AS "expiresAt", s.content_sha256 AS "contentSha256", s.issued
         FROM secrets s JOIN devices d ON d.key = s.device WHERE s.hash = $1`,
        [hash],
      )
      return found ?? null
    },

    openIntents: (limit: number): Promise<OpenIntent[]> =>
      rows(
        'open',
        `SELECT i.issuer, i.serial, i.fleet, d.id AS "deviceId", i.request_id AS "requestId", i.started_at AS at
         FROM issuances i JOIN devices d ON d.key = i.device WHERE i.state = 'intent' LIMIT $1`,
        [Math.min(limit, pageRowsMax)],
      ),

    async device(fleet: string, id: string): Promise<DeviceRow | null> {
      const row = await one<ListedDevice>('listed', `${listed} FROM devices d ${standing} WHERE d.fleet = $1 AND d.id = $2`, [
        fleet,
        id,
      ])
      return row ? listedDevice(fleet, row, await held.at(row.holds_version, rows)) : null
    },

    async devices(query: DeviceQuery): Promise<DeviceRow[]> {
      const { fleet, group: name, state = null, after = '' } = query
      const page = [state, fleet, after, Math.min(query.limit, pageRowsMax)]
      if (name === undefined) {
        const sql = `${listed} FROM devices d ${standing} WHERE d.fleet = $2 AND d.id > $3 AND ($1::text IS NULL OR s.state = $1) ORDER BY d.id LIMIT $4`
        return listedDevices(fleet, await rows<ListedDevice>('list', sql, page))
      }
      const group = await groupByName(fleet, name)
      if (group === undefined) return []
      const sql = `${listed} FROM memberships m JOIN devices d ON d.fleet = m.fleet AND d.id = m.id ${standing}
        WHERE m.fleet = $2 AND m.gid = $5 AND m.id > $3 AND ($1::text IS NULL OR s.state = $1) ORDER BY m.id LIMIT $4`
      return listedDevices(fleet, await rows<ListedDevice>('list-group', sql, [...page, group.gid]))
    },

    async selected(query: { fleet: string; selector: Selector; now: number; after: string; limit: number }): Promise<DeviceRow[]> {
      const condition = await postgresSelectorCondition((sql, values) => rows('', sql, values), query)
      const [after, limit] = [condition.values.length + 1, condition.values.length + 2]
      const sql = `${listed} FROM devices d ${standing} WHERE d.fleet = $1 AND ${condition.sql} AND d.id > $${after} ORDER BY d.id LIMIT $${limit}`
      return listedDevices(
        query.fleet,
        await rows<ListedDevice>('', sql, [...condition.values, query.after, Math.min(query.limit, pageRowsMax)]),
      )
    },

    groups: (fleet: string): Promise<GroupRecord[]> =>
      rows('groups', 'SELECT gid, name, devices, bound FROM groups WHERE fleet = $1 ORDER BY gid', [fleet]),

    isClosed: async (fleet: string, gids: number[]): Promise<boolean> =>
      (
        await rows('is-closed', 'SELECT 1 FROM groups WHERE fleet = $1 AND gid = ANY ($2::integer[]) AND bound IS NOT NULL', [
          fleet,
          gids,
        ])
      ).length > 0,

    async draftRevocation(fleet: string, name: string, rulesMax: number, now: number): Promise<RevocationDraft | null> {
      const group = await groupByName(fleet, name)
      if (group === undefined) return null
      const last = await one<NoticeRecord>('last-notice', `${noticeColumns} WHERE fleet = $1 ORDER BY seq DESC LIMIT 1`, [fleet])
      const closing = group.closed_seq === null ? null : await notice(fleet, group.closed_seq)
      const uncovered = await one<{ count: number }>(
        'uncovered',
        `SELECT count(*) AS count FROM memberships s JOIN devices d ON d.fleet = s.fleet AND d.id = s.id JOIN issuances i ON i.device = d.key
         WHERE s.fleet = $1 AND s.gid = $2 AND s.joined_after > 0 AND i.state <> 'void' AND i.idx <= s.joined_after AND i.not_after >= $3 AND ${unrevoked}`,
        [fleet, group.gid, now],
      )
      const { next } = (await one<{ next: number }>('next-idx', `SELECT ${nextIdx('$1')} AS next`, [fleet]))!
      return {
        gid: group.gid,
        devices: group.devices,
        uncovered: uncovered!.count,
        closed: closing && group.bound !== null ? { bound: group.bound, notice: closing } : null,
        idxNext: next,
        seq: (last?.seq ?? 0) + 1,
        previousSha256: last?.sha256 ?? null,
        rules: await rulesOf(fleet, rulesMax),
      }
    },

    rules: (fleet: string, limit: number | null = null) => rulesOf(fleet, limit),

    outboxPending: (fleet: string, limit: number): Promise<NoticeRecord[]> =>
      rows('pending', `${noticeColumns} WHERE fleet = $1 AND delivered_at IS NULL ORDER BY seq LIMIT $2`, [
        fleet,
        Math.min(limit, pageRowsMax),
      ]),

    notice,
    newestNotice: async (fleet: string): Promise<NoticeRecord | null> =>
      (await one<NoticeRecord>('newest-notice', `${noticeColumns} WHERE fleet = $1 ORDER BY seq DESC LIMIT 1`, [fleet])) ?? null,

    audit: (after: number, limit: number): Promise<AuditRecord[]> =>
      rows(
        'audit-page',
        'SELECT n, at, kind, request_id AS "requestId", fleet, device, "by", code, detail, hash FROM audit WHERE n > $1 ORDER BY n LIMIT $2',
        [after, Math.min(limit, pageRowsMax)],
      ),
  }
}
