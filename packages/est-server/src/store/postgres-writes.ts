// The rarer writes of the PostgreSQL driver, each a function of the open transaction: check the preconditions, then write, answer `conflict`
// without having written. The transaction holds the line (postgres-writer.ts), so what a write has read stays so until COMMIT.

import type { PackedManifest } from './packed-manifest.ts'
import type { PostgresHolds } from './postgres-campaigns.ts'
import { admitEntry, importEntries, lackingGroup } from './postgres-manifest.ts'
import { type DeviceSqlRow, deviceColumns, deviceRecord, highest, joinLatest, nextIdx } from './postgres-rows.ts'
import type { Transaction } from './postgres-writer.ts'
import type { AuditEntry, DeviceRecord, ManifestReport, NewDevice, NewSecret, RevocationRecord, SecretOutcome } from './store.ts'

export const postgresWrites = {
  async admitDevice(tx: Transaction, d: NewDevice, held: PostgresHolds): Promise<DeviceRecord | null> {
    const seen = await admitEntry(tx, d.fleet, d.id, d.birthSpkiSha256, d.groups, d.at)
    if (seen === 'refused') return null
    if (seen !== 'unchanged') tx.audit(d.audit)
    const sql = `SELECT ${deviceColumns}, (SELECT holds_version FROM head) FROM devices d ${joinLatest} WHERE d.fleet = $1 AND d.id = $2`
    const [row] = await tx.rows<DeviceSqlRow & { holds_version: number }>('device', sql, [d.fleet, d.id])
    return deviceRecord(row, (await held.at(row.holds_version, tx.rows)).of(d.fleet, row.key))
  },

  async leaseIdx(tx: Transaction, fleet: string, count: number): Promise<number> {
    const [{ next }] = await tx.rows<{ next: number }>('next-idx', `SELECT ${nextIdx('$1')} AS next`, [fleet])
    await tx.run('lease', 'INSERT INTO idx_leases VALUES ($1, $2) ON CONFLICT (fleet) DO UPDATE SET next = excluded.next', [
      fleet,
      next + count,
    ])
    return next
  },

  async voidIntent(tx: Transaction, issuer: Uint8Array, serial: Uint8Array, audit: AuditEntry): Promise<boolean> {
    const voided = await tx.run(
      'void',
      `UPDATE issuances SET state = 'void', finished_at = $1 WHERE issuer = $2 AND serial = $3 AND state = 'intent'`,
      [audit.at, issuer, serial],
    )
    if (voided === 1) tx.audit(audit)
    return voided === 1
  },

  acceptTime(tx: Transaction, audit: AuditEntry): void {
    tx.audit(audit)
    tx.setTime(audit.at)
  },

  async setSuspicion(tx: Transaction, fleet: string, id: string, suspected: boolean, audit: AuditEntry): Promise<boolean> {
    const marked = await tx.run(
      'mark',
      `UPDATE devices SET suspected_at = $1, supersedes = CASE WHEN $2::boolean THEN supersedes ELSE 0 END, version = version + 1
       WHERE fleet = $3 AND id = $4`,
      [suspected ? audit.at : null, suspected, fleet, id],
    )
    if (marked === 1) tx.audit(audit)
    return marked === 1
  },

  async raiseFloor(tx: Transaction, fleet: string, id: string, idx: number, audit: AuditEntry): Promise<boolean> {
    const raised = await tx.run(
      'raise',
      'UPDATE devices SET idx_floor = $1, version = version + 1 WHERE fleet = $2 AND id = $3 AND idx_floor < $1 AND suspected_at IS NULL',
      [idx, fleet, id],
    )
    if (raised === 1) tx.record(audit)
    return raised === 1
  },

  async importManifest(tx: Transaction, fleet: string, entries: PackedManifest, audit: AuditEntry): Promise<ManifestReport> {
    const report = await importEntries(tx, fleet, entries, audit.at)
    const detail = `${report.added} added, ${report.updated} updated, ${report.unchanged} unchanged, ${report.refused.length} refused`
    tx.audit({ ...audit, detail: audit.detail ? `${audit.detail}: ${detail}` : detail })
    return report
  },

  async mintSecret(tx: Transaction, s: NewSecret): Promise<SecretOutcome> {
    const lacking = await lackingGroup(tx, s.fleet, s.deviceId, s.groups)
    if (lacking !== null) return { kind: 'not_in_group', group: lacking }
    if ((await admitEntry(tx, s.fleet, s.deviceId, null, s.groups, s.at)) === 'refused') return { kind: 'groups_full' }
    await tx.run(
      'mint',
      'INSERT INTO secrets (hash, device, expires_at, minted_at) SELECT $1, key, $2, $3 FROM devices WHERE fleet = $4 AND id = $5',
      [s.hash, s.expiresAt, s.at, s.fleet, s.deviceId],
    )
    tx.audit(s.audit)
    return { kind: 'minted' }
  },

  async recordRevocation(tx: Transaction, r: RevocationRecord): Promise<'recorded' | 'conflict'> {
    const [held] = await tx.rows<{ holds: boolean }>(
      'revocation-holds',
      `SELECT EXISTS (SELECT 1 FROM groups WHERE fleet = $1 AND gid = $2 AND bound IS NULL)
         AND ${highest('seq', 'notices WHERE fleet = $1')} = $3 - 1
         AND (SELECT sha256 FROM notices WHERE fleet = $1 AND seq = $3 - 1) IS NOT DISTINCT FROM $4::bytea
         -- A certificate of the group that was recorded since the draft would escape the bound.
         AND NOT EXISTS (SELECT 1 FROM issuances WHERE fleet = $1 AND idx >= $5 AND $2 = ANY (gids)) AS holds`,
      [r.fleet, r.gid, r.seq, r.previousSha256, r.bound],
    )
    if (!held.holds) return 'conflict'
    await tx.run('close-group', 'UPDATE groups SET bound = $1, reason = $2, closed_seq = $3 WHERE fleet = $4 AND gid = $5', [
      ...[r.bound, r.reason, r.seq, r.fleet, r.gid],
    ])
    await tx.run(
      'add-notice',
      'INSERT INTO notices (fleet, seq, notice, sha256, previous_sha256, at) VALUES ($1, $2, $3, $4, $5, $6)',
      [r.fleet, r.seq, r.notice, r.noticeSha256, r.previousSha256, r.at],
    )
    tx.audit(r.audit)
    return 'recorded'
  },

  async outboxDelivered(tx: Transaction, fleet: string, seq: number, at: number): Promise<void> {
    const sql = 'UPDATE notices SET delivered_at = $1 WHERE fleet = $2 AND seq = $3 AND delivered_at IS NULL'
    await tx.run('deliver', sql, [at, fleet, seq])
  },
}
