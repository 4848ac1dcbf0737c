// Certificates revoked otherwise than by group, in PostgreSQL: the reads and writes of revoked-lists.ts.

import type { Bytes } from '@birthmark/device-sdk/core'
import { type BitBlock, blockOf, blocksOfRange, hasNumber, orBits, packBits, unpackBits } from './bit-blocks.ts'
import type { SerialQuery } from './crl.ts'
import { heldAgainst, highest, joinLatest, nextIdx, type Rows } from './postgres-rows.ts'
import type { Transaction } from './postgres-writer.ts'
import type {
  DatedSet,
  ListDraft,
  PlacedSerial,
  RevocableDevice,
  RevokedListStore,
  RevokedSet,
  SetOutcome,
  SetRecord,
  StandingSets,
} from './revoked-lists.ts'
import type { AuditEntry } from './store.ts'
import { pageRowsMax } from './store.ts'

type Draft = Omit<ListDraft, 'rules'>

/** `rules`: what the driver reads of a fleet anyway. */
export function postgresRevokedListReads(
  rows: Rows,
  rules: (fleet: string, limit: number) => Promise<ListDraft['rules']>,
): Omit<RevokedListStore, 'recordSet' | 'readmitDevice'> {
  return {
    async draftSet(fleet, rulesMax) {
      const [draft] = await rows<Draft & { last: number }>(
        'draft-set',
        `SELECT ${nextIdx('$1')} AS "idxNext", ${highest('key', 'issuances')} AS issued, coalesce(n.seq, 0) + 1 AS seq,
           n.sha256 AS "previousSha256", ${highest('start', "revoked_sets WHERE fleet = $1 AND kind = 'floor'")} AS floor
         FROM head LEFT JOIN LATERAL (SELECT seq, sha256 FROM notices WHERE fleet = $1 ORDER BY seq DESC LIMIT 1) n ON true`,
        [fleet],
      )
      return { ...draft, rules: await rules(fleet, rulesMax) }
    },

    revocableDevices: (fleet, ids, now): Promise<RevocableDevice[]> =>
      rows(
        'revocable-devices',
        `SELECT d.id, d.key, ${heldAgainst} AS closed, ARRAY (SELECT i.idx FROM issuances i WHERE i.device = d.key AND i.state <> 'void'
           AND (i.key = d.latest OR i.state = 'intent' OR i.not_after >= $3) ORDER BY i.idx) AS indices
         FROM unnest($2::text[]) WITH ORDINALITY AS j (id, n) JOIN devices d ON d.fleet = $1 AND d.id = j.id ${joinLatest} ORDER BY j.n`,
        [fleet, ids.slice(0, pageRowsMax), now],
      ),

    async standingSets(fleet): Promise<StandingSets> {
      const whole = await rows<{ kind: string; start: number; issuer: Uint8Array | null }>(
        'whole-sets',
        "SELECT kind, start, issuer FROM revoked_sets WHERE fleet = $1 AND kind IN ('floor', 'issuer')",
        [fleet],
      )
      const blocks = await rows<BitBlock>(
        'revoked-indices',
        'SELECT block, bits FROM revoked_indices WHERE fleet = $1 ORDER BY block',
        [fleet],
      )
      const issuers = new Map(whole.flatMap(({ issuer }) => (issuer ? [[Buffer.from(issuer).toString('hex'), issuer]] : [])))
      return {
        floor: whole.reduce((floor, { kind, start }) => (kind === 'floor' ? Math.max(floor, start) : floor), 0),
        issuers: [...issuers.values()],
        blocks,
      }
    },

    async datedSets(fleet, after): Promise<DatedSet[]> {
      const sets = await rows<Omit<DatedSet, 'blocks'>>(
        'dated-sets',
        `SELECT s.seq, s.kind, s.start, s.length, s.issuer, s.reason, n.at FROM revoked_sets s JOIN notices n ON n.fleet = s.fleet AND n.seq = s.seq
         WHERE s.fleet = $1 AND s.seq > $2 ORDER BY s.seq, s.kind`,
        [fleet, after],
      )
      const out: DatedSet[] = sets.map(set => ({ ...set, blocks: [] }))
      const bySeq = new Map(out.flatMap(set => (set.kind === 'list' ? [[set.seq, set] as const] : [])))
      const blocks = await rows<BitBlock & { seq: number }>(
        'revoked-blocks',
        'SELECT seq, block, bits FROM revoked_blocks WHERE fleet = $1 AND seq > $2 ORDER BY seq, block',
        [fleet, after],
      )
      for (const { seq, block, bits } of blocks) bySeq.get(seq)?.blocks.push({ block, bits: unpackBits(bits) })
      return out
    },

    placedSerials: ({ issuer, fleet, from, to, since }: SerialQuery): Promise<PlacedSerial[]> =>
      rows(
        'placed-serials',
        `SELECT idx, gids, serial FROM issuances
         WHERE fleet = $1 AND idx >= $2 AND idx < $3 AND issuer = $4 AND state <> 'void' AND not_after >= $5 ORDER BY idx`,
        [fleet, from, to, issuer, since],
      ),

    placedIssuers: ({ fleet, from, to, since }: Omit<SerialQuery, 'issuer'>): Promise<{ idx: number; issuer: Bytes }[]> =>
      rows(
        'placed-issuers',
        `SELECT idx, issuer FROM issuances
         WHERE fleet = $1 AND idx >= $2 AND idx < $3 AND state <> 'void' AND not_after >= $4 ORDER BY idx`,
        [fleet, from, to, since],
      ),

    async deviceCount(fleet) {
      const [{ devices }] = await rows<{ devices: number }>(
        'device-count',
        'SELECT count(*) AS devices FROM devices WHERE fleet = $1',
        [fleet],
      )
      return devices
    },

    async indicesOf({ fleet, gids = [], issuer, from, to }) {
      const found = await rows<{ idx: number }>(
        issuer ? 'indices-of-issuer' : 'indices-of-group',
        `SELECT idx FROM issuances WHERE fleet = $1 AND idx >= $2 AND idx < $3 AND ${issuer ? 'issuer = $4' : 'gids && $4::integer[]'} ORDER BY idx`,
        [fleet, from, to, issuer ?? gids],
      )
      return found.map(({ idx }) => idx)
    },
  }
}

