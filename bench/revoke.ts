// How fast a revocation takes hold: 1,000 live MQTT sessions over mutual TLS on the embedded broker, half of them revoked by one notice.
// Measured from the moment the rules are in force (the commit) to the close of each revoked session as its client sees it; then every
// revoked device tries to connect again, and every neighbour must still answer. Five rounds, each with 500 new devices; the median of
// the rounds counts, since the machine is shared.

import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'
import type { Bytes } from '@birthmark/device-sdk/core'
import {
  createHeartbeats,
  createPublisher,
  createRuleSet,
  noticeSha256,
  signNotice,
  statusOf,
  systemClock,
} from '@birthmark/fleet-revocation'
import { createEmbeddedBroker } from '@birthmark/fleet-revocation/broker'
import { createTestAuthority } from '../packages/fleet-revocation/src/testing/authority.ts'
import { createMemoryOutbox } from '../packages/fleet-revocation/src/testing/memory-outbox.ts'
import { createTestNoticeKey } from '../packages/fleet-revocation/src/testing/notice-key.ts'
import { monotonicMs } from './monotonic.ts'
import type { ClientCredential, FromClients, ToClients } from './revoke-clients.ts'

const fleet = 'bench'
const sessions = 1000
const half = sessions / 2
const rounds = 5
const neighbours = 1
// All come from one address, and come again: who is turned away is so for being revoked, and not for being many.
const limits = { handshakesAtOncePerAddress: 20_000 }
const quiet = { info: () => {}, warn: () => {}, error: () => {} }

export function percentile(sorted: number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN
}

const median = (values: number[]) =>
  percentile(
    [...values].sort((a, b) => a - b),
    0.5,
  )

