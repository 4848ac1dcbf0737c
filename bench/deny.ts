// How fast a revocation denies, over mutual TLS throughout. 5,000 live sessions cut by one rule, as their clients see it; what a CONNECT of a
// revoked device waits for its refusal once it has arrived; and the whole way, commit → outbox → publisher → broker → relying party → another
// broker that goes by that party's word, until a device there has lost its session and may publish no more.

import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'
import {
  createHeartbeats,
  createPublisher,
  createRelyingParty,
  createRuleSet,
  noticeSha256,
  type OutboxNotice,
  type RelyingParty,
  signNotice,
  statusOf,
  systemClock,
} from '@birthmark/fleet-revocation'
import { connectMqttBus, createEmbeddedBroker } from '@birthmark/fleet-revocation/broker'
import { listenMutualTls } from '../packages/fleet-revocation/src/broker/mutual-tls.ts'
import { createTestAuthority } from '../packages/fleet-revocation/src/testing/authority.ts'
import { createTestNoticeKey } from '../packages/fleet-revocation/src/testing/notice-key.ts'
import { monotonicMs } from './monotonic.ts'
import { next, percentile } from './revoke.ts'
import type { ClientCredential, FromClients, ToClients } from './revoke-clients.ts'

const fleet = 'bench'
const sessions = 5000
const rounds = 2
const refusals = 300
const trials = 100
const quiet = { info: () => {}, warn: () => {}, error: () => {} }
const limits = { connectionsPerAddressMax: 20_000, handshakesAtOncePerAddress: 20_000 }

const [devices, servers, services] = ['devices', 'servers', 'services'].map(name => createTestAuthority(name))
const server = servers.server()
const common = {
  ...{ host: '127.0.0.1', port: 0, tls: { key: server.keyPem, cert: server.certPem }, deviceAnchors: [devices.der], fleet, limits },
  clock: systemClock,
}

let idx = 0
function issue(count: number, gid: number): ClientCredential[] {
  return Array.from({ length: count }, () => {
    const { keyPem, certPem } = devices.device(`dev-${idx}`, { fleet, idx, gids: [gid] })
    return { id: `dev-${idx++}`, key: keyPem, cert: certPem }
  })
}

