// How long until the last of many subscribers has a notice: the embedded broker against mosquitto (with allow_duplicate_messages, without
// which its fan-out is quadratic) and against aedes as it comes, 1,000 to 10,000 subscribers at QoS 1 on each, round by round in turns on the
// same machine: each round gives a ratio, since absolute times drift there, and the median of the ratios counts. And how much longer it takes the
// others when one subscriber stops reading.

import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort, listens } from '../test/support/ports.ts'
import type { FromBroker, ToBroker } from './fanout-broker.ts'
import { compileSubscribers, type Subscribers, startSubscribers } from './fanout-clients.ts'
import { monotonicMs } from './monotonic.ts'
import { worker } from './worker.ts'

const fleet = 'bench'
const head = `fr/1/${fleet}/head`
const sizes = [
  { count: 1000, rounds: 40 },
  { count: 5000, rounds: 25 },
  { count: 10_000, rounds: 25 },
]
const stalledRounds = 15
const noticeBytes = 170

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]

interface Subject {
  name: string
  clients: Subscribers
  port: number
  /** Resolves with the moment just before it began. */
  publish(payload: Buffer): Promise<number>
  close(): Promise<void>
}

const brokerOf = () => worker<ToBroker, FromBroker>('fanout-broker.ts')

async function nodeSubject(
  program: string,
  which: 'embedded' | 'aedes',
): Promise<Subject & { broker: ReturnType<typeof brokerOf> }> {
  const [broker, clients] = [brokerOf(), startSubscribers(program)]
  const { port } = await broker.ask({ kind: 'open', which, fleet })
  return {
    ...{ name: which, broker, clients, port },
    publish: async payload => (await broker.ask({ kind: 'publish', topic: head, payload })).at,
    close: async () => {
      await clients.close()
      broker.kill()
      await broker.exited
    },
  }
}

/** MQTT 3.1.1: a publisher of one topic at QoS 1, by hand as the subscribers are. */
async function publisherAt(port: number): Promise<(payload: Buffer) => Promise<number>> {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true })
  const answer = () => new Promise<void>(resolve => socket.once('data', () => resolve()))
  await new Promise(resolve => socket.once('connect', resolve))
  const connected = answer()
  socket.write(Buffer.from([0x10, 15, 0, 4, ...Buffer.from('MQTT'), 4, 2, 0, 0, 0, 3, ...Buffer.from('pub')]))
  await connected
  return async payload => {
    const rest = 2 + head.length + 2 + payload.length
    const header = Buffer.from([0x33, (rest & 0x7f) | 0x80, rest >> 7, 0, head.length, ...Buffer.from(head), 0, 1])
    const at = monotonicMs()
    socket.write(Buffer.concat([header, payload]))
    return at
  }
}

