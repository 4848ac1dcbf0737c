// Which devices are known to PostgreSQL and which groups they are in, a chunk at a time: what is known of a chunk is read in three statements,
// its rows are judged in order, and what follows is written in a few more. The transaction holds the line, so nothing moves in between.

import { type PackedManifest, packedEntries } from './packed-manifest.ts'
import { highest, revokedByItself } from './postgres-rows.ts'
import type { Transaction } from './postgres-writer.ts'
import { groupsPerDeviceMax, groupsPerFleetMax, type ManifestReport } from './store.ts'

export interface SeenEntry {
  id: string
  birthSpki: Uint8Array | null
  groups: string[]
  keyOrigin: string
  issuerSubject: string | null
  birthHash: Uint8Array | null
}

type Seen = { kind: 'added' | 'updated' | 'unchanged' } | { kind: 'refused'; reason: string }

interface Known {
  /** Null for one that this chunk adds. */
  key: number | null
  entry: SeenEntry | null
  birthSpki: string | null
  keyOrigin: string
  gids: number[]
  isChanged: boolean
}

/** No closed group of issuance `i`'s certificate covers it, so that only its end takes it out of use. */
export const unrevoked = `NOT EXISTS (SELECT 1 FROM groups g WHERE g.fleet = i.fleet AND g.gid = ANY (i.gids) AND g.bound > i.idx)
  AND NOT ${revokedByItself('i')}`

const hex = (bytes: Uint8Array | null) => bytes && Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')
const blob = (digits: string | null) => (digits === null ? null : Buffer.from(digits, 'hex'))