function startClients() {
  const child: ChildProcess = fork(join(import.meta.dirname, 'revoke-clients.ts'), {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const tell = (message: ToClients) => child.send(message)
  return {
    connect: async (port: number, credentials: ClientCredential[]): Promise<void> => {
      tell({ kind: 'connect', port, ca: servers.certPem, fleet, credentials })
      const { count } = await next(child, 'connected')
      if (count !== credentials.length) throw new Error(`${count} of ${credentials.length} sessions came up`)
    },
    /** When each of so many sessions ended. */
    closed: (count: number): Promise<number[]> =>
      new Promise((resolve, reject) => {
        const times: number[] = []
        const timer = setTimeout(() => reject(new Error(`${times.length} of ${count} sessions were cut within 60 s`)), 60_000)
        const hear = (message: FromClients): void => {
          if (message.kind !== 'closed') return
          times.push(...message.sessions.map(({ at }) => at))
          if (times.length < count) return
          clearTimeout(timer)
          child.off('message', hear)
          resolve(times)
        }
        child.on('message', hear)
      }),
    again: async (ids: string[]): Promise<void> => {
      tell({ kind: 'again', ids })
      const { refused, attempts } = await next(child, 'refused')
      if (refused !== attempts) throw new Error(`${attempts - refused} revoked devices came in again`)
    },
    end: () => void (child.connected && tell({ kind: 'end' })),
  }
}

const p99 = (values: number[]) =>
  percentile(
    [...values].sort((a, b) => a - b),
    0.99,
  )

async function cutAndRefuse(progress: (line: string) => void): Promise<{ cutMs: number; refusedMs: number }> {
  const rules = createRuleSet()
  const refused: number[] = []
  let arrivedAt = 0
  const broker = await createEmbeddedBroker(
    {
      ...common,
      status: statusOf(rules, fleet),
      log: {
        ...quiet,
        warn: (_fields, message) => void (message === 'CONNECT refused' && refused.push(monotonicMs() - arrivedAt)),
      },
    },
    options =>
      listenMutualTls({
        ...options,
        onPeer: (socket, peer, address) => {
          // One CONNECT at a time is on its way while refusals are measured.
          socket.once('data', () => (arrivedAt = monotonicMs()))
          options.onPeer(socket, peer, address)
        },
      }),
  )
  const clients = startClients()
  try {
    const cuts: number[] = []
    let revoked: ClientCredential[] = []
    for (let gid = 1; gid <= rounds; gid++) {
      revoked = issue(sessions, gid)
      await clients.connect(broker.port, revoked)
      progress(`round ${gid}/${rounds}: ${sessions} sessions are live`)
      const closed = clients.closed(sessions)
      const committed = monotonicMs()
      rules.merge([{ kind: 'group', gid, bound: idx }])
      const { ms } = await broker.enforce()
      cuts.push(p99((await closed).map(at => at - committed)))
      progress(`  destroyed within ${ms.toFixed(0)} ms; the clients' p99 ${cuts[gid - 1].toFixed(0)} ms`)
    }
    for (const { id } of revoked.slice(0, refusals)) await clients.again([id])
    if (refused.length < refusals) throw new Error(`${refused.length} refusals were seen`)
    return { cutMs: Math.max(...cuts), refusedMs: p99(refused) }
  } finally {
    clients.end()
    await broker.close()
  }
}

async function endToEnd(): Promise<number[]> {
  const key = createTestNoticeKey()
  const heartbeats = createHeartbeats(new Uint8Array(32).fill(1), fleet)
  const log = quiet
  const central = await createEmbeddedBroker({
    ...{ ...common, log, status: () => 'good', serviceAnchors: [services.der], services: { edge: 'relying-party' } },
  })
  const credential = services.service('edge')
  const tls = { ca: [servers.certPem], key: credential.keyPem, cert: credential.certPem }
  const bus = connectMqttBus({ url: `mqtts://localhost:${central.port}`, clientId: 'edge', tls, log })
  let party: RelyingParty | null = null
  const edge = await createEmbeddedBroker({
    ...{ ...common, log },
    status: (membership, issuerKeyId) => party?.status(membership, issuerKeyId) ?? 'unknown',
  })
  const notices: OutboxNotice[] = []
  let delivered = 0
  const publisher = createPublisher({
    outbox: {
      pending: async limit => notices.filter(({ seq }) => seq > delivered).slice(0, limit),
      delivered: async seq => {
        delivered = seq
      },
      recent: async limit => notices.slice(-limit),
    },
    ...{ bus: central, fleet, clock: systemClock, log, heartbeats },
  })
  const commit = async (start: number, length: number): Promise<number> => {
    const before = notices.at(-1)
    const seq = notices.length + 1
    const content = {
      ...{ fleet, seq, previousSha256: before ? noticeSha256(before.notice) : null, issuedAt: Math.floor(Date.now() / 1000) },
      ...{ maxAgeSeconds: 30, heartbeatAnchor: new Uint8Array(16), root: null, floor: 0 },
    }
    const notice = await signNotice({ ...content, rules: length > 0 ? [{ kind: 'range', start, length }] : [] }, key)
    const committed = monotonicMs()
    notices.push({ seq, notice })
    publisher.wake()
    return committed
  }
  const clients = startClients()
  try {
    party = await createRelyingParty({
      ...{ name: 'edge', fleet, signers: [key.signer], bus, clock: systemClock, log, enforce: () => edge.enforce() },
      state: { load: async () => null, save: async () => {} },
    })
    await commit(0, 0)
    while (!party.fresh()) await new Promise(resolve => setTimeout(resolve, 20))
    const first = idx
    await clients.connect(edge.port, issue(trials, 9))
    const times: number[] = []
    for (let trial = 0; trial < trials; trial++) {
      const closed = clients.closed(1)
      const committed = await commit(first + trial, 1)
      times.push((await closed)[0] - committed)
    }
    return times
  } finally {
    clients.end()
    publisher.close()
    party?.close()
    await bus.close()
    await Promise.all([edge.close(), central.close()])
  }
}

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const progress = (line: string) => process.stderr.write(`${line}\n`)
  const times = await endToEnd()
  progress(`${trials} revocations went the whole way`)
  const { cutMs, refusedMs } = await cutAndRefuse(progress)
  const figures = { cut5000P99Ms: cutMs, connectRefusedP99Ms: refusedMs, endToEndP99Ms: p99(times) }
  const table = [
    'over mutual TLS, as the client sees it unless told otherwise',
    `  ${sessions} sessions cut by one rule, commit → closed          p99 ${cutMs.toFixed(1)} ms   (≤ 300; the worse of ${rounds} rounds)`,
    `  CONNECT of a revoked device, arrived → refused      p99 ${refusedMs.toFixed(2)} ms   (≤ 5; at the broker, ${refusals} of them)`,
    `  commit → … → another broker → session over          p99 ${figures.endToEndP99Ms.toFixed(1)} ms   (< 1,000; ${trials} of them)`,
  ].join('\n')
  return { table, figures }
}
