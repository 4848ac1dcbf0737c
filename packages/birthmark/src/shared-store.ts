// What a server has to look after because it may not be alone with its store: revocations that another server recorded, and intents that
// a dead process left open. One timer; every look is a look-up by key, so that doing it for nobody costs nothing.

import { type Log, resolveOpenIntents, type Store } from '@birthmark/est-server'
import { type Clock, type RuleSet, repeat } from '@birthmark/fleet-revocation'
import { mergeStored } from './recorded-rules.ts'

export interface SharedStoreOptions {
  store: Store
  fleet: string
  rules: RuleSet
  /** The newest notice that `rules` holds. */
  newest: number
  /** Denies and cuts what `rules` says from now on. */
  enforce(): Promise<unknown>
  clock: Clock
  log: Log
}

/** Another server's revocation takes effect here within this, beside being refused by the store at once. */
const lookSeconds = 1
/** Twice what a request may take: whoever still works on such an intent has lost its caller. */
export const intentSeconds = 120
const intentLooksEvery = 60

export function tendSharedStore({ store, fleet, rules, newest, enforce, clock, log }: SharedStoreOptions): { close(): void } {
  let seq = newest
  let looks = 0

  async function look(): Promise<void> {
    let seen = seq
    while (await store.notice(fleet, seen + 1)) seen++
    if (seen > seq) {
      // Counted when it is in force: what could not be read now is news at the next look too.
      const grew = await mergeStored(rules, store, fleet)
      seq = seen
      if (grew) {
        log.info({ fleet, seq }, 'a revocation of another server takes effect')
        await enforce()
      }
    }
    if (++looks % intentLooksEvery !== 0) return
    const { voided } = await resolveOpenIntents({ store, clock }, intentSeconds)
    if (voided > 0) log.warn({ voided }, 'open intents of a dead process were given up')
  }

  return { close: repeat(clock, lookSeconds, look, error => log.error({ err: error }, 'the store could not be looked at')) }
}
