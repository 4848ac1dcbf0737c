// The SQLite schema, as the steps that led to it. Forward only: a step that has been released is never edited, and a file of a newer
// version than this program knows is refused rather than guessed at.

import type { DatabaseSync } from 'node:sqlite'
import { EstServerError } from '../errors.ts'

/** 'BMRK': tells our files from other SQLite files. */
const applicationId = 0x424d524b

export const sqliteSteps: readonly string[] = [
  `
CREATE TABLE clock (one INTEGER PRIMARY KEY CHECK (one = 1), at INTEGER NOT NULL) STRICT;
INSERT INTO clock VALUES (1, -1);

-- bound, reason and closed_seq are set once, when the group is revoked.
CREATE TABLE groups (
  fleet TEXT NOT NULL, gid INTEGER NOT NULL, name TEXT NOT NULL, devices INTEGER NOT NULL DEFAULT 0,
  bound INTEGER, reason INTEGER, closed_seq INTEGER,
  PRIMARY KEY (fleet, gid), UNIQUE (fleet, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (
  key INTEGER PRIMARY KEY, fleet TEXT NOT NULL, id TEXT NOT NULL, birth_spki_sha256 BLOB, key_origin TEXT NOT NULL,
  issuer_subject TEXT, birth_certificate_sha256 BLOB, gids TEXT NOT NULL,
  version INTEGER NOT NULL DEFAULT 0, latest INTEGER, idx_floor INTEGER NOT NULL DEFAULT 0,
  supersedes INTEGER NOT NULL DEFAULT 0, supersedes_since INTEGER NOT NULL DEFAULT 0,
  suspected_at INTEGER, known_at INTEGER NOT NULL, seen_at INTEGER, lids TEXT NOT NULL DEFAULT '[]',
  UNIQUE (fleet, id)
) STRICT;
-- Not per fleet: one birth key is one device.
CREATE UNIQUE INDEX devices_birth_key ON devices (birth_spki_sha256) WHERE birth_spki_sha256 IS NOT NULL;

-- devices.gids again, from the group's side. The hot path never reads it. joined_after: the device's highest idx when it joined, of
-- certificates that therefore lack the group; 0 for none.
CREATE TABLE memberships (
  fleet TEXT NOT NULL, gid INTEGER NOT NULL, id TEXT NOT NULL, joined_after INTEGER NOT NULL, PRIMARY KEY (fleet, gid, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX memberships_late ON memberships (fleet, gid) WHERE joined_after > 0;

-- Labels, of the registry alone: their values by number, devices.lids, and the same again from the label's side.
CREATE TABLE label_values (
  fleet TEXT NOT NULL, lid INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, devices INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (fleet, lid), UNIQUE (fleet, name, value)
) STRICT, WITHOUT ROWID;
CREATE TABLE label_members (fleet TEXT NOT NULL, lid INTEGER NOT NULL, id TEXT NOT NULL, PRIMARY KEY (fleet, lid, id)) STRICT, WITHOUT ROWID;

-- Sets are apart, so that moving a campaign does not write them again. A held campaign's sets are what every process denies.
CREATE TABLE campaigns (
  fleet TEXT NOT NULL, id TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('planned', 'submitted', 'quarantined', 'committing', 'committed', 'undone', 'expired')),
  version INTEGER NOT NULL, plan TEXT NOT NULL, plan_sha256 BLOB NOT NULL, planned_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
  window_ends_at INTEGER, held_since INTEGER, issued_through INTEGER NOT NULL, story TEXT NOT NULL, PRIMARY KEY (fleet, id)
) STRICT;
CREATE TABLE campaign_sets (
  fleet TEXT NOT NULL, id TEXT NOT NULL, devices BLOB NOT NULL, certificates BLOB NOT NULL, uncertified BLOB NOT NULL,
  PRIMARY KEY (fleet, id)
) STRICT;
CREATE TABLE holds_version (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL) STRICT;
INSERT INTO holds_version VALUES (1, 0);

-- state without IN: of three values SQLite would make a table at every write, some 8 % of what an enrollment costs here.
-- One row from intent to certificate. der: what is to be signed while 'intent' and for ever when 'void'; the certificate when 'issued'.
CREATE TABLE issuances (
  key INTEGER PRIMARY KEY, issuer BLOB NOT NULL, serial BLOB NOT NULL, fleet TEXT NOT NULL, idx INTEGER NOT NULL,
  device INTEGER NOT NULL REFERENCES devices (key), gids TEXT NOT NULL, spki_sha256 BLOB NOT NULL, content_sha256 BLOB NOT NULL,
  epoch INTEGER NOT NULL, not_before INTEGER NOT NULL, not_after INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state = 'intent' OR state = 'issued' OR state = 'void'), secret BLOB, request_id TEXT NOT NULL,
  started_at INTEGER NOT NULL, finished_at INTEGER, der BLOB NOT NULL, voided INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX issuances_serial ON issuances (issuer, serial);
CREATE UNIQUE INDEX issuances_idx ON issuances (fleet, idx);
-- Idempotency: one certificate per device, request content (which holds the key) and epoch; voided is the key of a void row. Neither this index
-- nor the next depends on the state, so that turning an intent into a certificate leaves both alone: they are the ones whose pages are all over.
CREATE UNIQUE INDEX issuances_content ON issuances (device, content_sha256, epoch, voided);
CREATE INDEX issuances_spki ON issuances (spki_sha256);
CREATE INDEX issuances_open ON issuances (device) WHERE state = 'intent';

-- Below next, every idx of the fleet has been given out to some process, used or not.
CREATE TABLE idx_leases (fleet TEXT PRIMARY KEY, next INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE secrets (
  hash BLOB PRIMARY KEY, device INTEGER NOT NULL REFERENCES devices (key), expires_at INTEGER NOT NULL, minted_at INTEGER NOT NULL,
  content_sha256 BLOB, issued INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE scep_transactions (
  fleet TEXT NOT NULL, label TEXT NOT NULL, id TEXT NOT NULL, spki_sha256 BLOB NOT NULL, signer_spki_sha256 BLOB NOT NULL,
  csr BLOB NOT NULL, challenge BLOB, signer BLOB, at INTEGER NOT NULL, PRIMARY KEY (fleet, label, id)
) STRICT;
CREATE INDEX scep_transactions_at ON scep_transactions (at);

CREATE TABLE notices (
  fleet TEXT NOT NULL, seq INTEGER NOT NULL, notice BLOB NOT NULL, sha256 BLOB NOT NULL, previous_sha256 BLOB, at INTEGER NOT NULL,
  delivered_at INTEGER, PRIMARY KEY (fleet, seq)
) STRICT;
CREATE INDEX notices_pending ON notices (fleet, seq) WHERE delivered_at IS NULL;

-- What was revoked otherwise than by group, a row a revocation, by its last notice; which certificates a list names, in blocks of 4,096 (packBits);
-- and all of them together, with those of ranges, a bit each.
CREATE TABLE revoked_sets (
  fleet TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('list', 'range', 'floor', 'issuer')), start INTEGER NOT NULL,
  length INTEGER NOT NULL, issuer BLOB, reason INTEGER, PRIMARY KEY (fleet, seq, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX revoked_sets_whole ON revoked_sets (fleet, kind, start) WHERE kind IN ('floor', 'issuer');
CREATE TABLE revoked_blocks (
  fleet TEXT NOT NULL, seq INTEGER NOT NULL, block INTEGER NOT NULL, bits BLOB NOT NULL, PRIMARY KEY (fleet, seq, block)
) STRICT, WITHOUT ROWID;
CREATE TABLE revoked_indices (fleet TEXT NOT NULL, block INTEGER NOT NULL, bits BLOB NOT NULL, PRIMARY KEY (fleet, block)) STRICT, WITHOUT ROWID;
-- Devices that were revoked by themselves, by key, and not admitted again.
CREATE TABLE closed_devices (block INTEGER PRIMARY KEY, bits BLOB NOT NULL) STRICT;

-- The last CRL number an issuer has spent, and the newest list of each kind: fleet and shard, or '' for the full one.
CREATE TABLE crl_numbers (issuer BLOB PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE crls (
  issuer BLOB NOT NULL, list TEXT NOT NULL, number INTEGER NOT NULL, revocations INTEGER NOT NULL, this_update INTEGER NOT NULL,
  next_update INTEGER NOT NULL, der BLOB NOT NULL, PRIMARY KEY (issuer, list)
) STRICT;

-- One-use bearer tokens that were spent; dropped some time after they expired.
CREATE TABLE tokens (
  use BLOB PRIMARY KEY, fleet TEXT NOT NULL, device TEXT NOT NULL, content_sha256 BLOB NOT NULL, expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_expiry ON tokens (expires_at);
-- At most one signs and at most one is next.
CREATE TABLE issuers (
  key_id BLOB PRIMARY KEY, state TEXT NOT NULL CHECK (state IN ('next', 'signing', 'previous', 'retired')), since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX issuers_signing ON issuers (state) WHERE state IN ('next', 'signing');

-- Requests that wait for a person, and what was said. AUTOINCREMENT: an id that an operator has seen never becomes another request's.
CREATE TABLE approvals (
  id INTEGER PRIMARY KEY AUTOINCREMENT, fleet TEXT NOT NULL, device TEXT NOT NULL, content_sha256 BLOB NOT NULL, epoch INTEGER NOT NULL,
  label TEXT, operation TEXT NOT NULL, spki_sha256 BLOB NOT NULL, summary TEXT NOT NULL, request_id TEXT NOT NULL, asked_from TEXT NOT NULL,
  asked_at INTEGER NOT NULL, state TEXT NOT NULL CHECK (state IN ('waiting', 'approved', 'denied')), decided_at INTEGER,
  decided_by TEXT NOT NULL, reason TEXT NOT NULL, expires_at INTEGER NOT NULL, UNIQUE (fleet, device, content_sha256)
) STRICT;
CREATE INDEX approvals_waiting ON approvals (fleet, id) WHERE state = 'waiting';
CREATE INDEX approvals_end ON approvals (expires_at);

-- By which profiles servers have answered; those of the newest generation issue.
CREATE TABLE profile_sets (
  fleet TEXT NOT NULL, generation INTEGER NOT NULL, hash BLOB NOT NULL, at INTEGER NOT NULL, host TEXT NOT NULL, version TEXT NOT NULL,
  PRIMARY KEY (fleet, generation)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
  n INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, request_id TEXT NOT NULL, fleet TEXT NOT NULL, device TEXT NOT NULL,
  "by" TEXT NOT NULL, code TEXT NOT NULL, detail TEXT NOT NULL, hash BLOB NOT NULL
) STRICT;
`,
]