/** Takes each entry in order. The answers are in the same order. */
export async function takeEntries(tx: Transaction, fleet: string, entries: SeenEntry[], at: number): Promise<Seen[]> {
  const devices = new Map<string, Known>()
  for (const d of await tx.rows<{
    key: number
    id: string
    birth_spki_sha256: Uint8Array | null
    key_origin: string
    gids: number[]
  }>(
    'known-devices',
    'SELECT key, id, birth_spki_sha256, key_origin, gids FROM devices WHERE fleet = $1 AND id = ANY ($2::text[])',
    [fleet, entries.map(e => e.id)],
  ))
    devices.set(d.id, {
      key: d.key,
      entry: null,
      birthSpki: hex(d.birth_spki_sha256),
      keyOrigin: d.key_origin,
      gids: d.gids,
      isChanged: false,
    })
  const holders = new Map<string, { fleet: string; id: string }>()
  for (const d of await tx.rows<{ birth_spki_sha256: Uint8Array; fleet: string; id: string }>(
    'known-keys',
    'SELECT birth_spki_sha256, fleet, id FROM devices WHERE birth_spki_sha256 = ANY ($1::bytea[])',
    [entries.flatMap(e => (e.birthSpki ? [e.birthSpki] : []))],
  ))
    holders.set(hex(d.birth_spki_sha256)!, { fleet: d.fleet, id: d.id })
  const names = [...new Set(entries.flatMap(e => e.groups))]
  const gids = await gidsOf(tx, fleet, names)
  const [{ last }] = await tx.rows<{ last: number }>('last-gid', `SELECT ${highest('gid', 'groups WHERE fleet = $1')} AS last`, [
    fleet,
  ])
  let lastGid = last

  const newGroups: { gid: number; name: string }[] = []
  const memberships: { gid: number; id: string; joinedAfter: number }[] = []
  const counts = new Map<number, number>()

  async function take(e: SeenEntry): Promise<Seen> {
    const known = devices.get(e.id)
    const key = hex(e.birthSpki)
    if (known?.birthSpki && key && known.birthSpki !== key) return { kind: 'refused', reason: 'known with another birth key' }
    const holder = key ? holders.get(key) : undefined
    if (holder && (holder.fleet !== fleet || holder.id !== e.id))
      return { kind: 'refused', reason: `the birth key is that of ${holder.id} in fleet ${holder.fleet}` }
    const before = known?.gids ?? []
    const joined = known ? e.groups.find(name => !before.includes(gids.get(name) ?? 0)) : undefined
    let joinedAfter = 0
    if (known?.key && joined !== undefined) {
      // A rule finds certificates by the groups inside them: revoking this group would pass over one that was made without it.
      const [life] = await tx.rows<{ until: number | null; highest: number | null }>(
        'life',
        `SELECT max(not_after) FILTER (WHERE not_after >= $2 AND ${unrevoked}) AS until, max(idx) AS highest
         FROM issuances i WHERE device = $1 AND state <> 'void'`,
        [known.key, at],
      )
      if (life.until !== null)
        return {
          kind: 'refused',
          reason:
            `holds a certificate without group ${joined} until ${new Date(life.until * 1000).toISOString()}, which revoking ${joined} would not reach; ` +
            'import the row again after that, or revoke a group that the device is in',
        }
      joinedAfter = life.highest ?? 0
    }
    // All of it before a group is made: one of a refused row would stay, with nobody in it.
    const more = new Set(e.groups.filter(name => !before.includes(gids.get(name) ?? 0)))
    if (before.length + more.size > groupsPerDeviceMax)
      return { kind: 'refused', reason: `in more than ${groupsPerDeviceMax} groups` }
    const made = [...more].filter(name => !gids.has(name))
    if (lastGid + made.length > groupsPerFleetMax)
      return { kind: 'refused', reason: `the fleet would have more than ${groupsPerFleetMax} groups` }
    for (const name of made) {
      gids.set(name, ++lastGid)
      newGroups.push({ gid: lastGid, name })
    }
    const after = [...new Set([...before, ...e.groups.map(name => gids.get(name)!)])].sort((a, b) => a - b)
    const device = known ?? { key: null, entry: e, birthSpki: null, keyOrigin: e.keyOrigin, gids: [], isChanged: false }
    if (known && after.length === before.length && (!key || known.birthSpki)) return { kind: 'unchanged' }
    if (!known) devices.set(e.id, device)
    device.birthSpki ??= key
    if (device.keyOrigin === 'unknown') device.keyOrigin = e.keyOrigin
    device.gids = after
    device.isChanged = true
    if (key) holders.set(key, { fleet, id: e.id })
    for (const gid of after) {
      if (before.includes(gid)) continue
      memberships.push({ gid, id: e.id, joinedAfter })
      counts.set(gid, (counts.get(gid) ?? 0) + 1)
    }
    return { kind: known ? 'updated' : 'added' }
  }

  const seen: Seen[] = []
  for (const e of entries) seen.push(await take(e))
  const changed = [...devices].filter(([, d]) => d.isChanged)
  await write(tx, fleet, at, { newGroups, memberships, counts, changed })
  return seen
}

interface Changes {
  newGroups: { gid: number; name: string }[]
  memberships: { gid: number; id: string; joinedAfter: number }[]
  counts: Map<number, number>
  changed: [string, Known][]
}

