// The TLS contexts of keys that take room in a chip for as long as they are loaded: one an identity and whom it trusts, few at a time.

import { createHash } from 'node:crypto'
import type { SecureContext, SecureContextOptions } from 'node:tls'

/** Of a slot: the server's anchors, a broker's, a gateway's or an API's. One more takes the place of the oldest. */
const contextsMost = 3

export interface TlsContexts {
  /** The same one for the same key and options. Another key or certificate in the slot ends what was made of the one before. Throws as `make`. */
  of(slot: string, key: string, options: SecureContextOptions): SecureContext
  /** The slot's key is another from here on. */
  drop(slot: string): void
}

/** `letGo`: called before one is made, when what was dropped before may still be held. */
export function tlsContexts(make: (options: SecureContextOptions) => SecureContext, letGo: () => void): TlsContexts {
  const bySlot = new Map<string, { identity: string; byTrust: Map<string, SecureContext> }>()
  const digestOf = (parts: unknown) => createHash('sha256').update(JSON.stringify(parts)).digest('hex')
  return {
    of(slot, key, options) {
      const { cert, ...rest } = options
      const identity = digestOf([key, cert])
      const trust = digestOf(rest)
      const found = bySlot.get(slot)
      const byTrust = found?.identity === identity ? found.byTrust : new Map<string, SecureContext>()
      bySlot.set(slot, { identity, byTrust })
      const kept = byTrust.get(trust)
      if (kept) return kept
      const [oldest] = byTrust.keys()
      if (byTrust.size === contextsMost) byTrust.delete(oldest)
      letGo()
      const context = make({ ...options, key })
      byTrust.set(trust, context)
      return context
    },
    drop: slot => void bySlot.delete(slot),
  }
}
