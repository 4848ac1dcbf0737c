// The first manifest of a fleet, which may be a million rows: in order and into an empty table it goes in without looking up each row, and the
// one index whose keys come in no order, that of birth keys, is built last. While the index is missing every look-up by birth key is right and
// slow. It is owed from the first chunk on and built by whichever comes first: the last chunk, any other write, the next opening of the file.

import type { DatabaseSync } from 'node:sqlite'
import type { PackedManifest } from './packed-manifest.ts'
import { prepare } from './sqlite-rows.ts'
import { buildBirthKeyIndex } from './sqlite-schema.ts'
import { groupsPerDeviceMax, type ManifestReport, manifestEntriesMax } from './store.ts'

export interface FirstImport {
  /** Takes a chunk whole; null, with nothing of it written, when its rows have to be judged one by one. */
  take(fleet: string, chunk: PackedManifest, at: number): ManifestReport | null
  /** Before any other write. */
  finish(): void
  /** After ROLLBACK. */
  forget(): void
}

/** Birth keys seen, by 64 bits of their hash: 16 bytes each at most, where a set of texts would take a hundred. */
function fingerprints() {
  let slots = new Uint32Array(2 << 16)
  let used = 0
  /** False: perhaps there already. */
  const put = (table: Uint32Array, high: number, low: number): boolean => {
    const mask = table.length / 2 - 1
    for (let i = low & mask; ; i = (i + 1) & mask) {
      if (table[2 * i] === 0 && table[2 * i + 1] === 0) {
        table[2 * i] = high
        table[2 * i + 1] = low
        return true
      }
      if (table[2 * i] === high && table[2 * i + 1] === low) return false
    }
  }
  return (view: DataView, at: number): boolean => {
    if (used * 4 > slots.length) {
      const larger = new Uint32Array(slots.length * 2)
      for (let i = 0; i < slots.length; i += 2) if (slots[i] !== 0 || slots[i + 1] !== 0) put(larger, slots[i], slots[i + 1])
      slots = larger
    }
    used++
    return put(slots, view.getUint32(at), (view.getUint32(at + 4) | 1) >>> 0)
  }
}

interface Under {
  fleet: string
  isNew: (view: DataView, at: number) => boolean
  lastKey: number
  lastId: string
}

/** `gidsOf`: the numbers of groups, made where they are new; null, with none made, when the fleet has no room for all of them. */
export function firstImport(db: DatabaseSync, gidsOf: (fleet: string, names: readonly string[]) => number[] | null): FirstImport {
  const lastKey = prepare<{ key: number }>(db, 'SELECT coalesce(max(key), 0) AS key FROM devices')
  // SQLite walks the rows: one statement for all that stand together and share everything but id and hashes, and nothing bound row by row.
  const insert = prepare(
    db,
    `INSERT INTO devices (fleet, known_at, id, birth_spki_sha256, key_origin, issuer_subject, birth_certificate_sha256, gids)
     SELECT ?1, ?2, value, substr(?3, 32 * key + 1, 32), ?4, ?5, CASE WHEN ?6 THEN substr(?7, 32 * key + 1, 32) END, ?8 FROM json_each(?9)`,
  )
  const join = prepare(
    db,
    'INSERT INTO memberships (fleet, gid, id, joined_after) SELECT ?, ?, id, 0 FROM devices WHERE key > ? AND key <= ?',
  )
  const count = prepare(db, 'UPDATE groups SET devices = devices + ? WHERE fleet = ? AND gid = ?')
  let under: Under | null = null
  let isOwed = false

  function finish(): void {
    under = null
    if (!isOwed) return
    buildBirthKeyIndex(db)
    isOwed = false
  }

  /** Whether each row can only be new. */
  function areNew(chunk: PackedManifest, ids: string[], u: Under): boolean {
    if (lastKey.get()!.key !== u.lastKey) return false
    let last = u.lastId
    for (const id of ids) {
      // Compared as SQLite does: ids are ASCII.
      if (id <= last) return false
      last = id
    }
    const view = new DataView(chunk.spkis.buffer, chunk.spkis.byteOffset, chunk.spkis.byteLength)
    for (let i = 0; i < chunk.count; i++) if (!u.isNew(view, 32 * i)) return false
    return chunk.kinds.every(({ groups }) => groups.length <= groupsPerDeviceMax)
  }

  function write(chunk: PackedManifest, ids: string[], u: Under, at: number): boolean {
    const names = [...new Set(chunk.kinds.flatMap(({ groups }) => groups))]
    const numbers = gidsOf(u.fleet, names)
    if (numbers === null) return false
    const gidOf = new Map(names.map((name, i) => [name, numbers[i]]))
    const kinds = chunk.kinds.map(({ groups, ...kind }) => {
      const gids = [...new Set(groups.map(name => gidOf.get(name) as number))].sort((a, b) => a - b)
      return { ...kind, gids, text: JSON.stringify(gids) }
    })
    for (let from = 0; from < chunk.count; ) {
      let to = from + 1
      while (to < chunk.count && chunk.kindOf[to] === chunk.kindOf[from]) to++
      const { gids, text, keyOrigin, issuerSubject, hasBirthHash } = kinds[chunk.kindOf[from]]
      const serials = JSON.stringify(ids.slice(from, to))
      const [spkis, hashes] = [chunk.spkis, chunk.birthHashes].map(all => all.subarray(32 * from, 32 * to))
      insert.run(u.fleet, at, spkis, keyOrigin, issuerSubject, hasBirthHash ? 1 : 0, hashes, text, serials)
      for (const gid of gids) {
        join.run(u.fleet, gid, u.lastKey + from, u.lastKey + to)
        count.run(to - from, u.fleet, gid)
      }
      from = to
    }
    u.lastKey += chunk.count
    u.lastId = ids[chunk.count - 1]
    return true
  }

  return {
    take(fleet, chunk, at) {
      if (under === null) {
        finish()
        if (chunk.count < manifestEntriesMax || lastKey.get()!.key !== 0) return null
        db.exec('DROP INDEX IF EXISTS devices_birth_key')
        isOwed = true
        under = { fleet, isNew: fingerprints(), lastKey: 0, lastId: '' }
      }
      const ids = chunk.serials.split('\n')
      if (under.fleet !== fleet || ids.length !== chunk.count || !areNew(chunk, ids, under) || !write(chunk, ids, under, at)) {
        finish()
        return null
      }
      // A short chunk is the last.
      if (chunk.count < manifestEntriesMax) finish()
      return { added: chunk.count, updated: 0, unchanged: 0, refused: [] }
    },
    finish,
    forget() {
      // The index may have been built or dropped in what was undone.
      isOwed = true
      under = null
    },
  }
}
