import { anchorOf, parseCertificate } from '@birthmark/device-sdk/core'
import { describe, expect, it } from 'vitest'
import { createTestAuthority } from '../testing/authority.ts'
import { nodeVerify } from '../verify.ts'
import { identifyPeer, type PeerRules } from './peer.ts'

const devices = createTestAuthority('devices')
const services = createTestAuthority('services')
const now = Date.now() / 1000
const member = { fleet: 'acme', idx: 3, gids: [7] }
const rules: PeerRules = {
  deviceAnchors: [anchorOf(parseCertificate(devices.der))],
  serviceAnchors: [anchorOf(parseCertificate(services.der))],
  services: { publisher: 'publisher', 'dev-9': 'observer' },
  verify: nodeVerify(),
}

describe('identifyPeer', () => {
  it('knows a device by its certificate', () => {
    expect(identifyPeer([devices.device('dev-1', member).der, devices.der], rules, now)).toMatchObject({
      kind: 'device',
      id: 'dev-1',
      membership: member,
    })
  })

  it('knows a service by its name under the other anchor', () => {
    expect(identifyPeer([services.service('publisher').der], rules, now)).toMatchObject({
      kind: 'service',
      id: 'publisher',
      role: 'publisher',
    })
  })

  it('[F9] refuses strangers, the expired, other purposes and other names', () => {
    const stranger = createTestAuthority('devices')
    const refused: [string, Uint8Array[]][] = [
      ['path_signature', [stranger.device('dev-1', member).der]],
      ['path_no_anchor', [createTestAuthority('elsewhere').device('dev-1', member).der]],
      ['path_expired', [devices.device('dev-1', member, { notAfter: Math.floor(now) - 60 }).der]],
      ['path_key_usage', [devices.device('dev-1', member, { purpose: '2b06010505070301' }).der]],
      ['no fleet extension', [devices.device('dev-1', null).der]],
      ['the common name is no device id', [devices.device('dev/+/1', member).der]],
      ['no service is called "nobody"', [services.service('nobody').der]],
      ['no service is called "constructor"', [services.service('constructor').der]],
      ['no certificate', []],
      ['9 certificates', new Array<Uint8Array>(9).fill(devices.der)],
    ]
    for (const [reason, chain] of refused) expect(identifyPeer(chain, rules, now), reason).toBe(reason)
    expect(identifyPeer([new Uint8Array([0x30, 0x80])], rules, now)).toMatch(/malformed/)
  })

  it('[F51] lets no device be called like a service, and no device certificate be a service', () => {
    expect(identifyPeer([devices.device('dev-9', member).der], rules, now)).toBe('the name dev-9 belongs to a service')
    expect(identifyPeer([devices.service('publisher').der], rules, now)).toBe('the name publisher belongs to a service')
  })
})
