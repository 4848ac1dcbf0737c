// Intents and certificates, many in one statement: the writes of every enrollment. Each statement checks the preconditions of each of its rows
// and writes those that hold; the transaction around it holds the line, so what it saw stays true until COMMIT.

import { byteaArray, int4Array, int8Array, textArray } from './postgres-array.ts'
import { heldAgainst, joinLatest, revokedByItself } from './postgres-rows.ts'
import { postgresScepWrites } from './postgres-scep.ts'
import type { Transaction } from './postgres-writer.ts'
import type { HoldsOfFleets } from './quarantine.ts'
import type { IntentConflict, IssuanceIntent, IssuedRecord } from './store.ts'

interface Placed<T> {
  argument: T
  i: number
}

type Put = (i: number, value: unknown) => void

const hex = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')

/** Splits jobs so that in each round no two meet at a key: a round is one statement, which sees none of its own writes. */
function rounds<T>(jobs: Placed<T>[], keysOf: (argument: T) => string[]): Placed<T>[][] {
  const out: { jobs: Placed<T>[]; keys: Set<string> }[] = []
  for (const job of jobs) {
    const keys = keysOf(job.argument)
    // Behind the last round it meets, so that jobs of one key keep their order.
    let at = out.length
    while (at > 0 && !keys.some(key => out[at - 1].keys.has(key))) at--
    if (at === out.length) out.push({ jobs: [], keys: new Set() })
    out[at].jobs.push(job)
    for (const key of keys) out[at].keys.add(key)
  }
  return out.map(round => round.jobs)
}

// The state is a parameter: as a word it would let the planner take the index of open intents, and read all of them for each certificate.
const certificatesUpdate = `
WITH j AS (
  SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::bigint[], $5::integer[], $6::integer[], $7::bigint[], $8::integer[])
    AS j (issuer, serial, der, at, idx_floor, supersedes, supersedes_since, n)
), done AS (
  UPDATE issuances i SET state = 'issued', der = j.der, finished_at = j.at FROM j
  WHERE i.issuer = j.issuer AND i.serial = j.serial AND i.state = $9
  RETURNING i.key, i.device, i.secret, j.n, j.at, j.idx_floor, j.supersedes, j.supersedes_since
), moved AS (
  UPDATE devices d SET latest = done.key, version = version + 1, idx_floor = greatest(d.idx_floor, done.idx_floor), supersedes = done.supersedes,
    supersedes_since = done.supersedes_since, seen_at = done.at FROM done WHERE d.key = done.device
), spent AS (
  UPDATE secrets s SET issued = true FROM done WHERE s.hash = done.secret
)
SELECT n FROM done`

export async function recordCertificates(tx: Transaction, jobs: Placed<IssuedRecord>[], put: Put): Promise<void> {
  // A device has at most one open intent, so a serial of its own is all that two rows of a round must not share.
  for (const round of rounds(jobs, r => [hex(r.serial)])) {
    const of = <T>(column: (r: IssuedRecord) => T) => round.map(({ argument }) => column(argument))
    const done = await tx.rows<{ n: number }>('certificates', certificatesUpdate, [
      ...[byteaArray(of(r => r.issuer)), byteaArray(of(r => r.serial)), byteaArray(of(r => r.der)), int8Array(of(r => r.at))],
      ...[int4Array(of(r => r.idxFloor)), int4Array(of(r => r.supersedes)), int8Array(of(r => r.supersedesSince))],
      ...[int4Array(round.map((_, n) => n)), 'intent'],
    ])
    const recorded = new Set(done.map(row => row.n))
    round.forEach(({ argument, i }, n) => {
      put(i, recorded.has(n) ? 'recorded' : 'conflict')
      if (recorded.has(n)) tx.audit(argument.audit)
    })
  }
}

