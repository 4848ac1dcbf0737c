import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { RevocationError } from '../errors.ts'
import type { Status } from '../rule-set.ts'
import { createManualClock, type ManualClock } from '../testing/manual-clock.ts'
import { quietLog } from '../testing/memory-bus.ts'
import { createNatsUsers, type NatsDevice } from './nats-users.ts'

const fleet = 'acme'
const folder = mkdtempSync(join(tmpdir(), 'birthmark-nats-users-'))
const path = join(folder, 'users.conf')
afterEach(() => rmSync(path, { force: true }))

const device = (id: string, of = fleet): NatsDevice => ({ id, membership: { fleet: of, idx: 0, gids: [] }, issuerKeyId: null })

/** What stands in the file, by user. */
function standing(): {
  [user: string]: { permissions: { publish: object; subscribe: object }; allowed_connection_types: string[] }
} {
  const lines = readFileSync(path, 'utf8').trim().split('\n')
  expect([lines[0], lines.at(-1)]).toEqual(['users: [', ']'])
  return Object.fromEntries(
    lines.slice(1, -1).map(line => {
      const { user, ...rest } = JSON.parse(line)
      return [user, rest]
    }),
  )
}

const whoIsMuted = () =>
  Object.entries(standing()).flatMap(([user, { permissions }]) =>
    JSON.stringify(permissions) === '{"publish":{"deny":">"},"subscribe":{"deny":">"}}' ? [user.split('CN=')[1]] : [],
  )

async function usersOf(known: NatsDevice[], reload: () => Promise<void> | void = () => {}) {
  const state = { status: 'good' as Status, of: {} as { [id: string]: Status }, reloads: 0, waits: [] as number[] }
  const manual = createManualClock(0)
  const clock: ManualClock = {
    ...manual,
    setTimer: (seconds, run) => {
      state.waits.push(seconds)
      return manual.setTimer(seconds, run)
    },
  }
  const ids = new Map(known.map(one => [one.membership, one.id]))
  const users = await createNatsUsers({
    ...{ path, fleet, devices: () => known, services: { 'watcher@acme': 'observer' }, clock, log: quietLog },
    status: membership => state.of[ids.get(membership!) ?? ''] ?? state.status,
    reload: async () => {
      state.reloads++
      await reload()
    },
  })
  return { users, state, clock }
}

