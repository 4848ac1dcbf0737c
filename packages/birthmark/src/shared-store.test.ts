// Two servers on one store: what one revokes, the other denies.

import type { GroupRule, NoticeRecord, OpenIntent, Store } from '@birthmark/est-server'
import { createRuleSet } from '@birthmark/fleet-revocation'
import { expect, test } from 'vitest'
import { tendSharedStore } from './shared-store.ts'

const log = { info: () => {}, warn: () => {}, error: () => {} }

/** A clock whose timers go off when the test says so. */
function handClock(now: number) {
  let due: (() => void)[] = []
  return {
    now: () => now,
    setTimer(_seconds: number, callback: () => void) {
      due.push(callback)
      return () => {
        due = due.filter(other => other !== callback)
      }
    },
    async tick() {
      for (const callback of due.splice(0)) callback()
      await new Promise(resolve => setImmediate(resolve))
    },
    waiting: () => due.length,
  }
}

function storeWith(notices: number, rules: GroupRule[], open: OpenIntent[] = []) {
  const voided: string[] = []
  const state = { notices, rules, failing: false, rulesFailing: false }
  const store = {
    async notice(_fleet: string, seq: number): Promise<NoticeRecord | null> {
      if (state.failing) throw new Error('the disk is gone')
      const empty = new Uint8Array(0)
      return seq <= state.notices ? { seq, notice: empty, sha256: empty, at: 0 } : null
    },
    rules: async () => {
      if (state.rulesFailing) throw new Error('the disk is gone')
      return state.rules
    },
    standingSets: async () => ({ floor: 0, issuers: [], blocks: [] }),
    openIntents: async () => open.filter(intent => !voided.includes(intent.requestId)),
    async voidIntent(_issuer: Uint8Array, _serial: Uint8Array, audit: { requestId: string }) {
      voided.push(audit.requestId)
      return true
    },
  }
  return { store: store as unknown as Store, state, voided }
}

test('a revocation of another server is denied, then enforced, once; a failing store is looked at again', async () => {
  const clock = handClock(1_800_000_000)
  const { store, state } = storeWith(1, [{ kind: 'group', gid: 1, bound: 5 }])
  const rules = createRuleSet(state.rules)
  let enforced = 0
  const enforce = async () => {
    // Denied before anything is cut.
    expect(rules.isRevoked({ idx: 8, gids: [2] }, null)).toBe(true)
    enforced++
  }
  const tending = tendSharedStore({ store, fleet: 'f', rules, newest: 1, enforce, clock, log })
  await clock.tick()
  expect(enforced).toBe(0)
  state.failing = true
  await clock.tick()
  state.failing = false
  state.notices = 3
  state.rules = [...state.rules, { kind: 'group', gid: 2, bound: 9 }]
  // A notice that was seen and rules that could not be read: they are read at the next look.
  state.rulesFailing = true
  await clock.tick()
  state.rulesFailing = false
  await clock.tick()
  await clock.tick()
  expect([enforced, clock.waiting()]).toEqual([1, 1])
  tending.close()
  expect(clock.waiting()).toBe(0)
})

test('[F36] intents that a dead process left open are given up after two minutes, those under way are not', async () => {
  const now = 1_800_000_000
  const clock = handClock(now)
  const blob = new Uint8Array(1)
  const intent = (requestId: string, at: number): OpenIntent => ({
    issuer: blob,
    serial: blob,
    fleet: 'f',
    deviceId: 'd',
    requestId,
    at,
  })
  const { store, voided } = storeWith(0, [], [intent('old', now - 121), intent('under way', now - 100)])
  const tending = tendSharedStore({ store, fleet: 'f', rules: createRuleSet(), newest: 0, enforce: async () => {}, clock, log })
  for (let i = 0; i < 60; i++) await clock.tick()
  expect(voided).toEqual(['old'])
  tending.close()
})
