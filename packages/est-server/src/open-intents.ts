// What a crash leaves behind: intents that are neither issued nor void. No certificate was recorded under such an intent, so none was
// released: whatever was signed is in nobody's hands, and its serial stays spent. Each is given up, with a record of it.

import type { Clock } from './ports.ts'
import type { Store } from './store/store.ts'

export interface OpenIntentParts {
  store: Pick<Store, 'openIntents' | 'voidIntent'>
  clock: Clock
}

/**
 * Voids the open intents that are older than `olderThanSeconds`. With 0 they are taken to be nobody's: to be called before anybody asks. While
 * other processes issue, an age well above that of a request spares theirs; one that is voided too early costs its request another attempt.
 */
export async function resolveOpenIntents({ store, clock }: OpenIntentParts, olderThanSeconds = 0): Promise<{ voided: number }> {
  let voided = 0
  for (;;) {
    const open = await store.openIntents(100)
    const before = clock.now() - olderThanSeconds
    const left = olderThanSeconds === 0 ? open : open.filter(intent => intent.at <= before)
    for (const { issuer, serial, fleet, deviceId: device, requestId, at: since } of left) {
      const detail = `serial ${Buffer.from(serial).toString('hex')}, open since ${new Date(since * 1000).toISOString()}`
      const at = Math.floor(clock.now())
      if (
        await store.voidIntent(issuer, serial, {
          at,
          kind: 'intent_voided',
          requestId,
          fleet,
          device,
          by: 'reconcile',
          code: '',
          detail,
        })
      )
        voided++
    }
    // A page with young ones in it would come again as it is; the next call sees to what lies behind them.
    if (left.length === 0 || left.length < open.length) return { voided }
  }
}
