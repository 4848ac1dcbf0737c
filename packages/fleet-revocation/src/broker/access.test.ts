import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { accessOf, mayPublish, mayRead, maySubscribe, within } from './access.ts'
import { matches } from './mqtt-bus.ts'
import type { Peer, ServiceRole } from './peer.ts'

const device: Peer = {
  kind: 'device',
  id: 'dev-1',
  membership: { fleet: 'acme', idx: 1, gids: [] },
  issuerKeyId: null,
  notAfter: 0,
}
const service = (role: ServiceRole): Peer => ({ kind: 'service', id: 'svc', role, notAfter: 0 })
const access = accessOf(device, 'acme')

describe('a device', () => {
  it('writes under its own name and asks the publisher', () => {
    for (const topic of ['devices/dev-1/telemetry', 'devices/dev-1/a/b/c', 'devices/dev-1/größe', 'fr/1/acme/req'])
      expect(mayPublish(access, topic, false), topic).toBe(true)
  })

  it('[F49] retains nothing, not even its own', () => {
    for (const topic of ['devices/dev-1/state', 'fr/1/acme/head', 'fr/1/acme/req', 'fr/1/acme/ack/gw', 'fr/1/acme/ack/dev-1'])
      expect(mayPublish(access, topic, true)).toBe(false)
  })

  it('[F50] writes nowhere else', () => {
    const denied = [
      'devices/dev-2/telemetry',
      'devices/dev-1',
      'devices/dev-1x/a',
      'devices/dev-1 /a',
      'Devices/dev-1/a',
      '/devices/dev-1/a',
      'devices//dev-1/a',
      'devices/+/a',
      'devices/dev-1/+',
      'devices/dev-1/#',
      '#',
      '+',
      '$SYS/broker/uptime',
      '$share/g/devices/dev-1/a',
      '$CONTROL/dynamic-security/v1',
      'fr/1/acme/head',
      'fr/1/acme/n/1',
      'fr/1/acme/hb',
      'fr/1/acme/ack/dev-1',
      'fr/1/acme/rsp/dev-1',
      'fr/1/other/req',
      '',
      'devices/dev-1/\u0000',
      'devices/dev-1/\u001f',
      'devices/dev-1/\u007f',
      'devices/dev-1/\ufeff',
      'devices/dev-1/\ufffd',
      'devices/dev-1/\ud800',
      `devices/dev-1/${'a/'.repeat(200)}`,
      `devices/dev-1/${'a'.repeat(300)}`,
      'devices/dеv-1/a', // a Cyrillic e
    ]
    for (const topic of denied) expect(mayPublish(access, topic, false), JSON.stringify(topic)).toBe(false)
  })

  it('subscribes to its own and to notices', () => {
    for (const filter of [
      'devices/dev-1/#',
      'devices/dev-1/+',
      'devices/dev-1/cmd/+/x',
      'fr/1/acme/head',
      'fr/1/acme/n/+',
      'fr/1/acme/n/63',
      'fr/1/acme/hb',
      'fr/1/acme/rsp/dev-1',
    ])
      expect(maySubscribe(access, filter), filter).toBe(true)
  })

  it('[F50] subscribes to nothing wider', () => {
    for (const filter of [
      '#',
      '+/#',
      '+/dev-1/#',
      'devices/#',
      'devices/+/#',
      'devices/+/cmd',
      'devices/dev-2/#',
      'fr/#',
      'fr/1/acme/#',
      'fr/1/acme/+',
      'fr/1/acme/n/#',
      'fr/1/+/head',
      'fr/1/acme/ack/+',
      'fr/1/acme/rsp/+',
      '$SYS/#',
      '$share/g/devices/dev-1/#',
      'devices/dev-1/#/x',
      'devices/dev-1/a#',
      'devices/dev-1/a+',
      '',
    ])
      expect(maySubscribe(access, filter), filter).toBe(false)
  })
})

describe('services', () => {
  const matrix: [ServiceRole, string, boolean, boolean, boolean][] = [
    // role, topic, publish, retain, read
    ['publisher', 'fr/1/acme/head', true, true, true],
    ['publisher', 'fr/1/acme/n/5', true, true, true],
    ['publisher', 'fr/1/acme/rsp/dev-1', true, true, true],
    ['publisher', 'fr/1/acme/ack/gw', true, true, true],
    ['publisher', 'devices/dev-1/cmd', false, false, false],
    ['publisher', 'fr/1/other/head', false, false, false],
    ['relying-party', 'fr/1/acme/head', false, false, true],
    ['relying-party', 'fr/1/acme/ack/svc', true, true, false],
    ['relying-party', 'fr/1/acme/ack/other', false, false, false],
    ['relying-party', 'devices/dev-1/cmd', false, false, false],
    ['observer', 'devices/dev-1/telemetry', false, false, true],
    ['observer', 'fr/1/acme/head', false, false, true],
    ['observer', 'fr/1/acme/req', false, false, false],
    ['observer', 'fr/1/acme/ack/gw', false, false, false],
    ['operator', 'devices/dev-1/cmd', true, false, true],
    ['operator', 'devices/dev-1', false, false, true],
    ['operator', 'fr/1/acme/head', false, false, true],
    ['operator', 'fr/1/acme/ack/gw', false, false, false],
  ]
  for (const [role, topic, publish, retain, read] of matrix) {
    it(`[F50] ${role} on ${topic}: publish ${publish}, retain ${retain}, read ${read}`, () => {
      const its = accessOf(service(role), 'acme')
      expect([mayPublish(its, topic, false), mayPublish(its, topic, true), mayRead(its, topic)]).toEqual([publish, retain, read])
    })
  }
})

describe('within', () => {
  const level = fc.constantFrom('a', 'b', 'c')
  const topic = fc.array(level, { minLength: 1, maxLength: 4 }).map(levels => levels.join('/'))
  const filter = fc
    .tuple(fc.array(fc.oneof(level, fc.constant('+')), { minLength: 1, maxLength: 4 }), fc.boolean())
    .map(([levels, rest]) => (rest ? [...levels, '#'] : levels).join('/'))

  it('[F50] grants a filter only when everything it matches is allowed', () => {
    fc.assert(
      fc.property(filter, filter, topic, (wanted, allowed, name) => {
        if (within(wanted, allowed) && matches(wanted, name)) expect(matches(allowed, name)).toBe(true)
        expect(within(name, allowed)).toBe(matches(allowed, name))
        expect(within(allowed, allowed)).toBe(true)
      }),
    )
  })
})
