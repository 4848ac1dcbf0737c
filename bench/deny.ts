// How fast a revocation denies, over mutual TLS throughout. 5,000 live sessions cut by one rule, as their clients see it; what a CONNECT of a
// revoked device waits for its refusal once it has arrived; and the whole way from the commit in the store to a device's last word at an edge
// (deny-whole-way.ts).

import { createRuleSet, statusOf, systemClock } from '@birthmark/fleet-revocation'
import { createEmbeddedBroker } from '@birthmark/fleet-revocation/broker'
import { listenMutualTls } from '../packages/fleet-revocation/src/broker/mutual-tls.ts'
import { createTestAuthority } from '../packages/fleet-revocation/src/testing/authority.ts'
import { startClients } from './deny-clients.ts'
import { wholeWay } from './deny-whole-way.ts'
import { monotonicMs } from './monotonic.ts'
import { percentile } from './revoke.ts'
import type { ClientCredential } from './revoke-clients.ts'

const fleet = 'bench'
const sessions = 5000
const rounds = 2
const refusals = 300
const trials = 100
const quiet = { info: () => {}, warn: () => {}, error: () => {} }
const limits = { connectionsPerAddressMax: 20_000, handshakesAtOncePerAddress: 20_000 }

const [devices, servers] = ['devices', 'servers'].map(name => createTestAuthority(name))
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
  const clients = startClients(servers.certPem, fleet)
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

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const progress = (line: string) => process.stderr.write(`${line}\n`)
  const { deniedMs, askedMs, deliveries } = await wholeWay(trials)
  progress(`${trials} revocations went the whole way`)
  const { cutMs, refusedMs } = await cutAndRefuse(progress)
  const figures = { cut5000P99Ms: cutMs, connectRefusedP99Ms: refusedMs, endToEndP99Ms: p99(deniedMs) }
  const table = [
    'over mutual TLS, as the client sees it unless told otherwise',
    `  ${sessions} sessions cut by one rule, commit → closed          p99 ${cutMs.toFixed(1)} ms   (≤ 300; the worse of ${rounds} rounds)`,
    `  CONNECT of a revoked device, arrived → refused      p99 ${refusedMs.toFixed(2)} ms   (≤ 5; at the broker, ${refusals} of them)`,
    `  commit in SQLite → publish at an edge denied        p99 ${figures.endToEndP99Ms.toFixed(1)} ms   (< 1,000; ${trials} revocations)`,
    `    from the request to revoke, signature included    p99 ${p99(askedMs).toFixed(1)} ms`,
    `    ${deliveries} messages of these devices reached a subscriber there, none afterwards`,
  ].join('\n')
  return { table, figures }
}