/** Adds to the blocks of a table, whose rows `where` picks; many blocks in two statements. */
async function keepBlocks(tx: Transaction, table: 'indices' | 'devices', fleet: string, blocks: BitBlock[]): Promise<void> {
  if (blocks.length === 0) return
  const numbers = blocks.map(({ block }) => block)
  const before = await (table === 'indices'
    ? tx.rows<BitBlock>(
        'index-blocks',
        'SELECT block, bits FROM revoked_indices WHERE fleet = $1 AND block = ANY ($2::integer[])',
        [fleet, numbers],
      )
    : tx.rows<BitBlock>('device-blocks', 'SELECT block, bits FROM closed_devices WHERE block = ANY ($1::bigint[])', [numbers]))
  const known = new Map(before.map(({ block, bits }) => [block, bits]))
  const joined = blocks.map(({ block, bits }) => orBits(known.get(block), bits))
  if (table === 'indices')
    await tx.run(
      'keep-indices',
      `INSERT INTO revoked_indices SELECT $1, * FROM unnest($2::integer[], $3::bytea[])
       ON CONFLICT (fleet, block) DO UPDATE SET bits = excluded.bits`,
      [fleet, numbers, joined],
    )
  else
    await tx.run(
      'keep-devices',
      `INSERT INTO closed_devices SELECT * FROM unnest($1::bigint[], $2::bytea[]) ON CONFLICT (block) DO UPDATE SET bits = excluded.bits`,
      [numbers, joined],
    )
}

