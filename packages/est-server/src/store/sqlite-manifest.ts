// Which devices are known to SQLite and which groups they are in: manifest rows, devices admitted without one, group numbers.
// Part of the writes: runs inside the writer's transaction.

import type { DatabaseSync } from 'node:sqlite'
import { type PackedManifest, packedEntries } from './packed-manifest.ts'
import { type FirstImport, firstImport } from './sqlite-first-import.ts'
import { prepare, unrevoked } from './sqlite-rows.ts'
import { groupsPerDeviceMax, groupsPerFleetMax, type ManifestReport } from './store.ts'

type Seen = { kind: 'added' | 'updated' | 'unchanged' } | { kind: 'refused'; reason: string }

export interface ManifestWrites {
  importEntries(fleet: string, entries: PackedManifest, at: number): ManifestReport
  first: FirstImport
  /** A group of these that a known device is not in; null for none, and for a device that is not known. */
  lacking(fleet: string, id: string, groups: string[]): string | null
  admit(fleet: string, id: string, birthSpki: Uint8Array | null, groups: string[], at: number): Seen['kind']
}

export function manifestWrites(db: DatabaseSync): ManifestWrites {
  const deviceById = prepare<{ key: number; birth_spki_sha256: Uint8Array | null; gids: string }>(
    db,
    'SELECT key, birth_spki_sha256, gids FROM devices WHERE fleet = ? AND id = ?',
  )
  const deviceByBirthKey = prepare<{ fleet: string; id: string }>(db, 'SELECT fleet, id FROM devices WHERE birth_spki_sha256 = ?')
  const insertDevice = prepare(
    db,
    `INSERT INTO devices (fleet, id, birth_spki_sha256, key_origin, issuer_subject, birth_certificate_sha256, gids, known_at)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
  )
  // version + 1: a decision that rests on the old groups or on no birth key must be made again.
  const updateDevice = prepare(
    db,
    `UPDATE devices SET birth_spki_sha256 = coalesce(birth_spki_sha256, ?), key_origin = CASE key_origin WHEN 'unknown' THEN ? ELSE key_origin END,
       gids = ?, version = version + 1 WHERE key = ?`,
  )
  const gidByName = prepare<{ gid: number }>(db, 'SELECT gid FROM groups WHERE fleet = ? AND name = ?')
  const lastGid = prepare<{ gid: number | null }>(db, 'SELECT max(gid) AS gid FROM groups WHERE fleet = ?')
  const insertGroup = prepare(db, 'INSERT INTO groups (fleet, gid, name) VALUES (?, ?, ?)')
  const insertMembership = prepare(db, 'INSERT INTO memberships (fleet, gid, id, joined_after) VALUES (?, ?, ?, ?)')
  // An open intent counts: its certificate will hold the groups of the decision.
  const highestIdx = prepare<{ idx: number | null }>(
    db,
    "SELECT max(idx) AS idx FROM issuances WHERE device = ? AND state <> 'void'",
  )
  const longestLife = prepare<{ until: number | null }>(
    db,
    `SELECT max(not_after) AS until FROM issuances i WHERE device = ? AND state <> 'void' AND not_after >= ? AND ${unrevoked}`,
  )
  const countMembers = prepare(db, 'UPDATE groups SET devices = devices + ? WHERE fleet = ? AND gid = ?')

  /** Counts are gathered per call and written once: a chunk of 5,000 devices of one batch updates one group row, not 5,000. */
  function withCounts<T>(fleet: string, work: (count: (gid: number) => void) => T): T {
    const counts = new Map<number, number>()
    const out = work(gid => counts.set(gid, (counts.get(gid) ?? 0) + 1))
    for (const [gid, more] of counts) countMembers.run(more, fleet, gid)
    return out
  }

  /**
   * The groups' numbers, one for each name; null, with none made, when the fleet has no room for all that are new. Rows are read, not remembered:
   * a rollback undoes numbers.
   */
  function gidsOf(fleet: string, names: readonly string[]): number[] | null {
    const known = names.map(name => gidByName.get(fleet, name)?.gid)
    if (!known.includes(undefined)) return known as number[]
    const made = new Set(names.filter((_, i) => known[i] === undefined))
    let gid = lastGid.get(fleet)?.gid ?? 0
    if (gid + made.size > groupsPerFleetMax) return null
    for (const name of made) insertGroup.run(fleet, ++gid, name)
    return gidsOf(fleet, names)
  }

  function lacking(fleet: string, gids: number[], groups: string[]): string | null {
    return groups.find(name => !gids.includes(gidByName.get(fleet, name)?.gid ?? 0)) ?? null
  }

  function take(
    fleet: string,
    e: {
      id: string
      birthSpki: Uint8Array | null
      groups: string[]
      keyOrigin: string
      issuerSubject: string | null
      birthHash: Uint8Array | null
    },
    at: number,
    count: (gid: number) => void,
  ): Seen {
    const known = deviceById.get(fleet, e.id)
    if (known?.birth_spki_sha256 && e.birthSpki && Buffer.compare(known.birth_spki_sha256, e.birthSpki) !== 0)
      return { kind: 'refused', reason: 'known with another birth key' }
    const holder = e.birthSpki && deviceByBirthKey.get(e.birthSpki)
    if (holder && (holder.fleet !== fleet || holder.id !== e.id))
      return { kind: 'refused', reason: `the birth key is that of ${holder.id} in fleet ${holder.fleet}` }
    const before = known ? (JSON.parse(known.gids) as number[]) : []
    const joined = known ? lacking(fleet, before, e.groups) : null
    // A rule finds certificates by the groups inside them: revoking this group would pass over one that was made without it.
    const until = known && joined !== null ? longestLife.get(known.key, at)?.until : null
    if (until)
      return {
        kind: 'refused',
        reason:
          `holds a certificate without group ${joined} until ${new Date(until * 1000).toISOString()}, which revoking ${joined} would not reach; ` +
          'import the row again after that, or revoke a group that the device is in',
      }
    // Before a group is made: one of a refused row would stay, with nobody in it.
    if (before.length + e.groups.length > groupsPerDeviceMax) {
      const more = new Set(e.groups.filter(name => !before.includes(gidByName.get(fleet, name)?.gid ?? 0)))
      if (before.length + more.size > groupsPerDeviceMax)
        return { kind: 'refused', reason: `in more than ${groupsPerDeviceMax} groups` }
    }
    const wanted = gidsOf(fleet, e.groups)
    if (wanted === null) return { kind: 'refused', reason: `the fleet would have more than ${groupsPerFleetMax} groups` }
    const gids = [...new Set([...before, ...wanted])].sort((a, b) => a - b)
    if (!known) insertDevice.run(fleet, e.id, e.birthSpki, e.keyOrigin, e.issuerSubject, e.birthHash, JSON.stringify(gids), at)
    else if (gids.length > before.length || (e.birthSpki && !known.birth_spki_sha256))
      updateDevice.run(e.birthSpki, e.keyOrigin, JSON.stringify(gids), known.key)
    else return { kind: 'unchanged' }
    const joinedAfter = known && joined !== null ? (highestIdx.get(known.key)?.idx ?? 0) : 0
    for (const gid of gids)
      if (!before.includes(gid)) {
        insertMembership.run(fleet, gid, e.id, joinedAfter)
        count(gid)
      }
    return { kind: known ? 'updated' : 'added' }
  }

  const first = firstImport(db, gidsOf)
  return {
    first,
    importEntries(fleet, chunk, at) {
      const whole = first.take(fleet, chunk, at)
      if (whole) return whole
      return withCounts(fleet, count => {
        const report: ManifestReport = { added: 0, updated: 0, unchanged: 0, refused: [] }
        for (const entry of packedEntries(chunk)) {
          const seen = take(fleet, entry, at, count)
          if (seen.kind === 'refused') report.refused.push({ serial: entry.id, reason: seen.reason })
          else report[seen.kind]++
        }
        return report
      })
    },

    lacking(fleet, id, groups) {
      const known = deviceById.get(fleet, id)
      return known ? lacking(fleet, JSON.parse(known.gids) as number[], groups) : null
    },

    admit: (fleet, id, birthSpki, groups, at) =>
      withCounts(fleet, count => {
        const known = deviceById.get(fleet, id)
        // A known device keeps what it has; only a birth key that was never seen is added.
        const row = { id, birthSpki, groups: known ? [] : groups, keyOrigin: 'unknown', issuerSubject: null, birthHash: null }
        return take(fleet, row, at, count).kind
      }),
  }
}