async function mosquittoSubject(program: string): Promise<Subject> {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-fanout-'))
  const port = await freePort()
  const lines = ['allow_anonymous true', 'allow_duplicate_messages true', 'set_tcp_nodelay true', `listener ${port} 127.0.0.1`]
  writeFileSync(join(folder, 'mosquitto.conf'), `${lines.join('\n')}\n`)
  const child = spawn('/usr/sbin/mosquitto', ['-c', join(folder, 'mosquitto.conf')], { stdio: 'ignore' })
  const exited = new Promise<void>(resolve => child.once('exit', () => resolve()))
  while (!(await listens(port))) {
    if (child.exitCode !== null) throw new Error('mosquitto did not start')
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  const clients = startSubscribers(program)
  return {
    ...{ name: 'mosquitto', clients, port, publish: await publisherAt(port) },
    close: async () => {
      await clients.close()
      child.kill()
      await exited
      rmSync(folder, { recursive: true })
    },
  }
}

let mark = 1

/** Milliseconds until the last of `count` subscribers has it. */
async function round({ clients, publish }: Subject, count: number): Promise<number> {
  const payload = Buffer.alloc(noticeBytes, 7)
  payload.writeUInt32BE(++mark, noticeBytes - 4)
  const { last } = await clients.expect(mark, count)
  const at = await publish(payload)
  const lastAt = await last
  // Acknowledgements are read before the next round, which may be another broker's: 50 µs for each on both sides is more than any took.
  await new Promise(resolve => setTimeout(resolve, 50 + count / 20))
  return lastAt - at
}

/** One reader stops: the others' last, against their last before. */
async function stalledDelay(program: string, count: number): Promise<{ delayMs: number; freeMs: number; stalledMs: number }> {
  const subject = await nodeSubject(program, 'embedded')
  try {
    const first = await subject.clients.connect(subject.port, 1, [head, `fr/1/${fleet}/hb`])
    await subject.clients.connect(subject.port, count, [head])
    const free: number[] = []
    for (let i = 0; i < stalledRounds; i++) free.push(await round(subject, count + 1))
    await subject.clients.stall()
    const filler = Buffer.alloc(8000, 7)
    const { waiting } = await subject.broker.ask({ kind: 'fill', id: first, topic: `fr/1/${fleet}/hb`, payload: filler })
    if (waiting <= 0) throw new Error('the subscriber does not stall')
    const stalled: number[] = []
    for (let i = 0; i < stalledRounds; i++) stalled.push(await round(subject, count))
    return { delayMs: Math.max(0, median(stalled) - median(free)), freeMs: median(free), stalledMs: median(stalled) }
  } finally {
    await subject.close()
  }
}

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const progress = (line: string) => process.stderr.write(`${line}\n`)
  const subjects: Subject[] = []
  const program = compileSubscribers()
  const figures: Record<string, number> = { lastOfMosquitto: 0, lastOfAedes: 0 }
  const lines = [
    `milliseconds from publication to the last subscriber, QoS 1, ${noticeBytes} bytes; medians of 25 to 40 rounds in turns`,
  ]
  lines.push('  subscribers   embedded   mosquitto   aedes      of mosquitto (≤ 1.3)   of aedes (≤ 0.6)')
  try {
    for (const open of [nodeSubject(program.path, 'embedded'), mosquittoSubject(program.path), nodeSubject(program.path, 'aedes')])
      subjects.push(await open)
    let connected = 0
    for (const { count, rounds } of sizes) {
      for (const { clients, port } of subjects) await clients.connect(port, count - connected, [head])
      connected = count
      progress(`${count} subscribers on each`)
      const times = subjects.map(() => [] as number[])
      // One round to warm up.
      for (let i = 0; i <= rounds; i++)
        for (let turn = 0; turn < subjects.length; turn++) {
          // Nobody is always first.
          const which = (turn + i) % subjects.length
          const ms = await round(subjects[which], count)
          if (i > 0) times[which].push(ms)
        }
      const [embedded, mosquitto, aedes] = times.map(median)
      const [ofMosquitto, ofAedes] = times.slice(1).map(other => median(other.map((ms, i) => times[0][i] / ms)))
      // Of every size the worst stands; the table has each.
      figures.lastOfMosquitto = Math.max(figures.lastOfMosquitto, ofMosquitto)
      figures.lastOfAedes = Math.max(figures.lastOfAedes, ofAedes)
      const cell = (ms: number) => ms.toFixed(1).padStart(9)
      lines.push(
        `  ${`${count}`.padStart(11)}  ${cell(embedded)}   ${cell(mosquitto)} ${cell(aedes)}      ${ofMosquitto.toFixed(2).padStart(6)}                 ${ofAedes.toFixed(2).padStart(6)}`,
      )
      progress(lines.at(-1) ?? '')
    }
  } finally {
    await Promise.all(subjects.map(subject => subject.close()))
  }
  const stalled = await stalledDelay(program.path, 5000).finally(program.close)
  figures.stalledDelayMs = stalled.delayMs
  lines.push(
    `  one of 5,001 stops reading: the others’ last after ${stalled.stalledMs.toFixed(1)} ms, before ${stalled.freeMs.toFixed(1)} ms: ${stalled.delayMs.toFixed(1)} ms more (≤ 50)`,
  )
  return { table: lines.join('\n'), figures }
}