// Answers a row for each intent that was added (n null) and one for each about which there is more to say.
const intentsInsert = `
WITH j AS (
  SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::integer[], $5::bigint[], $6::integer[], $7::text[], $8::bytea[], $9::bytea[],
    $10::integer[], $11::bigint[], $12::bigint[], $13::bytea[], $14::text[], $15::bigint[], $16::bytea[], $17::integer[], $18::bytea[], $19::bigint[])
    AS j (issuer, serial, fleet, idx, device, version, gids, spki, content, epoch, not_before, not_after, secret, request_id, at, tbs, n, profiles, consent)
), judged AS MATERIALIZED (
  SELECT j.*, d.key IS NOT NULL AND d.version = j.version AS is_current,
    EXISTS (SELECT 1 FROM groups g WHERE g.fleet = j.fleet AND g.gid = ANY (j.gids::integer[]) AND g.bound IS NOT NULL) AS is_closed,
    -- From the commit of a revocation on, nothing is issued to whom it names, by whom it names, or under an idx that it covers.
    ${heldAgainst} AS is_held,
    EXISTS (SELECT 1 FROM revoked_sets r WHERE r.fleet = j.fleet AND r.kind = 'issuer' AND r.issuer = j.issuer) AS is_issuer_revoked,
    ${revokedByItself('j')} AS is_covered,
    -- And from the commit of a denial on, nothing that was approved before.
    j.consent IS NULL OR EXISTS (SELECT 1 FROM approvals a WHERE a.id = j.consent AND a.fleet = j.fleet AND a.state = 'approved'
      AND a.content_sha256 = j.content AND a.epoch = j.epoch AND a.expires_at > j.at) AS is_consented,
    -- Spent on another request content: used. On this one, with no certificate to show for it: an earlier attempt died.
    j.secret IS NULL OR EXISTS (SELECT 1 FROM secrets s WHERE s.hash = j.secret AND s.device = j.device AND s.expires_at > j.at
      AND NOT s.issued AND (s.content_sha256 IS NULL OR s.content_sha256 = j.content)) AS is_admitted,
    -- Two devices that ask with one key at the same moment have both been told that nobody holds it.
    EXISTS (SELECT 1 FROM issuances h WHERE h.spki_sha256 = j.spki AND h.device <> j.device AND h.state <> 'void') AS is_elsewhere,
    NOT EXISTS (SELECT 1 FROM issuers) OR EXISTS (SELECT 1 FROM issuers s WHERE s.state = 'signing' AND s.key_id = j.issuer) AS may_sign,
    j.profiles IS NULL OR coalesce(j.profiles = (SELECT p.hash FROM profile_sets p WHERE p.fleet = j.fleet ORDER BY p.generation DESC LIMIT 1), true)
      AS is_newest,
    -- Indices order a device's certificates; another process may have drawn the last one from a higher block.
    l.idx IS NULL OR l.idx < j.idx AS is_ahead,
    EXISTS (SELECT 1 FROM issuances o WHERE o.device = j.device AND o.state = 'intent' AND o.serial <> j.serial) AS has_open
  FROM j LEFT JOIN devices d ON d.key = j.device ${joinLatest}
), added AS (
  INSERT INTO issuances (issuer, serial, fleet, idx, device, gids, spki_sha256, content_sha256, epoch, not_before, not_after, state, secret,
    request_id, started_at, der)
  SELECT issuer, serial, fleet, idx, device, gids::integer[], spki, content, epoch, not_before, not_after, 'intent', secret, request_id, at, tbs
  FROM judged WHERE is_current AND NOT is_held AND NOT is_issuer_revoked AND NOT is_covered AND is_ahead AND may_sign AND is_newest AND NOT is_closed AND NOT is_elsewhere AND is_admitted AND is_consented
  ON CONFLICT DO NOTHING RETURNING fleet, idx
)
SELECT NULL::integer AS n, fleet, idx, NULL::boolean AS is_current, NULL::boolean AS is_held, NULL::boolean AS is_issuer_revoked, NULL::boolean AS is_covered, NULL::boolean AS is_ahead, NULL::boolean AS may_sign, NULL::boolean AS is_newest, NULL::boolean AS is_closed, NULL::boolean AS is_elsewhere, NULL::boolean AS is_admitted, NULL::boolean AS is_consented, NULL::boolean AS has_open
  FROM added
UNION ALL SELECT n, NULL, NULL, is_current, is_held, is_issuer_revoked, is_covered, is_ahead, may_sign, is_newest, is_closed, is_elsewhere, is_admitted, is_consented, has_open
  FROM judged WHERE NOT is_current OR is_held OR is_issuer_revoked OR is_covered OR NOT is_ahead OR NOT may_sign OR NOT is_newest OR is_closed OR is_elsewhere OR NOT is_admitted OR NOT is_consented OR has_open`

