// A fleet of a million enrolled devices with groups and labels, written into the store's tables directly: enrolling it would take the benchmark's
// time a hundred times over. What it says is what enrollment, import and labelling would have written.

import { DatabaseSync } from 'node:sqlite'

export const fleet = 'bench'
const models = 4
const batches = 50
const versions = ['2.1', '2.2.1', '2.3', '2.10']
const sites = 2000
const owners = 200

/** Whole seconds. Certificates end a year after. */
export const now = 1_800_000_000

export function fillFleet(path: string, devices: number): void {
  const db = new DatabaseSync(path)
  // By way of DELETE: a file in WAL mode does not turn its log off.
  db.exec(
    'PRAGMA journal_mode = DELETE; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -262144; PRAGMA foreign_keys = OFF',
  )
  db.exec('BEGIN')
  const number = `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ${devices - 1})`
  const id = `printf('GW-%08d', i)`
  const model = `(i % ${models} + 1)`
  const batch = `(${models} + 1 + i * ${batches} / ${devices})`
  // Not by i alone: what a selection finds lies all over the fleet.
  const version = `((i * 2654435761 >> 13) % ${versions.length} + 1)`
  const site = `(${versions.length} + 1 + i * 7 % ${sites})`
  const owner = `(${versions.length + sites} + 1 + i * 7 % ${sites} % ${owners})`
  db.exec(`${number} INSERT INTO devices (key, fleet, id, birth_spki_sha256, key_origin, gids, lids, known_at, latest, seen_at)
    SELECT i + 1, '${fleet}', ${id}, CAST(printf('%032d', i) AS BLOB), 'device', json_array(${model}, ${batch}),
      json_array(${version}, ${site}, ${owner}), ${now - 100}, i + 1, ${now} - i % 8000000 FROM n`)
  for (const [gid, name] of [
    ...Array.from({ length: models }, (_, i): [number, string] => [i + 1, `model=gw-${i + 1}`]),
    ...Array.from({ length: batches }, (_, i): [number, string] => [
      models + 1 + i,
      `batch=2026-W${String(i + 1).padStart(2, '0')}`,
    ]),
  ])
    db.prepare('INSERT INTO groups (fleet, gid, name) VALUES (?, ?, ?)').run(fleet, gid, name)
  for (const [lid, name, value] of [
    ...versions.map((version, i): [number, string, string] => [i + 1, 'firmware', version]),
    ...Array.from({ length: sites }, (_, i): [number, string, string] => [versions.length + 1 + i, 'site', `site-${i}`]),
    ...Array.from({ length: owners }, (_, i): [number, string, string] => [versions.length + sites + 1 + i, 'owner', `owner-${i}`]),
  ])
    db.prepare('INSERT INTO label_values (fleet, lid, name, value) VALUES (?, ?, ?, ?)').run(fleet, lid, name, value)
  for (const gid of [model, batch])
    db.exec(
      `${number} INSERT INTO memberships (fleet, gid, id, joined_after) SELECT '${fleet}', ${gid}, ${id}, 0 FROM n ORDER BY 2, 3`,
    )
  for (const lid of [version, site, owner])
    db.exec(`${number} INSERT INTO label_members (fleet, lid, id) SELECT '${fleet}', ${lid}, ${id} FROM n ORDER BY 2, 3`)
  db.exec('UPDATE groups SET devices = (SELECT count(*) FROM memberships m WHERE m.fleet = groups.fleet AND m.gid = groups.gid)')
  db.exec(
    'UPDATE label_values SET devices = (SELECT count(*) FROM label_members m WHERE m.fleet = label_values.fleet AND m.lid = label_values.lid)',
  )
  // A certificate has some 600 bytes.
  db.exec(`${number} INSERT INTO issuances (key, issuer, serial, fleet, idx, device, gids, spki_sha256, content_sha256, epoch, not_before, not_after, state,
      request_id, started_at, finished_at, der)
    SELECT i + 1, x'00', CAST(printf('%016d', i) AS BLOB), '${fleet}', i + 1, i + 1, json_array(${model}, ${batch}), CAST(printf('%032d', i) AS BLOB),
      CAST(printf('%032d', i) AS BLOB), 0, ${now - 100}, ${now + 31_536_000}, 'issued', '', ${now - 100}, ${now - 100}, zeroblob(600) FROM n`)
  db.exec('COMMIT')
  db.close()
}
