// Campaigns and what they hold, in SQLite: the reads and writes of campaigns.ts and quarantine.ts.

import type { DatabaseSync } from 'node:sqlite'
import {
  type CampaignMove,
  type CampaignQuery,
  type CampaignRecord,
  type CampaignState,
  type FrozenSets,
  holdOf,
  type NewCampaign,
  requireText,
} from './campaigns.ts'
import { type DeviceQuarantine, type Hold, type HoldsOfFleets, holdsIn, holdsSql } from './quarantine.ts'
import { prepare } from './sqlite-rows.ts'
import { type AuditEntry, pageRowsMax } from './store.ts'

interface CampaignRow {
  fleet: string
  id: string
  state: CampaignState
  version: number
  plan: string
  plan_sha256: Uint8Array
  planned_at: number
  expires_at: number
  window_ends_at: number | null
  issued_through: number
  story: string
}

const record = (row: CampaignRow): CampaignRecord => ({
  ...{ fleet: row.fleet, id: row.id, state: row.state, version: row.version, plan: row.plan, planSha256: row.plan_sha256 },
  ...{ plannedAt: row.planned_at, expiresAt: row.expires_at, windowEndsAt: row.window_ends_at, issuedThrough: row.issued_through },
  story: row.story,
})

export function campaignReads(db: DatabaseSync) {
  const version = prepare<{ version: number }>(db, 'SELECT version FROM holds_version')
  const holds = prepare<Hold & { fleet: string }>(db, `${holdsSql} AND c.fleet = ? ORDER BY c.id`)
  const list = prepare<CampaignRow>(
    db,
    `SELECT * FROM campaigns WHERE fleet = ?1 AND (?2 IS NULL OR state IN (SELECT value FROM json_each(?2))) AND (?3 IS NULL OR id = ?3)
     ORDER BY planned_at DESC, id LIMIT ?4`,
  )
  const sets = prepare<FrozenSets>(db, 'SELECT devices, certificates, uncertified FROM campaign_sets WHERE fleet = ? AND id = ?')
  const keyOf = prepare<{ key: number }>(db, 'SELECT key FROM devices WHERE fleet = ? AND id = ?')
  const remembered = rememberedHolds(db)
  const holdById = prepare<DeviceQuarantine>(
    db,
    'SELECT id AS campaign, held_since AS since, window_ends_at AS until FROM campaigns WHERE fleet = ? AND id = ?',
  )
  return {
    holdsVersion: () => version.get()!.version,
    holds: (fleet: string): Hold[] => holds.all(fleet).map(({ fleet: _, ...hold }) => ({ ...hold })),
    quarantine(fleet: string, deviceId: string): DeviceQuarantine | null {
      const device = keyOf.get(fleet, deviceId)
      const campaign = device === undefined ? null : remembered.now().campaignOf(fleet, device.key)
      const found = campaign === null ? undefined : holdById.get(fleet, campaign)
      return found ? { ...found } : null
    },
    campaigns: ({ fleet, states, id, limit }: CampaignQuery): CampaignRecord[] =>
      list.all(fleet, states ? JSON.stringify(states) : null, id ?? null, Math.min(limit, pageRowsMax)).map(record),
    campaignSets(fleet: string, id: string) {
      const row = sets.get(fleet, id)
      return row ? { ...row } : null
    },
  }
}

export interface RememberedHolds {
  /** As they stand; read anew when their version has moved, a look-up of one row otherwise. */
  now(): HoldsOfFleets
  /** To be called after a transaction was undone: its version may come again with other holds. */
  forget(): void
}

export function rememberedHolds(db: DatabaseSync): RememberedHolds {
  const version = prepare<{ version: number }>(db, 'SELECT version FROM holds_version')
  const all = prepare<Hold & { fleet: string }>(db, holdsSql)
  let at = -1
  let held = holdsIn([])
  return {
    now() {
      const current = version.get()!.version
      if (current !== at) held = holdsIn(all.all())
      at = current
      return held
    },
    forget() {
      at = -1
    },
  }
}

export interface CampaignWrites {
  recordCampaign(asked: { campaign: NewCampaign; plansMax: number }): 'recorded' | 'known' | 'full'
  moveCampaign(move: CampaignMove): 'moved' | 'conflict'
}

export function campaignWrites(db: DatabaseSync, audit: (entry: AuditEntry) => void, seen: (at: number) => void): CampaignWrites {
  const known = prepare<CampaignRow>(db, 'SELECT * FROM campaigns WHERE fleet = ? AND id = ?')
  const expired = `FROM campaigns WHERE fleet = ?1 AND state = 'planned' AND expires_at <= ?2`
  const sweepSets = prepare(db, `DELETE FROM campaign_sets WHERE fleet = ?1 AND id IN (SELECT id ${expired})`)
  const sweep = prepare(db, `DELETE ${expired}`)
  const planned = prepare<{ count: number }>(
    db,
    "SELECT count(*) AS count FROM campaigns WHERE fleet = ? AND state IN ('planned', 'submitted')",
  )
  const insert = prepare(
    db,
    `INSERT INTO campaigns (fleet, id, state, version, plan, plan_sha256, planned_at, expires_at, issued_through, story)
     VALUES (?, ?, 'planned', 1, ?, ?, ?, ?, ?, ?)`,
  )
  const insertSets = prepare(db, 'INSERT INTO campaign_sets (fleet, id, devices, certificates, uncertified) VALUES (?, ?, ?, ?, ?)')
  const move = prepare(
    db,
    `UPDATE campaigns SET state = ?1, version = version + 1, story = ?2, window_ends_at = ?3, held_since = ?4,
       issued_through = coalesce(?5, issued_through) WHERE fleet = ?6 AND id = ?7 AND version = ?8`,
  )
  const replace = prepare(
    db,
    'UPDATE campaign_sets SET devices = coalesce(?, devices), certificates = coalesce(?, certificates) WHERE fleet = ? AND id = ?',
  )
  const heldSince = prepare<{ held_since: number | null }>(db, 'SELECT held_since FROM campaigns WHERE fleet = ? AND id = ?')
  const holdsChange = prepare(db, 'UPDATE holds_version SET version = version + 1')

  return {
    recordCampaign({ campaign: c, plansMax }) {
      if (known.get(c.fleet, c.id)) return 'known'
      sweepSets.run(c.fleet, c.plannedAt)
      sweep.run(c.fleet, c.plannedAt)
      if (planned.get(c.fleet)!.count >= plansMax) return 'full'
      requireText(c.plan, c.story)
      insert.run(c.fleet, c.id, c.plan, c.planSha256, c.plannedAt, c.expiresAt, c.issuedThrough, c.story)
      insertSets.run(c.fleet, c.id, c.devices, c.certificates, c.uncertified)
      audit(c.audit)
      return 'recorded'
    },

    moveCampaign(m) {
      const before = known.get(m.fleet, m.id)
      if (before === undefined || before.version !== m.version) return 'conflict'
      requireText(m.story)
      const hold = holdOf(m.state)
      const since = hold === holdOf(before.state) ? (heldSince.get(m.fleet, m.id)?.held_since ?? null) : hold === null ? null : m.at
      move.run(m.state, m.story, m.windowEndsAt, since, m.issuedThrough ?? null, m.fleet, m.id, m.version)
      if (m.devices || m.certificates) replace.run(m.devices ?? null, m.certificates ?? null, m.fleet, m.id)
      if (hold !== holdOf(before.state) || (hold !== null && (m.devices || m.certificates))) holdsChange.run()
      if (m.audit) audit(m.audit)
      else seen(m.at)
      return 'moved'
    },
  }
}