/** What the child says next of one kind; three minutes are far beyond any step, on a busy machine too, and only bound a hang. */
export function next<K extends FromClients['kind']>(child: ChildProcess, kind: K): Promise<Extract<FromClients, { kind: K }>> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${kind} within three minutes`)), 180_000)
    const hear = (message: FromClients): void => {
      if (message.kind !== kind) return
      clearTimeout(timer)
      child.off('message', hear)
      resolve(message as Extract<FromClients, { kind: K }>)
    }
    child.on('message', hear)
  })
}

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const progress = (line: string) => process.stderr.write(`${line}\n`)
  const [devices, servers] = [createTestAuthority('Bench device issuer'), createTestAuthority('Bench server root')]
  const server = servers.server()
  const noticeKey = createTestNoticeKey()
  const heartbeats = createHeartbeats(new Uint8Array(32).fill(1), fleet)
  const rules = createRuleSet()
  const broker = await createEmbeddedBroker({
    host: '127.0.0.1',
    port: 0,
    tls: { key: server.keyPem, cert: server.certPem },
    deviceAnchors: [devices.der],
    fleet,
    limits,
    status: statusOf(rules, fleet),
    clock: systemClock,
    log: quiet,
  })
  const { notices, outbox } = createMemoryOutbox()
  const publisher = createPublisher({
    outbox,
    bus: broker,
    fleet,
    clock: systemClock,
    log: quiet,
    heartbeats,
  })
  const child = fork(join(import.meta.dirname, 'revoke-clients.ts'), { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const tell = (message: ToClients) => child.send(message)

  let idx = 0
  const issue = (gid: number): ClientCredential[] =>
    Array.from({ length: half }, () => {
      const { keyPem, certPem } = devices.device(`dev-${idx}`, { fleet, idx, gids: [gid] })
      return { id: `dev-${idx++}`, key: keyPem, cert: certPem }
    })
  const connect = async (credentials: ClientCredential[]): Promise<void> => {
    tell({ kind: 'connect', port: broker.port, ca: servers.certPem, fleet, credentials })
    const { count } = await next(child, 'connected')
    if (count !== credentials.length) throw new Error(`${count} of ${credentials.length} sessions came up`)
  }

  try {
    await connect(issue(neighbours))
    const results: { p50: number; p99: number; max: number; refused: number; attempts: number }[] = []
    let noticeBytes = 0
    let alive = 0
    for (let round = 1; round <= rounds; round++) {
      const gid = neighbours + round
      const revoked = issue(gid)
      await connect(revoked)
      progress(
        `round ${round}/${rounds}: ${broker.sessions().filter(({ connected }) => connected).length} sessions are live, revoking ${half}`,
      )
      const before = notices.at(-1)
      const seq = round
      const notice: Bytes = await signNotice(
        {
          fleet,
          seq,
          previousSha256: before ? noticeSha256(before.notice) : null,
          issuedAt: Math.floor(Date.now() / 1000),
          maxAgeSeconds: 30,
          heartbeatAnchor: (await heartbeats.chain(seq)).anchor,
          rules: [{ kind: 'group', gid, bound: idx, reason: 1 }],
          root: null,
          floor: 0,
        },
        noticeKey,
      )
      noticeBytes = Math.max(noticeBytes, notice.length)
      const closedAt = new Map<string, number>()
      const all = new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`only ${closedAt.size} of ${half} sessions were cut within 30 s`)), 30_000)
        const hear = (message: FromClients): void => {
          if (message.kind !== 'closed') return
          for (const { id, at } of message.sessions) closedAt.set(id, at)
          if (closedAt.size < half) return
          clearTimeout(timer)
          child.off('message', hear)
          resolve()
        }
        child.on('message', hear)
      })
      // The commit: from here on it is in force.
      const committed = monotonicMs()
      rules.merge([{ kind: 'group', gid, bound: idx }])
      notices.push({ seq, notice })
      const { ms } = await broker.enforce()
      // As the server does: the notice goes out when what was cut has had its turn.
      setTimeout(publisher.wake, 20)
      await all
      await publisher.drained()
      if (revoked.some(({ id }) => !closedAt.has(id))) throw new Error('a neighbour was cut')
      tell({ kind: 'again', ids: revoked.map(({ id }) => id) })
      const { refused, attempts } = await next(child, 'refused')
      tell({ kind: 'ping' })
      const pulse = await next(child, 'alive')
      if (pulse.count !== half || pulse.notices !== half)
        throw new Error(`${pulse.count} neighbours answer, ${pulse.notices} have the notice, of ${half}`)
      alive = pulse.count
      const times = [...closedAt.values()].map(at => at - committed).sort((a, b) => a - b)
      results.push({
        p50: percentile(times, 0.5),
        p99: percentile(times, 0.99),
        max: times.at(-1) ?? Number.NaN,
        refused,
        attempts,
      })
      progress(
        `  destroyed within ${ms.toFixed(0)} ms; seen by the clients: p50 ${results[round - 1].p50.toFixed(0)} ms, p99 ${results[round - 1].p99.toFixed(0)} ms; ${refused} of ${attempts} refused`,
      )
    }
    const refused = results.reduce((sum, result) => sum + result.refused, 0)
    const attempts = results.reduce((sum, result) => sum + result.attempts, 0)
    const figures = {
      cutP50Ms: median(results.map(({ p50 }) => p50)),
      cutP99Ms: median(results.map(({ p99 }) => p99)),
      cutMaxMs: Math.max(...results.map(({ max }) => max)),
      refusedAfter: refused / attempts,
      noticeBytes,
      sessions,
      neighboursAlive: alive / half,
    }
    const table = [
      `${sessions} live TLS sessions, ${half} revoked by one notice; ${rounds} rounds, median (max: worst of all)`,
      `  commit → cut, as the client sees it   p50 ${figures.cutP50Ms.toFixed(1)} ms   p99 ${figures.cutP99Ms.toFixed(1)} ms   max ${figures.cutMaxMs.toFixed(1)} ms   (p99 ≤ 150)`,
      `  new CONNECTs of the revoked refused   ${refused} of ${attempts}`,
      `  the notice                            ${noticeBytes} bytes   (≤ 200)`,
      `  neighbours that answer, with notice   ${alive} of ${half}`,
    ].join('\n')
    return { table, figures }
  } finally {
    if (child.connected) tell({ kind: 'end' })
    publisher.close()
    await broker.close()
  }
}
