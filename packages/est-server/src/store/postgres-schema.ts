// The PostgreSQL schema, as the steps that led to it. Forward only, as in sqlite-schema.ts: a released step is never edited, a database of
// a newer version is refused. Everything lives in one PostgreSQL schema of its own, so that a database may hold others beside it.

import type { Client } from 'pg'
import { EstServerError } from '../errors.ts'

// Text is compared by its bytes (COLLATE "C"): ids page in the same order everywhere, and no upgrade of a locale library can upset an index.
export const postgresSteps: readonly string[] = [
  `
-- One row, locked by every write before anything else: writes of all servers stand in one line, as the audit chain asks of them anyway.
-- audit_n, audit_hash: the end of the chain. clock_at: the latest time of a write.
CREATE TABLE head (
  one boolean PRIMARY KEY DEFAULT true CHECK (one), audit_n bigint NOT NULL, audit_hash bytea NOT NULL, clock_at bigint NOT NULL,
  -- Grows with each change of what campaigns hold: here, since every write locks this row and sees it as it is.
  holds_version integer NOT NULL DEFAULT 0
) WITH (fillfactor = 20);
-- Never the same number twice, also where the transaction that drew it is undone.
CREATE SEQUENCE holds_versions;
INSERT INTO head VALUES (true, 0, decode(repeat('00', 32), 'hex'), -1);

-- bound, reason and closed_seq are set once, when the group is revoked.
CREATE TABLE groups (
  fleet text COLLATE "C" NOT NULL, gid integer NOT NULL, name text COLLATE "C" NOT NULL, devices integer NOT NULL DEFAULT 0,
  bound integer, reason integer, closed_seq integer,
  PRIMARY KEY (fleet, gid), UNIQUE (fleet, name)
);

CREATE TABLE devices (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, fleet text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL,
  birth_spki_sha256 bytea, key_origin text COLLATE "C" NOT NULL, issuer_subject text, birth_certificate_sha256 bytea, gids integer[] NOT NULL,
  version integer NOT NULL DEFAULT 0, latest bigint, idx_floor integer NOT NULL DEFAULT 0,
  supersedes integer NOT NULL DEFAULT 0, supersedes_since bigint NOT NULL DEFAULT 0,
  suspected_at bigint, known_at bigint NOT NULL, seen_at bigint, lids integer[] NOT NULL DEFAULT '{}',
  CONSTRAINT devices_id UNIQUE (fleet, id)
) WITH (fillfactor = 80);
-- Not per fleet: one birth key is one device.
CREATE UNIQUE INDEX devices_birth_key ON devices (birth_spki_sha256) WHERE birth_spki_sha256 IS NOT NULL;

-- devices.gids again, from the group's side. joined_after: the device's highest idx when it joined, of certificates that therefore lack the
-- group; 0 for none.
CREATE TABLE memberships (
  fleet text COLLATE "C" NOT NULL, gid integer NOT NULL, id text COLLATE "C" NOT NULL, joined_after integer NOT NULL,
  PRIMARY KEY (fleet, gid, id)
);
CREATE INDEX memberships_late ON memberships (fleet, gid) WHERE joined_after > 0;

-- Labels, of the registry alone: their values by number, devices.lids, and the same again from the label's side.
CREATE TABLE label_values (
  fleet text COLLATE "C" NOT NULL, lid integer NOT NULL, name text COLLATE "C" NOT NULL, value text COLLATE "C" NOT NULL,
  devices integer NOT NULL DEFAULT 0, PRIMARY KEY (fleet, lid), UNIQUE (fleet, name, value)
);
CREATE TABLE label_members (
  fleet text COLLATE "C" NOT NULL, lid integer NOT NULL, id text COLLATE "C" NOT NULL, PRIMARY KEY (fleet, lid, id)
);

-- Sets are apart, so that moving a campaign does not write them again. A held campaign's sets are what every process denies.
CREATE TABLE campaigns (
  fleet text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL,
  state text COLLATE "C" NOT NULL CHECK (state IN ('planned', 'submitted', 'quarantined', 'committing', 'committed', 'undone', 'expired')),
  version integer NOT NULL, plan text NOT NULL, plan_sha256 bytea NOT NULL, planned_at bigint NOT NULL, expires_at bigint NOT NULL,
  window_ends_at bigint, held_since bigint, issued_through bigint NOT NULL, story text NOT NULL, PRIMARY KEY (fleet, id)
);
CREATE TABLE campaign_sets (
  fleet text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, devices bytea NOT NULL, certificates bytea NOT NULL, uncertified bytea NOT NULL,
  PRIMARY KEY (fleet, id)
);

-- One row from intent to certificate. der: what is to be signed while 'intent' and for ever when 'void'; the certificate when 'issued'.
CREATE TABLE issuances (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, issuer bytea NOT NULL, serial bytea NOT NULL, fleet text COLLATE "C" NOT NULL,
  idx integer NOT NULL, device bigint NOT NULL REFERENCES devices (key), gids integer[] NOT NULL, spki_sha256 bytea NOT NULL,
  content_sha256 bytea NOT NULL, epoch integer NOT NULL, not_before bigint NOT NULL, not_after bigint NOT NULL,
  state text COLLATE "C" NOT NULL CHECK (state IN ('intent', 'issued', 'void')), secret bytea, request_id text NOT NULL,
  started_at bigint NOT NULL, finished_at bigint, der bytea NOT NULL
) WITH (fillfactor = 60);
-- A certificate is random: to try to compress it costs time and saves nothing.
ALTER TABLE issuances ALTER COLUMN der SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX issuances_serial ON issuances (issuer, serial);
CREATE UNIQUE INDEX issuances_idx ON issuances (fleet, idx);
-- Idempotency: one certificate per device, request content (which holds the key) and epoch.
CREATE UNIQUE INDEX issuances_content ON issuances (device, content_sha256, epoch) WHERE state <> 'void';
CREATE INDEX issuances_spki ON issuances (spki_sha256) WHERE state <> 'void';
CREATE INDEX issuances_open ON issuances (device) WHERE state = 'intent';

-- Below next, every idx of the fleet has been given out to some process, used or not.
CREATE TABLE idx_leases (fleet text COLLATE "C" PRIMARY KEY, next integer NOT NULL);

CREATE TABLE secrets (
  hash bytea PRIMARY KEY, device bigint NOT NULL REFERENCES devices (key), expires_at bigint NOT NULL, minted_at bigint NOT NULL,
  content_sha256 bytea, issued boolean NOT NULL DEFAULT false
);

CREATE TABLE scep_transactions (
  fleet text COLLATE "C" NOT NULL, label text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, spki_sha256 bytea NOT NULL,
  signer_spki_sha256 bytea NOT NULL, csr bytea NOT NULL, challenge bytea, signer bytea, at bigint NOT NULL, PRIMARY KEY (fleet, label, id)
);
CREATE INDEX scep_transactions_at ON scep_transactions (at);

-- At most one signs and at most one is next.
CREATE TABLE issuers (
  key_id bytea PRIMARY KEY, state text COLLATE "C" NOT NULL CHECK (state IN ('next', 'signing', 'previous', 'retired')), since bigint NOT NULL
);
CREATE UNIQUE INDEX issuers_one ON issuers (state) WHERE state IN ('next', 'signing');

-- One-use bearer tokens that were spent; dropped some time after they expired.
CREATE TABLE tokens (
  use bytea PRIMARY KEY, fleet text COLLATE "C" NOT NULL, device text COLLATE "C" NOT NULL, content_sha256 bytea NOT NULL, expires_at bigint NOT NULL
);
CREATE INDEX tokens_expiry ON tokens (expires_at);

CREATE TABLE approvals (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, fleet text COLLATE "C" NOT NULL, device text COLLATE "C" NOT NULL,
  content_sha256 bytea NOT NULL, epoch integer NOT NULL, label text, operation text NOT NULL, spki_sha256 bytea NOT NULL, summary text NOT NULL,
  request_id text NOT NULL, asked_from text NOT NULL, asked_at bigint NOT NULL,
  state text COLLATE "C" NOT NULL CHECK (state IN ('waiting', 'approved', 'denied')), decided_at bigint, decided_by text NOT NULL,
  reason text NOT NULL, expires_at bigint NOT NULL, UNIQUE (fleet, device, content_sha256)
);
CREATE INDEX approvals_waiting ON approvals (fleet, id) WHERE state = 'waiting';
CREATE INDEX approvals_end ON approvals (expires_at);

CREATE TABLE notices (
  fleet text COLLATE "C" NOT NULL, seq integer NOT NULL, notice bytea NOT NULL, sha256 bytea NOT NULL, previous_sha256 bytea,
  at bigint NOT NULL, delivered_at bigint, PRIMARY KEY (fleet, seq)
);
CREATE INDEX notices_pending ON notices (fleet, seq) WHERE delivered_at IS NULL;

-- As in sqlite-schema.ts.
CREATE TABLE revoked_sets (
  fleet text COLLATE "C" NOT NULL, seq integer NOT NULL, kind text COLLATE "C" NOT NULL CHECK (kind IN ('list', 'range', 'floor', 'issuer')),
  start bigint NOT NULL, length bigint NOT NULL, issuer bytea, reason integer, PRIMARY KEY (fleet, seq, kind)
);
CREATE INDEX revoked_sets_whole ON revoked_sets (fleet, kind, start) WHERE kind IN ('floor', 'issuer');
CREATE TABLE revoked_blocks (
  fleet text COLLATE "C" NOT NULL, seq integer NOT NULL, block integer NOT NULL, bits bytea NOT NULL, PRIMARY KEY (fleet, seq, block)
);
CREATE TABLE revoked_indices (fleet text COLLATE "C" NOT NULL, block integer NOT NULL, bits bytea NOT NULL, PRIMARY KEY (fleet, block));
CREATE TABLE closed_devices (block bigint PRIMARY KEY, bits bytea NOT NULL);

-- The last CRL number an issuer has spent, and the newest list of each kind: fleet and shard, or '' for the full one.
CREATE TABLE crl_numbers (issuer bytea PRIMARY KEY, number integer NOT NULL);
CREATE TABLE crls (
  issuer bytea NOT NULL, list text COLLATE "C" NOT NULL, number integer NOT NULL, revocations integer NOT NULL, this_update bigint NOT NULL,
  next_update bigint NOT NULL, der bytea NOT NULL, PRIMARY KEY (issuer, list)
);

-- By which profiles servers have answered; those of the newest generation issue.
CREATE TABLE profile_sets (
  fleet text COLLATE "C" NOT NULL, generation integer NOT NULL, hash bytea NOT NULL, at bigint NOT NULL, host text NOT NULL, version text NOT NULL,
  PRIMARY KEY (fleet, generation)
);

CREATE TABLE audit (
  n bigint PRIMARY KEY, at bigint NOT NULL, kind text NOT NULL, request_id text NOT NULL, fleet text NOT NULL, device text NOT NULL,
  "by" text NOT NULL, code text NOT NULL, detail text NOT NULL, hash bytea NOT NULL
);
`,
  `
-- Whether a group is revoked is asked of each of a device's groups at every enrollment. Of a table that PostgreSQL has not analysed yet it would
-- otherwise read all groups of the fleet for that. Where one has it already, a build between two steps made it.
CREATE INDEX IF NOT EXISTS groups_closed ON groups (fleet, gid) WHERE bound IS NOT NULL;
`,
]

