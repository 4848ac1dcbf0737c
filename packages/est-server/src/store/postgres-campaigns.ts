// Campaigns and what they hold, in PostgreSQL: the reads and writes of campaigns.ts and quarantine.ts.

import {
  type CampaignMove,
  type CampaignQuery,
  type CampaignRecord,
  type FrozenSets,
  holdOf,
  type NewCampaign,
  requireText,
} from './campaigns.ts'
import type { Rows } from './postgres-rows.ts'
import type { Transaction } from './postgres-writer.ts'
import { type DeviceQuarantine, type Hold, type HoldsOfFleets, holdsIn, holdsSql } from './quarantine.ts'
import { pageRowsMax } from './store.ts'

const columns = `fleet, id, state, version, plan, plan_sha256 AS "planSha256", planned_at AS "plannedAt", expires_at AS "expiresAt",
  window_ends_at AS "windowEndsAt", issued_through AS "issuedThrough", story`

/** What campaigns hold, as it was at a version of them. `read`: on whichever connection asks. */
export interface PostgresHolds {
  /** As of this version; read anew when another was. */
  at(version: number, read: Rows): Promise<HoldsOfFleets>
}

export function postgresHolds(): PostgresHolds {
  let known: { version: number; holds: Promise<HoldsOfFleets> } = { version: 0, holds: Promise.resolve(holdsIn([])) }
  return {
    at(version, read) {
      if (version !== known.version) {
        const holds = read<Hold & { fleet: string }>('all-holds', holdsSql).then(holdsIn)
        const reading = { version, holds }
        known = reading
        // A failed read is not remembered.
        holds.catch(() => {
          if (known === reading) known = { version: -1, holds }
        })
      }
      return known.holds
    },
  }
}

export function postgresCampaignReads(rows: Rows, held: PostgresHolds) {
  const holdsVersion = async () =>
    (await rows<{ version: number }>('holds-version', 'SELECT holds_version AS version FROM head'))[0].version
  return {
    holdsVersion,
    async holds(fleet: string): Promise<Hold[]> {
      const found = await rows<Hold & { fleet: string }>('holds', `${holdsSql} AND c.fleet = $1 ORDER BY c.id`, [fleet])
      return found.map(({ fleet: _, ...hold }) => hold)
    },
    async quarantine(fleet: string, deviceId: string): Promise<DeviceQuarantine | null> {
      const [device] = await rows<{ key: number }>('key-of', 'SELECT key FROM devices WHERE fleet = $1 AND id = $2', [
        fleet,
        deviceId,
      ])
      const holds = await held.at(await holdsVersion(), rows)
      const campaign = device && holds.campaignOf(fleet, device.key)
      if (!campaign) return null
      const sql = 'SELECT id AS campaign, held_since AS since, window_ends_at AS until FROM campaigns WHERE fleet = $1 AND id = $2'
      return (await rows<DeviceQuarantine>('quarantine', sql, [fleet, campaign]))[0] ?? null
    },
    campaigns: ({ fleet, states, id, limit }: CampaignQuery): Promise<CampaignRecord[]> =>
      rows(
        'campaigns',
        `SELECT ${columns} FROM campaigns WHERE fleet = $1 AND ($2::text[] IS NULL OR state = ANY ($2)) AND ($3::text IS NULL OR id = $3)
         ORDER BY planned_at DESC, id LIMIT $4`,
        [fleet, states ?? null, id ?? null, Math.min(limit, pageRowsMax)],
      ),
    async campaignSets(fleet: string, id: string): Promise<FrozenSets | null> {
      const sql = 'SELECT devices, certificates, uncertified FROM campaign_sets WHERE fleet = $1 AND id = $2'
      return (await rows<FrozenSets>('campaign-sets', sql, [fleet, id]))[0] ?? null
    },
  }
}

export const postgresCampaignWrites = {
  async recordCampaign(tx: Transaction, c: NewCampaign, plansMax: number): Promise<'recorded' | 'known' | 'full'> {
    const of = [c.fleet, c.id]
    if ((await tx.rows('campaign-known', 'SELECT 1 FROM campaigns WHERE fleet = $1 AND id = $2', of)).length > 0) return 'known'
    const expired = `SELECT id FROM campaigns WHERE fleet = $1 AND state = 'planned' AND expires_at <= $2`
    await tx.run('sweep-sets', `DELETE FROM campaign_sets WHERE fleet = $1 AND id IN (${expired})`, [c.fleet, c.plannedAt])
    await tx.run('sweep-plans', `DELETE FROM campaigns WHERE fleet = $1 AND id IN (${expired})`, [c.fleet, c.plannedAt])
    const [{ count }] = await tx.rows<{ count: number }>(
      'planned',
      "SELECT count(*) AS count FROM campaigns WHERE fleet = $1 AND state IN ('planned', 'submitted')",
      [c.fleet],
    )
    if (count >= plansMax) return 'full'
    requireText(c.plan, c.story)
    await tx.run(
      'add-campaign',
      `INSERT INTO campaigns (fleet, id, state, version, plan, plan_sha256, planned_at, expires_at, issued_through, story)
       VALUES ($1, $2, 'planned', 1, $3, $4, $5, $6, $7, $8)`,
      [...of, c.plan, c.planSha256, c.plannedAt, c.expiresAt, c.issuedThrough, c.story],
    )
    await tx.run(
      'add-sets',
      'INSERT INTO campaign_sets (fleet, id, devices, certificates, uncertified) VALUES ($1, $2, $3, $4, $5)',
      [...[...of, c.devices, c.certificates, c.uncertified]],
    )
    tx.audit(c.audit)
    return 'recorded'
  },

  async moveCampaign(tx: Transaction, m: CampaignMove): Promise<'moved' | 'conflict'> {
    const [before] = await tx.rows<{ state: CampaignRecord['state']; version: number; held_since: number | null }>(
      'campaign-before',
      'SELECT state, version, held_since FROM campaigns WHERE fleet = $1 AND id = $2',
      [m.fleet, m.id],
    )
    if (before === undefined || before.version !== m.version) return 'conflict'
    requireText(m.story)
    const hold = holdOf(m.state)
    const since = hold === holdOf(before.state) ? before.held_since : hold === null ? null : m.at
    await tx.run(
      'move-campaign',
      `UPDATE campaigns SET state = $1, version = version + 1, story = $2, window_ends_at = $3, held_since = $4,
         issued_through = coalesce($5, issued_through) WHERE fleet = $6 AND id = $7`,
      [m.state, m.story, m.windowEndsAt, since, m.issuedThrough ?? null, m.fleet, m.id],
    )
    if (m.devices || m.certificates)
      await tx.run(
        'replace-sets',
        'UPDATE campaign_sets SET devices = coalesce($1, devices), certificates = coalesce($2, certificates) WHERE fleet = $3 AND id = $4',
        [m.devices ?? null, m.certificates ?? null, m.fleet, m.id],
      )
    if (hold !== holdOf(before.state) || (hold !== null && (m.devices || m.certificates)))
      await tx.run('holds-change', "UPDATE head SET holds_version = nextval('holds_versions')")
    if (m.audit) tx.audit(m.audit)
    else tx.moveTime(m.at)
    return 'moved'
  },
}
