// SCEP's transactions in SQLite: the reads and writes of scep.ts.

import type { DatabaseSync } from 'node:sqlite'
import { type ScepTransaction, scepTransactionSeconds } from './scep.ts'
import { prepare } from './sqlite-rows.ts'

export interface ScepWrites {
  recordScepTransaction(transaction: ScepTransaction): 'recorded' | 'conflict'
}

/** Forgotten with each new one: the table shrinks as fast as it ever grew, and no write takes long for it. */
const forgottenAtOnce = 2

export function scepReads(db: DatabaseSync) {
  const byId = prepare<ScepTransaction>(
    db,
    `SELECT fleet, label, id, spki_sha256 AS spkiSha256, signer_spki_sha256 AS signerSpkiSha256, csr, challenge, signer, at
     FROM scep_transactions WHERE fleet = ? AND label = ? AND id = ?`,
  )
  return {
    scepTransaction: (fleet: string, label: string, id: string): ScepTransaction | null => byId.get(fleet, label, id) ?? null,
  }
}

export interface ScepWork {
  writes: ScepWrites
  /** Whether recordScepTransaction would be a conflict. */
  standsForAnother(transaction: ScepTransaction): boolean
}

export function scepWrites(db: DatabaseSync): ScepWork {
  const known = prepare<{ spki_sha256: Uint8Array }>(
    db,
    'SELECT spki_sha256 FROM scep_transactions WHERE fleet = ? AND label = ? AND id = ?',
  )
  // A repeated request brings the challenge that counts now.
  const put = prepare(
    db,
    `INSERT INTO scep_transactions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT (fleet, label, id) DO UPDATE SET
       signer_spki_sha256 = excluded.signer_spki_sha256, csr = excluded.csr, challenge = excluded.challenge, signer = excluded.signer`,
  )
  const forget = prepare(
    db,
    `DELETE FROM scep_transactions WHERE rowid IN (SELECT rowid FROM scep_transactions WHERE at < ? ORDER BY at LIMIT ${forgottenAtOnce})`,
  )
  const differs = (before: { spki_sha256: Uint8Array } | undefined, t: ScepTransaction) =>
    before !== undefined && Buffer.compare(before.spki_sha256, t.spkiSha256) !== 0
  return {
    standsForAnother: t => differs(known.get(t.fleet, t.label, t.id), t),
    writes: {
      recordScepTransaction(t) {
        const before = known.get(t.fleet, t.label, t.id)
        if (differs(before, t)) return 'conflict'
        put.run(t.fleet, t.label, t.id, t.spkiSha256, t.signerSpkiSha256, t.csr, t.challenge, t.signer, t.at)
        if (before === undefined) forget.run(t.at - scepTransactionSeconds)
        return 'recorded'
      },
    },
  }
}
