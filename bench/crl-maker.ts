// The process that crl.ts measures: one store, one issuer, the lists of a server and nothing else. Takes orders over IPC.

import { readFileSync } from 'node:fs'
import {
  createRevocation,
  createRevocationLists,
  issuerName,
  openSqliteStore,
  shardOf,
  softwareIssuer,
} from '@birthmark/est-server'

interface Given {
  path: string
  folder: string
  certificate: string
  key: string
}

/** Of this program alone: getrusage's figure begins with that of the process it was forked from. */
const mostMemoryMb = () => Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) / 1024

const quiet = { info() {}, warn() {}, error: (_: object, message: string) => process.stderr.write(`${message}\n`) }
const fleet = 'bench'
const lifetimeSeconds = 86_400

async function start({ path, folder, certificate, key }: Given) {
  const store = await openSqliteStore({ path })
  const issuer = softwareIssuer({ certificate, privateKeyPem: key, statusUrl: 'http://status.bench.example' })
  const clock = { at: 1_800_000_000, now: () => clock.at }
  const lists = createRevocationLists({ store, issuers: [issuer], lifetimeSeconds, folder, clock, log: quiet })
  const revocation = createRevocation({
    ...{ store, fleet, clock, log: quiet },
    signNotice: async input => ({ notice: Buffer.from(String(input.seq)), sha256: new Uint8Array(32).fill(input.seq) }),
  })
  const name = issuerName(issuer.keyId)
  const got = async <L>(answer: Promise<{ kind: string; list?: L }>): Promise<L> => {
    const { list } = await answer.then(given => ({ list: given.kind === 'list' ? given.list : undefined }))
    if (list === undefined) throw new Error(JSON.stringify(await answer))
    return list
  }
  /** CPU of the whole process, the writer's thread and garbage collection included. */
  const milliseconds = async (work: () => Promise<unknown>): Promise<number> => {
    const before = process.cpuUsage()
    await work()
    const { user, system } = process.cpuUsage(before)
    return (user + system) / 1000
  }
  const orders = {
    /** A list that is made anew, and where it is. */
    async full() {
      // A second more than its life: neither young nor to be compared with.
      clock.at += lifetimeSeconds + 1
      const ms = await milliseconds(() => got(lists.full(name)))
      const { path: file, bytes } = await got(lists.full(name))
      return { ms, path: file, bytes, rssMb: mostMemoryMb() }
    },
    async shard({ shard }: { shard: number }) {
      return { ms: await milliseconds(() => got(lists.shard(name, fleet, shard))), rssMb: 0 }
    },
    /**
     * Certificates revoked one by one while their shard, its neighbour and the list of everything are being made: milliseconds from each record to a
     * list that knows of it.
     */
    async during({ rounds, from, step }: { rounds: number; from: number; step: number }) {
      const times: number[] = []
      let everything: Promise<unknown> | null = null
      let fullLists = 0
      for (let round = 0; round < rounds; round++) {
        everything ??= got(lists.full(name)).finally(() => {
          everything = null
          fullLists++
        })
        const start = from + round * step
        const shard = shardOf(start)
        const early = [shard, shard + 1].map(one => got(lists.shard(name, fleet, one)))
        const { seq } = await revocation.revokeRange({ start, length: 1, by: 'bench' })
        const recorded = performance.now()
        const { revocations } = await got(lists.shard(name, fleet, shard))
        times.push(performance.now() - recorded)
        if (revocations < seq) throw new Error(`after revocation ${seq} a list of ${revocations}`)
        await Promise.all(early)
      }
      await everything
      return { times: times.toSorted((a, b) => a - b), fullLists }
    },
    /** Revokes a group and has `shards` asked for while the rest of the process is to go on. */
    async revoke({ group, shards }: { group: string; shards: number[] }) {
      let last = performance.now()
      let worst = 0
      const timer = setInterval(() => {
        const now = performance.now()
        worst = Math.max(worst, now - last)
        last = now
      }, 1)
      const before = lists.signatures
      const { bound } = await revocation.revokeGroup({ group, by: 'bench' })
      // Every shard by several at once, and the list of everything beside them.
      await Promise.all([...shards, ...shards, ...shards].map(shard => got(lists.shard(name, fleet, shard))))
      const signatures = lists.signatures - before
      await got(lists.full(name))
      await new Promise(resolve => setTimeout(resolve, 5))
      clearInterval(timer)
      return { bound, signatures, stallMs: worst }
    },
    async end() {
      await lists.close()
      await store.close()
      return {}
    },
  }
  return orders
}

let orders: Awaited<ReturnType<typeof start>> | null = null
process.on('message', async ({ order, ...what }: { order: string } & Record<string, unknown>) => {
  try {
    if (order === 'start') {
      orders = await start(what as unknown as Given)
      process.send?.({})
    } else {
      const answer = await (orders as unknown as Record<string, (what: object) => Promise<object>>)[order](what)
      process.send?.(answer)
      if (order === 'end') process.disconnect()
    }
  } catch (error) {
    process.stderr.write(`${(error as Error).stack}\n`)
    process.exit(1)
  }
})
