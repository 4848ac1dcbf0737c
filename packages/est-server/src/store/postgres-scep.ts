// SCEP's transactions in PostgreSQL: the reads and writes of scep.ts.

import type { Rows } from './postgres-rows.ts'
import type { Transaction } from './postgres-writer.ts'
import { type ScepTransaction, scepTransactionSeconds } from './scep.ts'

/** Forgotten with each new one: the table shrinks as fast as it ever grew. */
const forgottenAtOnce = 2

export function postgresScepReads(rows: Rows) {
  return {
    async scepTransaction(fleet: string, label: string, id: string): Promise<ScepTransaction | null> {
      const [found] = await rows<ScepTransaction>(
        'scep',
        `SELECT fleet, label, id, spki_sha256 AS "spkiSha256", signer_spki_sha256 AS "signerSpkiSha256", csr, challenge, signer, at
         FROM scep_transactions WHERE fleet = $1 AND label = $2 AND id = $3`,
        [fleet, label, id],
      )
      return found ?? null
    },
  }
}

/** Null: not known. */
async function keyOf(tx: Transaction, t: ScepTransaction): Promise<Uint8Array | null> {
  const [known] = await tx.rows<{ spki_sha256: Uint8Array }>(
    'scep-key',
    'SELECT spki_sha256 FROM scep_transactions WHERE fleet = $1 AND label = $2 AND id = $3',
    [t.fleet, t.label, t.id],
  )
  return known?.spki_sha256 ?? null
}

export const postgresScepWrites = {
  /** Whether recordScepTransaction would be a conflict. */
  async standsForAnother(tx: Transaction, t: ScepTransaction): Promise<boolean> {
    const known = await keyOf(tx, t)
    return known !== null && Buffer.compare(known, t.spkiSha256) !== 0
  },

  async recordScepTransaction(tx: Transaction, t: ScepTransaction): Promise<'recorded' | 'conflict'> {
    const known = await keyOf(tx, t)
    if (known !== null && Buffer.compare(known, t.spkiSha256) !== 0) return 'conflict'
    // A repeated request brings the challenge that counts now.
    await tx.run(
      'put-scep',
      `INSERT INTO scep_transactions (fleet, label, id, spki_sha256, signer_spki_sha256, csr, challenge, signer, at)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (fleet, label, id) DO UPDATE SET
         signer_spki_sha256 = excluded.signer_spki_sha256, csr = excluded.csr, challenge = excluded.challenge, signer = excluded.signer`,
      [t.fleet, t.label, t.id, t.spkiSha256, t.signerSpkiSha256, t.csr, t.challenge, t.signer, t.at],
    )
    if (known === null)
      await tx.run(
        'forget-scep',
        `DELETE FROM scep_transactions WHERE ctid = ANY (ARRAY (SELECT ctid FROM scep_transactions WHERE at < $1 ORDER BY at LIMIT ${forgottenAtOnce}))`,
        [t.at - scepTransactionSeconds],
      )
    return 'recorded'
  },
}