interface Judged {
  n: number | null
  fleet: string
  idx: number
  is_current: boolean
  is_held: boolean
  is_issuer_revoked: boolean
  is_covered: boolean
  is_ahead: boolean
  may_sign: boolean
  is_newest: boolean
  is_closed: boolean
  is_elsewhere: boolean
  is_admitted: boolean
  is_consented: boolean
  has_open: boolean
}

const intentInsert = `INSERT INTO issuances (issuer, serial, fleet, idx, device, gids, spki_sha256, content_sha256, epoch, not_before, not_after, state,
  secret, request_id, started_at, der) VALUES ($1, $2, $3, $4, $5, $6::integer[], $7, $8, $9, $10, $11, 'intent', $12, $13, $14, $15)
  ON CONFLICT DO NOTHING`

/** Gives up the device's other open intents. How many there were. */
async function voidOthers(tx: Transaction, intent: IssuanceIntent): Promise<number> {
  const others = await tx.rows<{ serial: Uint8Array; fleet: string; request_id: string; id: string }>(
    'void-others',
    `UPDATE issuances i SET state = 'void', finished_at = $3 FROM devices d
     WHERE d.key = i.device AND i.device = $1 AND i.state = 'intent' AND i.serial <> $2 RETURNING i.serial, i.fleet, i.request_id, d.id`,
    [intent.device, intent.serial, intent.at],
  )
  for (const other of others)
    tx.audit({
      ...{
        at: intent.at,
        kind: 'intent_voided',
        requestId: other.request_id,
        fleet: other.fleet,
        device: other.id,
        by: '',
        code: '',
      },
      detail: `serial ${hex(other.serial)} given up for request ${intent.requestId}`,
    })
  return others.length
}

/** What stood against an intent that was not added although its decision holds. Null: nothing any more, it is in. */
async function settleTaken(tx: Transaction, i: IssuanceIntent): Promise<IntentConflict | null> {
  const [taken] = await tx.rows<{ serial: boolean; idx: boolean }>(
    'taken',
    `SELECT EXISTS (SELECT 1 FROM issuances WHERE issuer = $1 AND serial = $2) AS serial,
      EXISTS (SELECT 1 FROM issuances WHERE fleet = $3 AND idx = $4) AS idx`,
    [i.issuer, i.serial, i.fleet, i.idx],
  )
  if (taken.serial) return 'serial'
  if (taken.idx) return 'idx'
  // An attempt for the same content that died half-way stands in the way, or a certificate does.
  if ((await voidOthers(tx, i)) === 0) return 'content'
  const added = await tx.run('intent', intentInsert, [
    ...[
      i.issuer,
      i.serial,
      i.fleet,
      i.idx,
      i.device,
      `{${i.gids}}`,
      i.spkiSha256,
      i.contentSha256,
      i.epoch,
      i.notBefore,
      i.notAfter,
    ],
    ...[i.secret, i.requestId, i.at, i.tbs],
  ])
  return added === 1 ? null : 'content'
}