export const schemaVersion = sqliteSteps.length

/**
 * Of the writing connection: 8 MiB, which is what stands above the leaves of every index of a million devices. A larger cache finds little more, and
 * SQLite looks through all of it at each commit that split a page.
 */
export const writerCache = 'PRAGMA cache_size = -8192'

/** The one index that a first import leaves for last (sqlite-first-import.ts). */
export function buildBirthKeyIndex(db: DatabaseSync): void {
  db.exec('CREATE UNIQUE INDEX IF NOT EXISTS devices_birth_key ON devices (birth_spki_sha256) WHERE birth_spki_sha256 IS NOT NULL')
}

/** Brings a new or older file to this program's version, one step a transaction. Throws `store_unusable` for what is not ours. `steps`: of this program; a test gives those of the next. */
export function migrate(db: DatabaseSync, steps: readonly string[] = sqliteSteps): void {
  const pragma = (name: string) => Object.values(db.prepare(`PRAGMA ${name}`).get() as object)[0] as number
  const version = pragma('user_version')
  const id = pragma('application_id')
  const empty = version === 0 && id === 0 && db.prepare('SELECT 1 FROM sqlite_schema').get() === undefined
  if (!empty && id !== applicationId) throw new EstServerError('store_unusable', 'the file is a database of another program')
  if (version > steps.length)
    throw new EstServerError(
      'store_unusable',
      `the file has schema version ${version}, this program knows ${steps.length}: a newer one wrote it`,
    )
  for (let step = version; step < steps.length; step++) {
    db.exec('BEGIN IMMEDIATE')
    // Another process may have taken this step while we waited for the lock.
    if (pragma('user_version') === step) {
      db.exec(steps[step])
      db.exec(`PRAGMA application_id = ${applicationId}`)
      db.exec(`PRAGMA user_version = ${step + 1}`)
    }
    db.exec('COMMIT')
  }
  // A process died within a first import.
  buildBirthKeyIndex(db)
}
