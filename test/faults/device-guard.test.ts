// Revocation at an API: a Hono app and plain TLS behind the device guard, over real mutual TLS with resumption and keep-alive left on.

import { Agent, createServer as createHttps, request } from 'node:https'
import type { AddressInfo } from 'node:net'
import { connect, createServer as createTls, type Server, type TLSSocket } from 'node:tls'
import { createRuleSet, type Status, statusOf, systemClock } from '@birthmark/fleet-revocation'
import { type DeviceEnv, requireDevice } from '@birthmark/fleet-revocation/hono'
import { createDeviceGuard, type DeviceGuardOptions } from '@birthmark/fleet-revocation/node'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { afterEach, describe, expect, it } from 'vitest'
import { type Credential, createTestAuthority } from '../../packages/fleet-revocation/src/testing/authority.ts'
import { createManualClock } from '../../packages/fleet-revocation/src/testing/manual-clock.ts'
import { quietLog } from '../../packages/fleet-revocation/src/testing/memory-bus.ts'
import { ended, until } from '../support/broker.ts'

const fleet = 'acme'
const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

const [devices, servers] = [createTestAuthority('devices'), createTestAuthority('servers')]
const server = servers.server()
// No anchors for node's TLS: the guard judges. Tickets are left on, as node has them.
const tlsOptions = { key: server.keyPem, cert: server.certPem, requestCert: true, rejectUnauthorized: false }

function guarded(more: Partial<DeviceGuardOptions> = {}) {
  const rules = createRuleSet()
  const status = statusOf(rules, fleet)
  const guard = createDeviceGuard({ fleet, issuers: [devices.der], status, clock: systemClock, log: quietLog, ...more })
  cleanups.push(() => guard.close())
  return { guard, rules }
}

async function listen(https: Server): Promise<number> {
  await new Promise<void>(resolve => https.listen(0, '127.0.0.1', resolve))
  cleanups.push(() => {
    https.close()
    if ('closeAllConnections' in https) (https as unknown as { closeAllConnections(): void }).closeAllConnections()
  })
  return (https.address() as AddressInfo).port
}

async function startApi(more?: Partial<DeviceGuardOptions>) {
  const { guard, rules } = guarded(more)
  const app = new Hono<DeviceEnv>()
  app.use(requireDevice(guard))
  app.get('/me', c => c.text(c.get('device').id))
  const https = createHttps(tlsOptions, getRequestListener(app.fetch as (request: Request, env: unknown) => Response))
  guard.watch(https)
  return { guard, rules, port: await listen(https) }
}

interface Answer {
  status: number
  body: string
  reused: boolean
  socket: TLSSocket
  headers: NodeJS.Dict<string | string[]>
}

function get(port: number, agent: Agent): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', servername: 'localhost', port, path: '/me', agent }, response => {
      let body = ''
      const socket = response.socket as TLSSocket
      response.on('data', (data: Buffer) => (body += data.toString()))
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, body, reused: asked.reusedSocket, socket, headers: response.headers }),
      )
    })
    asked.on('error', reject)
    asked.end()
  })
}

function agentOf(credential: Credential | null, more = {}): Agent {
  const own = credential ? { key: credential.keyPem, cert: credential.certPem } : {}
  const agent = new Agent({ keepAlive: true, ca: servers.certPem, ...own, ...more })
  cleanups.push(() => agent.destroy())
  return agent
}

let idx = 0
const device = (id: string, gids: number[], options = {}) => devices.device(id, { fleet, idx: idx++, gids }, options)

