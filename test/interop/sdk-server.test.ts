// The device SDK asks the real server what only the two together can show: a CSR tied to its connection, and when to come back.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tls from 'node:tls'
import { decodePem } from '@birthmark/device-sdk/core'
import {
  birthChain,
  createIdentity,
  fileKeys,
  type Http,
  type IdentityOptions,
  memoryStore,
  nodeHttp,
} from '@birthmark/device-sdk/node'
import { flakyHttp } from '@birthmark/device-sdk/testing'
import { afterAll, describe, expect, it } from 'vitest'
import { bear, manufacturer } from '../support/devices.ts'
import { startEstServer, type TestServerOptions } from '../support/est-server.ts'

const maker = await manufacturer()
const folder = mkdtempSync(join(tmpdir(), 'sdk-server-'))
const stops: (() => Promise<void>)[] = [async () => rmSync(folder, { recursive: true })]
afterAll(async () => {
  for (const stop of stops) await stop()
})
let serial = 0

/** A server, one device that it knows, and what the device was answered: status, Renew-After. */
async function pair(options: TestServerOptions, more: Partial<IdentityOptions> = {}) {
  const device = await bear(maker, `sdk-${++serial}`)
  const server = await startEstServer(maker, { ...options, devices: [device] })
  stops.push(server.stop)
  const keys = fileKeys(join(folder, device.serial))
  mkdirSync(join(folder, device.serial))
  writeFileSync(join(folder, device.serial, 'birth.key'), device.key)
  const store = memoryStore()
  store.put('birth.chain', birthChain(device.cert))
  const network = nodeHttp(server.url, decodePem(server.identity.rootPem, 'CERTIFICATE', 1), keys, { possession: more.possession })
  const boot = (http: Http = network) =>
    createIdentity({
      keys,
      store,
      server: { url: server.url },
      trust: { server: server.identity.rootPem, operational: server.issuerRootPem },
      http,
      ...more,
    })
  return { server, network, boot }
}

describe('[RFC 7030 3.5] [RFC 9266] a CSR that names its TLS connection', () => {
  for (const version of ['TLSv1.3', 'TLSv1.2'] as const) {
    const atMost = async <T>(run: () => Promise<T>): Promise<T> => {
      const usual = tls.DEFAULT_MAX_VERSION
      tls.DEFAULT_MAX_VERSION = version
      try {
        return await run()
      } finally {
        tls.DEFAULT_MAX_VERSION = usual
      }
    }

    it(`${version}: sent from the moment that the server demands it, and from the start where the device is told to`, async () => {
      for (const possession of [undefined, 'channel'] as const) {
        const { boot } = await pair({ profile: { possession: 'channel' } }, { possession })
        const identity = boot()
        expect(await atMost(() => identity.enroll())).toMatchObject({ state: 'active', generation: 1 })
        expect(await atMost(() => identity.renew())).toMatchObject({ state: 'active', generation: 2 })
      }
    })

    it(`${version}: is welcome where nobody demands it`, async () => {
      const { boot } = await pair({}, { possession: 'channel' })
      expect(await atMost(() => boot().enroll())).toMatchObject({ state: 'active' })
    })
  }

  it('[F59] after a lost answer the same key asks again over another connection and gets the one certificate', async () => {
    const { server, network, boot } = await pair({ profile: { possession: 'channel' } })
    await expect(boot(flakyHttp(network, () => ({ after: 'network' }))).enroll()).rejects.toMatchObject({ code: 'network' })
    expect(server.signatures()).toBe(1)
    expect(await boot().enroll()).toMatchObject({ state: 'active', generation: 1 })
    expect(server.signatures()).toBe(1)
  })
})

it('the device comes back when the server said, and remembers it over a reboot', async () => {
  const { network, boot } = await pair({})
  const said: number[] = []
  const listening: Http = {
    request: (request, identity, done) =>
      network.request(request, identity, (error, response) => {
        if (request.body && response?.status === 200) said.push(Number(response.headers['renew-after']))
        done(error, response)
      }),
  }
  const before = Math.floor(Date.now() / 1000)
  const { renewAt } = await boot(listening).enroll()
  expect(said).toHaveLength(1)
  expect(renewAt - before - said[0]).toBeGreaterThanOrEqual(0)
  expect(renewAt - before - said[0]).toBeLessThan(60)
  expect(boot().status().renewAt).toBe(renewAt)
})
