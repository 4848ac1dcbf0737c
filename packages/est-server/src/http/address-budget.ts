// What one address may have made for it: so much at once, and so much a second after that (GCRA: one number an address). What it has not spent is
// remembered for nobody; what it overspent is forgotten when it would be paid off, or when too many others came after it.

import type { Clock } from '../ports.ts'
import { addressGroup } from './connection-gate.ts'

export interface AddressBudget {
  /** Whole seconds until the address may have something again; 0 when it may now. */
  wait(address: string): number
  spend(address: string): void
}

/** About 100 bytes each. */
const addressesMax = 65_536

export function createAddressBudget(atOnce: number, perSecond: number, clock: Clock): AddressBudget {
  /** When what was spent will be paid off, oldest first. */
  const paidOff = new Map<string, number>()
  return {
    wait(address) {
      const over = (paidOff.get(addressGroup(address)) ?? 0) - clock.now() - atOnce / perSecond
      return over > 0 ? Math.ceil(over) : 0
    },
    spend(address) {
      const group = addressGroup(address)
      const now = clock.now()
      const before = Math.max(now, paidOff.get(group) ?? 0)
      paidOff.delete(group)
      paidOff.set(group, before + 1 / perSecond)
      if (paidOff.size > addressesMax) paidOff.delete(paidOff.keys().next().value as string)
    },
  }
}
