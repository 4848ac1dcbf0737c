// What a relying party says once a notice is in force there: `ack = {1: rp, 2: seq, 3: applied-at, 4: sessions-closed}` on
// `fr/1/{fleet}/ack/{rp}`. It is unsigned: the broker's access rules say who may write it, and it only ever stops a republication.

import { type Bytes, type CborValue, decodeCbor, encodeCbor, mapEntries } from '@birthmark/device-sdk/core'

export interface Acknowledgement {
  /** Name of the relying party: 1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `-`, `@`. */
  relyingParty: string
  seq: number
  /** Seconds since 1970. */
  appliedAt: number
  sessionsClosed: number
}

/** The end of 9999, as in certificates: what is shown as a date is one. */
const appliedAtMax = 253_402_300_799
const relyingPartyName = /^[A-Za-z0-9._@-]{1,64}$/

export function acknowledgementTopic(fleet: string, relyingParty: string): string {
  return `fr/1/${fleet}/ack/${relyingParty}`
}

export function encodeAcknowledgement(ack: Acknowledgement): Bytes {
  return encodeCbor({
    map: [
      [1, ack.relyingParty],
      [2, ack.seq],
      [3, Math.floor(ack.appliedAt)],
      [4, ack.sessionsClosed],
    ],
  })
}

/** Null for anything else. */
export function decodeAcknowledgement(payload: Bytes): Acknowledgement | null {
  // A name of 64, three integers of 9 and the keys.
  if (payload.length > 128) return null
  let fields: [CborValue, CborValue][]
  try {
    fields = mapEntries(decodeCbor(payload, { depthMax: 1, itemsMax: 12 }))
  } catch {
    return null
  }
  const [relyingParty, seq, appliedAt, sessionsClosed] = fields.map(([, value]) => value)
  if (fields.length < 4 || fields.some(([key], i) => key !== i + 1)) return null
  if (typeof relyingParty !== 'string' || !relyingPartyName.test(relyingParty)) return null
  if (![seq, appliedAt, sessionsClosed].every(value => typeof value === 'number' && value >= 0)) return null
  if (Number(appliedAt) > appliedAtMax) return null
  return { relyingParty, seq: Number(seq), appliedAt: Number(appliedAt), sessionsClosed: Number(sessionsClosed) }
}