describe('the users of a NATS node', () => {
  it('are the devices of the fleet with their topics, by certificate alone', async () => {
    await usersOf([device('dev-1'), device('dev.2'), device('dev-3', 'other')])
    expect(Object.keys(standing())).toEqual(['CN=watcher@acme', 'SERIALNUMBER=dev-1,CN=dev-1'])
    expect(standing()['SERIALNUMBER=dev-1,CN=dev-1']).toEqual({
      allowed_connection_types: ['MQTT'],
      permissions: {
        publish: { allow: ['devices.dev-1.>', 'fr.1.acme.req'] },
        subscribe: {
          allow: [
            ...['devices.dev-1', 'devices.dev-1.>', 'fr.1.acme.head', 'fr.1.acme.n.*', 'fr.1.acme.hb', 'fr.1.acme.rsp.dev-1'],
            '$MQTT.sub.>',
          ],
        },
      },
    })
  })

  it('[F12] are muted, so that no Will is published, and then gone', async () => {
    const { users, state, clock } = await usersOf([device('dev-1'), device('dev-2')])
    expect(await users.enforce()).toEqual({ cut: 0 })
    expect(state.reloads).toBe(1)
    state.of['dev-1'] = 'quarantined'
    const done = users.enforce()
    await expect.poll(() => state.reloads).toBe(2)
    expect(standing()['SERIALNUMBER=dev-1,CN=dev-1'].permissions).toEqual({ publish: { deny: '>' }, subscribe: { deny: '>' } })
    await clock.advance(1)
    expect(await done).toEqual({ cut: 1 })
    expect(state.reloads).toBe(3)
    expect(Object.keys(standing())).toEqual(['CN=watcher@acme', 'SERIALNUMBER=dev-2,CN=dev-2'])
    delete state.of['dev-1']
    await users.enforce()
    expect(Object.keys(standing())).toHaveLength(3)
  })

  it('[F12] are muted for as long as a node may take to read so many, and no shorter', async () => {
    const fleetOf4000 = Array.from({ length: 3999 }, (_, n) => device(`dev-${n}`))
    const { users, state, clock } = await usersOf(fleetOf4000)
    state.of['dev-1'] = 'revoked'
    const done = users.enforce()
    await expect.poll(() => state.reloads).toBe(2)
    // Half a second, and a quarter of one for each thousand.
    await expect.poll(() => state.waits).toContain(1.5)
    expect(state.waits.filter(seconds => seconds < 1.5)).toEqual([])
    await clock.advance(1.5)
    expect(await done).toEqual({ cut: 1 })
    expect(Object.keys(standing())).toHaveLength(3999)
  })

  it('[F12] are muted at once while others still have to be read, each for its own time', async () => {
    const { users, state, clock } = await usersOf(['dev-1', 'dev-2', 'dev-3'].map(id => device(id)))
    state.of['dev-1'] = 'revoked'
    const first = users.enforce()
    await expect.poll(() => state.reloads).toBe(2)
    await clock.advance(0.3)
    state.of['dev-2'] = 'revoked'
    const second = users.enforce()
    await expect.poll(() => state.reloads).toBe(3)
    expect(whoIsMuted()).toEqual(['dev-1', 'dev-2'])
    await clock.advance(0.3)
    expect(await first).toEqual({ cut: 1 })
    expect([whoIsMuted(), Object.keys(standing()).length]).toEqual([['dev-2'], 3])
    await clock.advance(0.3)
    expect(await second).toEqual({ cut: 1 })
    expect(Object.keys(standing())).toEqual(['CN=watcher@acme', 'SERIALNUMBER=dev-3,CN=dev-3'])
  })

  it('[F12] stay muted while their node cannot be told, and have their time once it is', async () => {
    let deaf = false
    const { users, state, clock } = await usersOf([device('dev-1')], () => {
      if (deaf) throw new RevocationError('enforcement_refused', 'no process')
    })
    ;[deaf, state.of['dev-1']] = [true, 'revoked']
    await expect(users.enforce()).rejects.toMatchObject({ code: 'enforcement_refused' })
    await clock.advance(5)
    expect(whoIsMuted()).toEqual(['dev-1'])
    deaf = false
    const done = users.enforce()
    await expect.poll(() => state.reloads).toBeGreaterThan(2)
    await clock.advance(0.4)
    expect(whoIsMuted()).toEqual(['dev-1'])
    await clock.advance(0.2)
    expect(await done).toEqual({ cut: 1 })
    expect(Object.keys(standing())).toEqual(['CN=watcher@acme'])
  })

  it('[F12] have their time again where who had muted them ended before it was over', async () => {
    const before = await usersOf([device('dev-1')])
    before.state.of['dev-1'] = 'revoked'
    void before.users.enforce()
    await expect.poll(() => before.state.reloads).toBe(2)
    before.users.close()
    const clock = createManualClock(0)
    let told = 0
    const started = createNatsUsers({
      ...{ path, fleet, devices: () => [device('dev-1')], services: {}, clock, log: quietLog },
      ...{ status: () => 'revoked', reload: () => void told++ },
    })
    await expect.poll(() => told).toBe(1)
    await clock.advance(0.4)
    expect(whoIsMuted()).toEqual(['dev-1'])
    await clock.advance(0.2)
    await started
    expect(standing()).toEqual({})
  })

  it('[F48] stay and get no company while their status is unknown', async () => {
    const known = [device('dev-1')]
    const { users, state } = await usersOf(known)
    known.push(device('dev-2'))
    state.status = 'unknown'
    expect(await users.enforce()).toEqual({ cut: 0 })
    expect(Object.keys(standing())).toEqual(['CN=watcher@acme', 'SERIALNUMBER=dev-1,CN=dev-1'])
  })

  it('are there before the node is, which is told again until it hears', async () => {
    let deaf = true
    const { users, state } = await usersOf([device('dev-1')], () => {
      if (deaf) throw new RevocationError('enforcement_refused', 'no process')
    })
    expect(Object.keys(standing())).toHaveLength(2)
    await expect(users.enforce()).rejects.toMatchObject({ code: 'enforcement_refused' })
    deaf = false
    await users.enforce()
    await users.enforce()
    expect(state.reloads).toBe(3)
  })
})