export const postgresSchemaVersion = postgresSteps.length

/** Two servers that start at once take the steps one after the other. */
const migrationLock = 0x424d524b

/**
 * Brings a new or older schema to this program's version in one transaction and leaves `search_path` on it. Answers the version it found,
 * 0 for none. `steps`: of this program; a test gives those of the next. Throws `store_unusable` for what is newer or not ours.
 */
export async function migratePostgres(client: Client, schema: string, steps: readonly string[] = postgresSteps): Promise<number> {
  const name = client.escapeIdentifier(schema)
  await client.query('BEGIN')
  try {
    await client.query('SELECT pg_advisory_xact_lock($1)', [migrationLock])
    const exists = (await client.query('SELECT 1 FROM pg_namespace WHERE nspname = $1', [schema])).rowCount === 1
    // Asked for only where needed: a role that may not create schemas can be given one.
    if (!exists) await client.query(`CREATE SCHEMA ${name}`)
    await client.query(`SET LOCAL search_path = ${name}`)
    const tables = (await client.query('SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace', [name])).rows
    if (tables.length > 0 && !tables.some(t => t.relname === 'birthmark_version'))
      throw new EstServerError('store_unusable', `schema ${schema} holds tables of another program`)
    if (tables.length === 0)
      await client.query('CREATE TABLE birthmark_version (version integer NOT NULL); INSERT INTO birthmark_version VALUES (0)')
    const found: number = (await client.query('SELECT version FROM birthmark_version')).rows[0].version
    if (found > steps.length)
      throw new EstServerError(
        'store_unusable',
        `schema ${schema} has version ${found}, this program knows ${steps.length}: a newer one wrote it`,
      )
    for (let step = found; step < steps.length; step++) await client.query(steps[step])
    if (found < steps.length) await client.query('UPDATE birthmark_version SET version = $1', [steps.length])
    await client.query('COMMIT')
    return found
  } catch (error) {
    await client.query('ROLLBACK').catch(() => {})
    throw error
  }
}
