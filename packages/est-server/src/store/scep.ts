// What the store knows of SCEP: which request a transaction id stands for, so that it stands for no other, and so that a client that was told
// to wait can be answered when it polls. Part of the store's contract: what store.ts promises of every driver holds here too.

import type { Bytes } from '@birthmark/device-sdk/core'

/** Seconds a transaction is remembered at least: a client that polls every hour for a month's approval. What is older may be forgotten. */
export const scepTransactionSeconds = 31 * 86_400

export interface ScepTransaction {
  fleet: string
  /** '' for the profile without one. */
  label: string
  /** As the client chose it: 1 to 255 printable ASCII characters. */
  id: string
  /** SHA-256 of the requested key. Together with fleet and label it is what the transaction stands for. */
  spkiSha256: Bytes
  /** SHA-256 of the key that signed the message: who may poll. */
  signerSpkiSha256: Bytes
  /** DER CSR whose possession was proven; without its challenge, if it had one, and then without its signature. */
  csr: Bytes
  /** Hash of the challenge that admitted it; null for a renewal. */
  challenge: Bytes | null
  /** DER of the certificate that signed a renewal; null otherwise. */
  signer: Bytes | null
  at: number
}

export interface ScepStore {
  scepTransaction(fleet: string, label: string, id: string): Promise<ScepTransaction | null>
  /**
   * Remembers a transaction that leads to no intent yet. Repeating it changes nothing; `conflict`, with nothing written, when the id stands for
   * another key. recordIntent does the same for its `transaction`, in its own transaction.
   */
  recordScepTransaction(transaction: ScepTransaction): Promise<'recorded' | 'conflict'>
}