async function write(
  tx: Transaction,
  fleet: string,
  at: number,
  { newGroups, memberships, counts, changed }: Changes,
): Promise<void> {
  if (newGroups.length > 0)
    await tx.run('add-groups', 'INSERT INTO groups (fleet, gid, name) SELECT $1, * FROM unnest($2::integer[], $3::text[])', [
      fleet,
      newGroups.map(g => g.gid),
      newGroups.map(g => g.name),
    ])
  const added = changed.filter(([, d]) => d.key === null)
  if (added.length > 0)
    await tx.run(
      'add-devices',
      `INSERT INTO devices (fleet, known_at, id, birth_spki_sha256, key_origin, issuer_subject, birth_certificate_sha256, gids)
       SELECT $1, $2, id, spki, origin, issuer, birth, gids::integer[]
       FROM unnest($3::text[], $4::bytea[], $5::text[], $6::text[], $7::bytea[], $8::text[]) AS j (id, spki, origin, issuer, birth, gids)`,
      [
        ...[fleet, at, added.map(([id]) => id), added.map(([, d]) => blob(d.birthSpki)), added.map(([, d]) => d.keyOrigin)],
        ...[
          added.map(([, d]) => d.entry!.issuerSubject),
          added.map(([, d]) => d.entry!.birthHash),
          added.map(([, d]) => `{${d.gids}}`),
        ],
      ],
    )
  const updated = changed.filter(([, d]) => d.key !== null)
  if (updated.length > 0)
    // version + 1: a decision that rests on the old groups or on no birth key must be made again.
    await tx.run(
      'update-devices',
      `UPDATE devices d SET birth_spki_sha256 = j.spki, key_origin = j.origin, gids = j.gids::integer[], version = version + 1
       FROM unnest($1::bigint[], $2::bytea[], $3::text[], $4::text[]) AS j (key, spki, origin, gids) WHERE d.key = j.key`,
      [
        updated.map(([, d]) => d.key),
        updated.map(([, d]) => blob(d.birthSpki)),
        updated.map(([, d]) => d.keyOrigin),
        updated.map(([, d]) => `{${d.gids}}`),
      ],
    )
  if (memberships.length === 0) return
  await tx.run(
    'add-memberships',
    'INSERT INTO memberships (fleet, gid, id, joined_after) SELECT $1, * FROM unnest($2::integer[], $3::text[], $4::integer[])',
    [fleet, memberships.map(m => m.gid), memberships.map(m => m.id), memberships.map(m => m.joinedAfter)],
  )
  await tx.run(
    'count-members',
    'UPDATE groups g SET devices = devices + j.more FROM unnest($2::integer[], $3::integer[]) AS j (gid, more) WHERE g.fleet = $1 AND g.gid = j.gid',
    [fleet, [...counts.keys()], [...counts.values()]],
  )
}

async function gidsOf(tx: Transaction, fleet: string, names: string[]): Promise<Map<string, number>> {
  const rows = await tx.rows<{ gid: number; name: string }>(
    'known-groups',
    'SELECT gid, name FROM groups WHERE fleet = $1 AND name = ANY ($2::text[])',
    [fleet, names],
  )
  return new Map(rows.map(g => [g.name, g.gid]))
}

export async function importEntries(tx: Transaction, fleet: string, entries: PackedManifest, at: number): Promise<ManifestReport> {
  const report: ManifestReport = { added: 0, updated: 0, unchanged: 0, refused: [] }
  const rows = [...packedEntries(entries)]
  const all = await takeEntries(tx, fleet, rows, at)
  all.forEach((seen, i) => {
    if (seen.kind === 'refused') report.refused.push({ serial: rows[i].id, reason: seen.reason })
    else report[seen.kind]++
  })
  return report
}

/** A group of these that a known device is not in; null for none, and for a device that is not known. */
export async function lackingGroup(tx: Transaction, fleet: string, id: string, groups: string[]): Promise<string | null> {
  const [known] = await tx.rows<{ gids: number[] }>('device-gids', 'SELECT gids FROM devices WHERE fleet = $1 AND id = $2', [
    fleet,
    id,
  ])
  if (known === undefined) return null
  const gids = await gidsOf(tx, fleet, groups)
  return groups.find(name => !known.gids.includes(gids.get(name) ?? 0)) ?? null
}

/** A known device keeps what it has; only a birth key that was never seen is added. */
export async function admitEntry(
  tx: Transaction,
  fleet: string,
  id: string,
  birthSpki: Uint8Array | null,
  groups: string[],
  at: number,
): Promise<Seen['kind']> {
  const [known] = await tx.rows('device-gids', 'SELECT gids FROM devices WHERE fleet = $1 AND id = $2', [fleet, id])
  const entry = { id, birthSpki, groups: known ? [] : groups, keyOrigin: 'unknown', issuerSubject: null, birthHash: null }
  return (await takeEntries(tx, fleet, [entry], at))[0].kind
}