export async function recordIntents(tx: Transaction, jobs: Placed<IssuanceIntent>[], put: Put): Promise<void> {
  const keysOf = (i: IssuanceIntent) => [
    `device ${i.device}`,
    `serial ${hex(i.serial)}`,
    `key ${hex(i.spkiSha256)}`,
    `idx ${i.fleet} ${i.idx}`,
    ...(i.secret === null ? [] : [`secret ${hex(i.secret)}`]),
    ...(i.transaction ? [`transaction ${i.fleet} ${i.transaction.label} ${i.transaction.id}`] : []),
  ]
  for (const all of rounds(jobs, keysOf)) {
    const round: Placed<IssuanceIntent>[] = []
    for (const job of all) {
      const { transaction } = job.argument
      if (transaction && (await postgresScepWrites.standsForAnother(tx, transaction)))
        put(job.i, { kind: 'conflict', on: 'transaction' satisfies IntentConflict })
      else round.push(job)
    }
    if (round.length === 0) continue
    const of = <T>(column: (i: IssuanceIntent) => T) => round.map(({ argument }) => column(argument))
    const rows = await tx.rows<Judged>('intents', intentsInsert, [
      ...[byteaArray(of(i => i.issuer)), byteaArray(of(i => i.serial)), textArray(of(i => i.fleet)), int4Array(of(i => i.idx))],
      ...[int8Array(of(i => i.device)), int4Array(of(i => i.deviceVersion)), textArray(of(i => `{${i.gids}}`))],
      ...[byteaArray(of(i => i.spkiSha256)), byteaArray(of(i => i.contentSha256)), int4Array(of(i => i.epoch))],
      ...[int8Array(of(i => i.notBefore)), int8Array(of(i => i.notAfter)), byteaArray(of(i => i.secret))],
      ...[textArray(of(i => i.requestId)), int8Array(of(i => i.at)), byteaArray(of(i => i.tbs)), int4Array(round.map((_, n) => n))],
      ...[byteaArray(of(i => i.profiles ?? null)), int8Array(of(i => i.consent ?? null))],
    ])
    const added = new Set(rows.flatMap(row => (row.n === null ? [`${row.fleet} ${row.idx}`] : [])))
    const judged = new Map(rows.flatMap(row => (row.n === null ? [] : [[row.n, row] as const])))
    const spent: IssuanceIntent[] = []
    for (const [n, { argument: intent, i }] of round.entries()) {
      const found = judged.get(n)
      const isAdded = added.has(`${intent.fleet} ${intent.idx}`)
      let conflict: IntentConflict | null = null
      if (found && (!found.is_current || found.is_held)) conflict = 'device'
      else if (found && (!found.may_sign || found.is_issuer_revoked)) conflict = 'issuer'
      else if (found && !found.is_newest) conflict = 'profiles'
      else if (found && (!found.is_ahead || found.is_covered)) conflict = 'idx'
      else if (found?.is_closed) conflict = 'group'
      else if (found && !found.is_consented) conflict = 'consent'
      else if (found?.is_elsewhere) conflict = 'key'
      else if (found && !found.is_admitted) conflict = 'secret'
      else if (!isAdded) conflict = await settleTaken(tx, intent)
      else if (found?.has_open) await voidOthers(tx, intent)
      put(i, conflict === null ? { kind: 'recorded' } : { kind: 'conflict', on: conflict })
      if (conflict !== null) continue
      tx.moveTime(intent.at)
      if (intent.transaction) await postgresScepWrites.recordScepTransaction(tx, intent.transaction)
      if (intent.secret !== null) spent.push(intent)
    }
    if (spent.length > 0)
      await tx.run(
        'spend',
        'UPDATE secrets s SET content_sha256 = j.content FROM unnest($1::bytea[], $2::bytea[]) AS j (hash, content) WHERE s.hash = j.hash',
        [spent.map(i => i.secret), spent.map(i => i.contentSha256)],
      )
  }
}

/**
 * Takes back the intents of devices that a campaign holds otherwise than their decisions knew. What is held is a set and no row, so only the one
 * who has the lock knows; there is something to take back for those alone that were decided in the moment before.
 */
export async function dropHeldIntents(
  tx: Transaction,
  jobs: Placed<IssuanceIntent>[],
  values: readonly unknown[],
  holds: HoldsOfFleets,
  put: Put,
): Promise<void> {
  for (const { argument: intent, i } of jobs) {
    const isRecorded = (values[i] as { kind: string } | undefined)?.kind === 'recorded'
    if (!isRecorded || holds.of(intent.fleet, intent.device) === (intent.hold ?? null)) continue
    await tx.run('drop-held', "DELETE FROM issuances WHERE issuer = $1 AND serial = $2 AND state = 'intent'", [
      intent.issuer,
      intent.serial,
    ])
    put(i, { kind: 'conflict', on: 'device' satisfies IntentConflict })
  }
}
