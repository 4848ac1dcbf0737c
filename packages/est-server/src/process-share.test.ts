import { expect, test } from 'vitest'
import { createAuditBudget } from './audit-budget.ts'
import { createCertificateBudget } from './certificate-budget.ts'
import { createConnectionGate } from './http/connection-gate.ts'
import { defaultLimits } from './http/limits.ts'
import { createLogBudget } from './log-budget.ts'
import { shareOf } from './process-share.ts'
import type { AuditEntry } from './store/store.ts'

const clock = { at: 1_800_000_000, now: () => clock.at }
const log = { info() {}, warn() {}, error() {} }

/** How often `take` gives among `processes` that are asked in turn, in an instant and in each of the `seconds` after it. */
async function given(processes: number, seconds: number, budgetOf: () => () => unknown): Promise<number> {
  clock.at = 1_800_000_000
  const takes = Array.from({ length: processes }, budgetOf)
  let n = 0
  for (let second = 0; second <= seconds; second++, clock.at++)
    for (let i = 0; i < (second === 0 ? 600 : 120) * processes; i++) if (await takes[i % processes]()) n++
  return n
}

test('[F71] [F72] four processes together give what one gives: connections of an address, certificates of a device, audit records and log lines of strangers', async () => {
  const gate = (processes: number) => () => {
    const one = createConnectionGate({ ...defaultLimits, processes }, clock.now)
    return () => {
      const connection = one.admit('192.0.2.1', () => {})
      if (connection) one.leave(connection)
      return connection !== null
    }
  }
  const certificates = (processes: number) => () => {
    const budget = createCertificateBudget(clock, processes)
    return () => {
      if (budget.over('meters/m-1') !== null) return false
      budget.spend('meters/m-1')
      return true
    }
  }
  const audit = (processes: number) => () => {
    let recorded = 0
    const appendAudit = async () => void recorded++
    const budget = createAuditBudget({ store: { appendAudit }, clock, log, processes })
    return async () => {
      const before = recorded
      await budget.record('', { detail: '', code: '' } as AuditEntry)
      return recorded > before
    }
  }
  const lines = (processes: number) => () => {
    let written = 0
    const budget = createLogBudget({ ...log, info: () => void written++ }, clock, processes)
    return () => {
      const before = written
      budget.info({}, '')
      return written > before
    }
  }
  for (const [what, budgetOf, seconds, alone] of [
    ['connections', gate, 2, 400 + 2 * 100],
    ['certificates', certificates, 240, 64 + 4],
    ['audit records', audit, 40, 64 + 4],
    ['log lines', lines, 2, 200 + 2 * 10],
  ] as const) {
    // A tenth ten times is not quite one.
    for (const processes of [1, 4]) {
      const n = await given(processes, seconds, budgetOf(processes))
      expect(n, `${what} of ${processes}`).toBeLessThanOrEqual(alone)
      expect(n, `${what} of ${processes}`).toBeGreaterThanOrEqual(alone - processes)
    }
  }
})

test('a share is never so small that chance alone would refuse somebody', () => {
  expect(shareOf(64, 1, 8)).toBe(64)
  expect(shareOf(64, 3, 8)).toBe(22)
  expect(shareOf(64, 64, 8)).toBe(8)
  expect(shareOf(4, 64, 8)).toBe(4)
})

test('[F71] sockets of an address are shared out too, those of the process are not', () => {
  const gate = createConnectionGate({ ...defaultLimits, connectionBurstPerAddress: 10_000, processes: 4 }, () => 1000)
  const admitted = (address: string) =>
    Array.from({ length: 300 }, () => gate.admit(address, () => {})).filter(c => c !== null).length
  expect(admitted('192.0.2.1')).toBe(64)
  for (let i = 2; i < 20; i++) admitted(`192.0.2.${i}`)
  expect(gate.size).toBe(defaultLimits.connectionsMax)
})
