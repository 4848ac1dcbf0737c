// Debian's nats-server: three nodes on loopback that speak MQTT over mutual TLS and keep what is retained in three copies.

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { until } from './broker.ts'
import { freePort } from './ports.ts'

export interface NatsNode {
  /** `mqtts://localhost:port` */
  url: string
  /** Of NATS' own protocol, without TLS. */
  clientPort: number
  alive(): boolean
  /** What its configuration includes as its users, and what holds its process id. */
  usersFile: string
  pidFile: string
  /** As by a power cut: SIGKILL. Resolves when the process is gone. */
  kill(): Promise<void>
  log(): string
}

export interface NatsCluster {
  nodes: NatsNode[]
  close(): Promise<void>
}

export interface NatsOptions {
  /** PEM: what client certificates must lead to; the nodes' own certificate and key. */
  tls: { ca: string; cert: string; key: string }
  /** The users to begin with, as `users: […]`: the same at each node. */
  users: string
}

/** Clients by their certificates' subjects (RFC 4514), who may do everything. */
export function usersBySubject(subjects: string[]): string {
  return `users: [\n${subjects.map(subject => `{ user: ${JSON.stringify(subject)} }`).join('\n')}\n]\n`
}

/** Whether the node stores, and knows who leads the three. */
async function ready(monitor: number): Promise<boolean> {
  const ask = async (path: string): Promise<Record<string, unknown> | null> => {
    const answer = await fetch(`http://127.0.0.1:${monitor}${path}`).catch(() => null)
    return answer?.ok ? ((await answer.json()) as Record<string, unknown>) : null
  }
  const meta = (await ask('/jsz'))?.meta_cluster as { leader?: string; cluster_size?: number } | undefined
  return meta?.leader !== undefined && meta.cluster_size === 3 && (await ask('/healthz')) !== null
}

/** Resolves when the three have found each other and chosen a leader: a second. */
export async function startNats({ tls, users }: NatsOptions): Promise<NatsCluster> {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-nats-'))
  const file = (name: string, content: string): string => {
    writeFileSync(join(folder, name), content, { mode: 0o600 })
    return join(folder, name)
  }
  const [ca, cert, key] = [file('ca.pem', tls.ca), file('cert.pem', tls.cert), file('key.pem', tls.key)]
  const ports = await Promise.all(Array.from({ length: 12 }, freePort))
  const routes = ports.slice(0, 3).map(port => `nats://127.0.0.1:${port}`)
  const nodes = [0, 1, 2].map(n => {
    const [route, client, mqtt, monitor] = [0, 3, 6, 9].map(i => ports[i + n])
    const [usersFile, pidFile] = [file(`users-${n}.conf`, users), join(folder, `node-${n}.pid`)]
    const configuration = file(
      `node-${n}.conf`,
      `server_name: node-${n}
host: 127.0.0.1
port: ${client}
http: "127.0.0.1:${monitor}"
log_file: "${join(folder, `node-${n}.log`)}"
pid_file: "${pidFile}"
jetstream { store_dir: "${join(folder, `data-${n}`)}", max_mem: 32MB, max_file: 128MB }
cluster { name: birthmark, host: 127.0.0.1, port: ${route}, routes: ${JSON.stringify(routes)} }
mqtt {
  host: 127.0.0.1
  port: ${mqtt}
  stream_replicas: 3
  # Named, since a reload sets what is not to zero, and then nobody who is connected gets another message at QoS 1.
  max_ack_pending: 100
  ack_wait: "30s"
  tls { cert_file: "${cert}", key_file: "${key}", ca_file: "${ca}", verify_and_map: true }
}
accounts { fleet { jetstream: enabled, include "users-${n}.conf" } }
`,
    )
    const child: ChildProcess = spawn('/usr/sbin/nats-server', ['-c', configuration], { stdio: 'ignore' })
    const over = new Promise<void>(resolve => child.once('exit', () => resolve()))
    const alive = (): boolean => child.exitCode === null && child.signalCode === null
    return {
      ...{ url: `mqtts://localhost:${mqtt}`, child, monitor, alive, usersFile, pidFile, clientPort: client },
      kill: async () => {
        child.kill('SIGKILL')
        await over
      },
      log: () => readFileSync(join(folder, `node-${n}.log`), 'utf8'),
    }
  })
  const close = async (): Promise<void> => {
    await Promise.all(nodes.map(node => node.kill()))
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    for (const node of nodes) {
      await until(
        () => {
          if (!node.alive()) throw new Error(`a node ended: ${node.log()}`)
          return ready(node.monitor)
        },
        'the cluster has a leader',
        40,
      )
    }
  } catch (error) {
    await close()
    throw error
  }
  return { nodes, close }
}