describe('a Hono app behind the guard', () => {
  it('[F12] refuses the next request on a kept-alive connection, cuts it when told, and leaves the neighbour', async () => {
    const { guard, rules, port } = await startApi()
    const [seven, eight] = [agentOf(device('seven', [7])), agentOf(device('eight', [8]))]
    expect(await get(port, seven)).toMatchObject({ status: 200, body: 'seven', reused: false })
    const held = await get(port, eight)
    rules.merge([{ kind: 'group', gid: 7, bound: 1000 }])
    // Denied before anything is cut.
    const refused = await get(port, seven)
    expect(refused).toMatchObject({ status: 403, reused: true })
    expect(JSON.parse(refused.body)).toMatchObject({ code: 'device_revoked', status: 403 })
    expect(refused.headers['content-type']).toContain('application/problem+json')
    await ended(refused.socket)
    // It connects again and waits in silence: cut as well.
    const again = connect({ port, host: '127.0.0.1', ca: servers.certPem, servername: 'localhost', ...tlsOf(device('late', [9])) })
    await new Promise(resolve => again.once('secureConnect', resolve))
    await until(() => guard.connections() === 2, 'the idle connection is known')
    rules.merge([{ kind: 'group', gid: 9, bound: 1000 }])
    expect(await guard.enforce()).toEqual({ cut: 1 })
    await ended(again)
    expect(await get(port, eight)).toMatchObject({ status: 200, body: 'eight', reused: true })
    expect(held.socket.destroyed).toBe(false)
  })

  it('[F12] cuts an idle connection by itself within a minute, also after a look that failed', async () => {
    const clock = createManualClock(systemClock.now())
    const verdicts: (() => Status)[] = []
    const { port, guard } = await startApi({ clock, status: () => verdicts.shift()?.() ?? 'good' })
    const idle = await get(port, agentOf(device('idle', [7])))
    verdicts.push(() => {
      throw new Error('the rules are away')
    })
    await clock.advance(60)
    expect([guard.connections(), verdicts.length]).toEqual([1, 0])
    verdicts.push(() => 'revoked')
    await clock.advance(60)
    await ended(idle.socket)
  })

  it.each(['TLSv1.2', 'TLSv1.3'] as const)('[F12] asks again about a resumed %s session', async version => {
    const { rules, port } = await startApi()
    const sessions: Buffer[] = []
    const credential = device('resumer', [7])
    const options = {
      ca: servers.certPem,
      host: '127.0.0.1',
      port,
      servername: 'localhost',
      minVersion: version,
      maxVersion: version,
    }
    const speak = (session?: Buffer): Promise<{ reused: boolean; answer: string }> =>
      new Promise((resolve, reject) => {
        const socket = connect({ ...options, ...tlsOf(credential), ...(session ? { session } : {}) })
        let answer = ''
        let reused = false
        socket.on('session', ticket => sessions.push(ticket))
        socket.on('error', reject)
        socket.on('data', (data: Buffer) => (answer += data.toString()))
        socket.on('secureConnect', () => {
          reused = socket.isSessionReused()
          socket.write('GET /me HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n')
        })
        socket.on('close', () => resolve({ reused, answer }))
      })
    expect((await speak()).answer).toContain('200 OK')
    // While it is good, a resumed session serves: the certificate is in it.
    expect(await speak(sessions.at(-1))).toMatchObject({ reused: true, answer: expect.stringContaining('200 OK') })
    rules.merge([], 1_000_000)
    const resumed = await speak(sessions.at(-1))
    expect(resumed.reused).toBe(true)
    expect(resumed.answer).toContain('403 Forbidden')
  })

  it('[F48] fails closed with 503 while its status is unknown, cuts nothing, and serves again', async () => {
    let fresh = true
    const { guard, port } = await startApi({ status: () => (fresh ? 'good' : 'unknown') })
    const agent = agentOf(device('dev-1', [7]))
    expect((await get(port, agent)).status).toBe(200)
    fresh = false
    expect(await guard.enforce()).toEqual({ cut: 0 })
    const refused = await get(port, agent)
    expect(refused).toMatchObject({ status: 503, reused: true, headers: { 'retry-after': '10' } })
    expect(JSON.parse(refused.body).code).toBe('status_unknown')
    fresh = true
    expect((await get(port, agent)).status).toBe(200)
  })

  it('refuses and cuts the quarantined, and takes them back', async () => {
    let status = 'good'
    const { guard, port } = await startApi({ status: () => status })
    const agent = agentOf(device('dev-1', [7]))
    await get(port, agent)
    status = 'quarantined'
    expect(await guard.enforce()).toEqual({ cut: 1 })
    await until(
      async () => JSON.parse((await get(port, agent).catch(() => ({ body: '{}' }))).body).code === 'device_quarantined',
      'refused',
    )
    status = 'good'
    expect((await get(port, agent)).status).toBe(200)
  })

  it('[F9] refuses strangers, other fleets, other purposes, run-out certificates, and who has none', async () => {
    const { guard, port } = await startApi()
    const stranger = createTestAuthority('devices').device('dev-1', { fleet, idx: 1, gids: [] })
    for (const credential of [
      null,
      stranger,
      devices.device('dev-1', { fleet: 'other', idx: 1, gids: [] }),
      devices.device('dev-1', null),
      devices.device('dev-1', { fleet, idx: 1, gids: [] }, { purpose: '2b06010505070301' }),
      device('dev-1', [], { notAfter: Math.floor(Date.now() / 1000) - 60 }),
    ]) {
      const { status, body } = await get(port, agentOf(credential))
      expect(status, body).toBe(401)
      expect(JSON.parse(body).code).toBe('device_unknown')
    }
    expect(guard.connections()).toBe(0)
  })
})

const tlsOf = ({ keyPem, certPem }: Credential) => ({ key: keyPem, cert: certPem })

describe('a TLS server behind the guard', () => {
  it('hands over good devices, ends the others, and cuts whom a revocation names', async () => {
    const { guard, rules } = guarded()
    const met: string[] = []
    const port = await listen(
      createTls(
        tlsOptions,
        guard.tls((socket, { id }) => {
          met.push(id)
          socket.on('error', () => {})
          socket.pipe(socket)
        }),
      ),
    )
    const dial = (credential: Credential) => {
      const socket = connect({ host: '127.0.0.1', port, ca: servers.certPem, servername: 'localhost', ...tlsOf(credential) })
      socket.on('error', () => {})
      return socket
    }
    const [seven, eight] = [device('seven', [7]), device('eight', [8])]
    const echoed = (socket: TLSSocket) =>
      new Promise<string>(resolve => {
        socket.once('data', (data: Buffer) => resolve(data.toString()))
        socket.write('hello')
      })
    const [a, b] = [dial(seven), dial(eight)]
    expect(await Promise.all([echoed(a), echoed(b)])).toEqual(['hello', 'hello'])
    rules.merge([{ kind: 'group', gid: 7, bound: 1000 }])
    expect(await guard.enforce()).toEqual({ cut: 1 })
    await ended(a)
    await ended(dial(seven))
    expect(await echoed(b)).toBe('hello')
    expect(met.sort()).toEqual(['eight', 'seven'])
  })
})
