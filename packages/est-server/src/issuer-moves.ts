// The moves of a roll-over, as a pure function of the standings. One issuer signs at any time; the next one is known to everybody before it
// signs, the previous one is admitted until its last device has renewed. Forward only, but for a step that nothing came of yet.
//
//   signing ──────────────── prepare ──→ signing + next ── switch ──→ signing(new) + previous(old) ── retire ──→ signing(new) + retired(old)
//                ←─ undo ───                            ←─ undo, while the new one has signed nothing

import { type Bytes, equalBytes, hexOf } from '@birthmark/device-sdk/core'
import type { IssuerStanding } from './store/issuers.ts'

export type RollOverMove =
  | { step: 'prepare'; keyId: Bytes }
  | { step: 'switch' }
  | { step: 'undo' }
  | { step: 'retire'; keyId: Bytes | null }

export type Moved =
  | { kind: 'moved'; standings: IssuerStanding[]; unused: Bytes | null; detail: string }
  | { kind: 'refused'; detail: string }

const refused = (detail: string): Moved => ({ kind: 'refused', detail })

export function moved(standings: IssuerStanding[], move: RollOverMove, now: number): Moved {
  const of = (keyId: Bytes) => standings.find(other => equalBytes(other.keyId, keyId))
  const signing = standings.find(({ state }) => state === 'signing')
  const next = standings.find(({ state }) => state === 'next')
  const previous = standings.filter(({ state }) => state === 'previous')
  const without = (...left: IssuerStanding[]) => standings.filter(other => !left.includes(other))
  const as = (standing: IssuerStanding, state: IssuerStanding['state']) => ({ keyId: standing.keyId, state, since: now })
  if (signing === undefined) return refused('no issuer signs yet')
  switch (move.step) {
    case 'prepare': {
      const known = of(move.keyId)
      if (known) return refused(`issuer ${hexOf(move.keyId)} is ${known.state} already`)
      if (next) return refused(`issuer ${hexOf(next.keyId)} is prepared already`)
      const added = { keyId: move.keyId, state: 'next' as const, since: now }
      return { kind: 'moved', standings: [...standings, added], unused: null, detail: `issuer ${hexOf(move.keyId)} is next` }
    }
    case 'switch':
      if (!next) return refused('no issuer is prepared')
      return {
        kind: 'moved',
        standings: [...without(signing, next), as(signing, 'previous'), as(next, 'signing')],
        unused: null,
        detail: `issuer ${hexOf(next.keyId)} signs from now on, ${hexOf(signing.keyId)} no more`,
      }
    case 'undo': {
      if (next)
        return {
          kind: 'moved',
          standings: without(next),
          unused: next.keyId,
          detail: `issuer ${hexOf(next.keyId)} is next no more`,
        }
      // The one that signed before: the latest of them.
      const before = previous.toSorted((a, b) => b.since - a.since)[0]
      if (!before || before.since !== signing.since) return refused('there is no step to undo')
      return {
        kind: 'moved',
        standings: [...without(signing, before), as(signing, 'next'), as(before, 'signing')],
        unused: signing.keyId,
        detail: `issuer ${hexOf(before.keyId)} signs again, ${hexOf(signing.keyId)} is next`,
      }
    }
    case 'retire': {
      const { keyId } = move
      const leaving = keyId === null ? previous[0] : previous.find(other => equalBytes(other.keyId, keyId))
      if (!leaving) return refused(keyId === null ? 'no previous issuer is left' : `issuer ${hexOf(keyId)} is not a previous one`)
      if (keyId === null && previous.length > 1) return refused('several previous issuers are left; say which')
      return {
        kind: 'moved',
        standings: [...without(leaving), as(leaving, 'retired')],
        unused: null,
        detail: `issuer ${hexOf(leaving.keyId)} is retired: its certificates are no longer admitted`,
      }
    }
  }
}
