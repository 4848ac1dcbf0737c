// What honest devices notice of a thousand slow ones: the time from the first SYN to the certificate, beside attackers and without them, in turns in
// one run, with the limits that a server has by default. Server, attackers and devices are processes of their own.

import { connect } from 'node:tls'
import { encodeBase64 } from '@birthmark/device-sdk/core'
import { bear, manufacturer, request } from '../test/support/devices.ts'
import type { FromServer, ToServer } from './enroll-server.ts'
import { exchange } from './exchange.ts'
import type { FromAttackers, ToAttackers } from './slow-attackers.ts'
import { worker } from './worker.ts'

const rounds = 5
const perRound = 200
const warmUp = 200
const attackers = 1000
/** Devices on their way at once. */
const concurrency = 4
/** F71. */
const limit = 2

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]
const p99 = (values: number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.99)]

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const server = worker<ToServer, FromServer>('enroll-server.ts')
  const slow = worker<ToAttackers, FromAttackers>('slow-attackers.ts')
  try {
    const maker = await manufacturer('Bench')
    const units = await Promise.all(
      Array.from({ length: warmUp + 2 * rounds * perRound + 1 }, async (_, i) => {
        const serial = `unit-${i}`
        const { key, cert, manifest } = await bear(maker, serial, ['batch=1'])
        const body = encodeBase64((await request(serial)).csr, 64)
        const head = 'POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/pkcs10\r\n'
        return { tls: { key, cert }, manifest, wire: Buffer.from(`${head}Content-Length: ${body.length}\r\n\r\n${body}`) }
      }),
    )
    const manifest = units.map(unit => unit.manifest)
    const { port, identity } = await server.ask({
      kind: 'start',
      ...{ root: maker.root.certificate, manifest, postgres: null, defaultLimits: true },
    })
    let next = 0
    const enroll = async (): Promise<number> => {
      const { tls, wire } = units[next++]
      const start = performance.now()
      const socket = connect({ host: '127.0.0.1', port, ca: identity.rootPem, servername: 'localhost', ...tls })
      await new Promise((done, failed) => socket.once('secureConnect', done).once('error', failed))
      await exchange(socket, wire)
      const taken = performance.now() - start
      socket.end()
      return taken
    }
    /** Below the rate that one address is allowed. */
    const round = async (count: number): Promise<number[]> => {
      const times: number[] = []
      const end = next + count
      const work = async () => {
        while (next < end) {
          times.push(await enroll())
          await new Promise(done => setTimeout(done, 50))
        }
      }
      await Promise.all(Array.from({ length: concurrency }, work))
      return times
    }
    await round(warmUp)
    const quiet: number[][] = []
    const attacked: number[][] = []
    let held = 0
    for (let i = 0; i < rounds; i++) {
      process.stderr.write(`round ${i + 1} of ${rounds}\n`)
      quiet.push(await round(perRound - concurrency))
      await slow.ask({ kind: 'attack', port, rootPem: identity.rootPem, sockets: attackers, tls: units[units.length - 1].tls })
      attacked.push(await round(perRound - concurrency))
      held = Math.max(held, (await slow.ask({ kind: 'held' })).open)
      await slow.ask({ kind: 'rest' })
      await new Promise(done => setTimeout(done, 500))
    }
    const { ended } = await slow.ask({ kind: 'held' })
    await server.ask({ kind: 'stop' })
    const figures = {
      slowP99OfQuiet: median(attacked.map((times, i) => p99(times) / p99(quiet[i]))),
      slowHeld: held,
    }
    const row = (name: string, all: number[][]) =>
      name.padEnd(44) + [median(all.map(median)), median(all.map(p99))].map(ms => ms.toFixed(1).padStart(10)).join('')
    const table = [
      `${'ms from SYN to certificate'.padEnd(44)}${['median', 'p99'].map(title => title.padStart(10)).join('')}`,
      row('alone', quiet),
      row(`beside ${attackers} slow sockets of five kinds`, attacked),
      `p99 beside them of p99 alone: ${figures.slowP99OfQuiet.toFixed(2)} (< ${limit}); at most ${held} held, ${ended} let go of`,
    ].join('\n')
    return { table, figures }
  } finally {
    server.kill()
    slow.kill()
  }
}

if (import.meta.main) console.log((await run()).table)