/** What devices in `devices` were given since issuance `after`. */
async function givenSince(tx: Transaction, after: number, devices: BitBlock[]): Promise<{ indices: number[]; issued: number }> {
  const named = new Map(devices.map(({ block, bits }) => [block, bits]))
  const since = await tx.rows<{ key: number; device: number; idx: number; state: string }>(
    'given-since',
    'SELECT key, device, idx, state FROM issuances WHERE key > $1 ORDER BY key',
    [after],
  )
  const indices = since.filter(({ state, device }) => state !== 'void' && hasNumber(named.get(blockOf(device)), device))
  return { indices: indices.map(({ idx }) => idx), issued: since.at(-1)?.key ?? after }
}

/** Within a write: what a notice of this number revokes otherwise than by group. */
export async function keepSet(tx: Transaction, fleet: string, seq: number, set: RevokedSet, reason: number | null): Promise<void> {
  await tx.run(
    'add-set',
    'INSERT INTO revoked_sets (fleet, seq, kind, start, length, issuer, reason) VALUES ($1, $2, $3, $4, $5, $6, $7)',
    [fleet, seq, set.kind, set.start, set.length, set.issuer, reason],
  )
  if (set.blocks.length > 0)
    await tx.run('add-blocks', 'INSERT INTO revoked_blocks SELECT $1, $2, * FROM unnest($3::integer[], $4::bytea[])', [
      ...[fleet, seq, set.blocks.map(({ block }) => block), set.blocks.map(({ bits }) => packBits(bits))],
    ])
  await keepBlocks(tx, 'indices', fleet, set.kind === 'range' ? blocksOfRange(set.start, set.length) : set.blocks)
  if (set.kind === 'range' || set.kind === 'floor')
    await tx.run(
      'lease-above',
      'INSERT INTO idx_leases AS l VALUES ($1, $2) ON CONFLICT (fleet) DO UPDATE SET next = greatest(l.next, excluded.next)',
      [fleet, set.start + set.length],
    )
}

export const postgresRevokedListWrites = {
  async recordSet(tx: Transaction, record: SetRecord): Promise<SetOutcome> {
    const { fleet, set, reason, devices, issued, notices, at, audit } = record
    const [{ holds }] = await tx.rows<{ holds: boolean }>(
      'set-holds',
      `SELECT ${highest('seq', 'notices WHERE fleet = $1')} = $2 - 1
         AND (SELECT sha256 FROM notices WHERE fleet = $1 AND seq = $2 - 1) IS NOT DISTINCT FROM $3::bytea AS holds`,
      [fleet, notices[0].seq, notices[0].previousSha256],
    )
    if (!holds) return { kind: 'conflict' }
    const given = devices.length > 0 ? await givenSince(tx, issued, devices) : { indices: [], issued }
    if (given.indices.length > 0) return { kind: 'late', ...given }
    for (const n of notices)
      await tx.run(
        'add-notice',
        'INSERT INTO notices (fleet, seq, notice, sha256, previous_sha256, at) VALUES ($1, $2, $3, $4, $5, $6)',
        [fleet, n.seq, n.notice, n.noticeSha256, n.previousSha256, at],
      )
    await keepSet(tx, fleet, notices[notices.length - 1].seq, set, reason)
    await keepBlocks(tx, 'devices', fleet, devices)
    tx.audit(audit)
    return { kind: 'recorded' }
  },

  async readmitDevice(tx: Transaction, fleet: string, id: string, audit: AuditEntry): Promise<boolean> {
    const [found] = await tx.rows<{ key: number; held: boolean; idx: number | null }>(
      'held',
      `SELECT d.key, ${heldAgainst} AS held, l.idx FROM devices d ${joinLatest} WHERE d.fleet = $1 AND d.id = $2`,
      [fleet, id],
    )
    if (!found?.held) return false
    await tx.run('reopen', 'UPDATE closed_devices SET bits = set_bit(bits, $2, 0) WHERE block = $1', [
      blockOf(found.key),
      found.key % 4096,
    ])
    await tx.run('readmit', 'UPDATE devices SET idx_floor = greatest(idx_floor, $2), version = version + 1 WHERE key = $1', [
      found.key,
      found.idx === null ? 0 : found.idx + 1,
    ])
    tx.audit(audit)
    return true
  },
}
