import type { CampaignPlan, ConsumerProof } from '@birthmark/est-server'
import { expect, test } from 'vitest'
import type { CampaignStages } from '../campaign-administration.ts'
import { consumersSaid, retiringText, unconfirmed } from './revoke-lines.ts'

const one = { issuer: 'e474ef53d7e5486a', shard: 0, crlNumber: 7, thisUpdate: 1_800_000_000, certificates: 2, listed: 2 }
const proof: ConsumerProof = {
  ...{ at: 1_800_000_000, live: 2, unlisted: 0, certificates: 2, listed: 2, lists: 1, read: 1, ocspRevoked: 1 },
  shown: [{ ...one, ocsp: 'revoked', ocspThisUpdate: 1_800_000_000 }],
}
const said = (more: Partial<ConsumerProof> = {}) => consumersSaid({ kind: 'seen', proof: { ...proof, ...more } }, 'acme')
const nothing = { certificates: 0, listed: 0, lists: 0, read: 0, ocspRevoked: 0, shown: [] }
const all = '2 certificates on 1 CRL, acme/0 number 7 of 2027-01-15T08:00:00Z; OCSP says revoked, as of 2027-01-15T08:00:00Z'

test('CRL and OCSP are done where every certificate that has not ended was found, or none is left', () => {
  expect(said()).toEqual({ done: true, what: all })
  expect(said({ ...nothing, live: 0 })).toEqual({ done: true, what: 'it has no certificate that has not ended' })
})

test('CRL and OCSP are not done where certificates are on no list here, whether or not others are', () => {
  expect(said({ ...nothing, live: 1, unlisted: 1 })).toEqual({
    done: false,
    what: '1 of 1 certificate on no list here: another CA issued it',
  })
  expect(said({ live: 5, unlisted: 3 })).toEqual({
    done: false,
    what: `3 of 5 certificates on no list here: another CA issued them; ${all}`,
  })
  expect(said(nothing)).toEqual({ done: false, what: 'none of 2 certificates was found on a list' })
})

test('of more lists than are read it says how many', () => {
  expect(said({ lists: 140, read: 64, ocspRevoked: 64 }).what).toContain('on 64 CRLs, such as acme/0')
  expect(said({ lists: 140, read: 64, ocspRevoked: 64 }).what).toContain('(64 of 140 lists read)')
})

/** Of a campaign that is carried out, and of which everybody has heard but for its devices. */
const stages: CampaignStages = {
  ...{ planned: 0, submitted: 0, blocked: null, revoked: { at: 0, seq: 3, certificates: 2 }, undelivered: 0 },
  relyingParties: { confirmed: 2, of: 2, missing: [] },
  ...{ told: 0, blockedNotAcked: 2, standardConsumers: { kind: 'seen', proof } },
}
const missing = (changed: Partial<CampaignStages>) =>
  unconfirmed({ stages: { ...stages, ...changed }, plan: { fleet: 'acme' } as CampaignPlan })

test('nobody is missing once broker, relying parties, CRL and OCSP say so; devices that are off are not waited for', () => {
  expect(missing({})).toEqual([])
  expect(missing({ standardConsumers: { kind: 'not offered' }, relyingParties: { confirmed: 0, of: 0, missing: [] } })).toEqual([])
})

test('each is missing that has not confirmed, by name or with the reason', () => {
  expect(missing({ undelivered: 1 })).toEqual(['1 notice waits for the broker'])
  expect(missing({ relyingParties: { confirmed: 0, of: 2, missing: ['billing', 'orders'] } })).toEqual([
    '0 of 2 relying parties, without billing, orders',
  ])
  const consumers = (standardConsumers: CampaignStages['standardConsumers']) => missing({ standardConsumers })
  expect(consumers({ kind: 'waiting' })).toEqual(['CRL and OCSP: not asked yet'])
  expect(consumers({ kind: 'unavailable', detail: 'the key can’t sign' })).toEqual([
    'CRL and OCSP: cannot be had now: the key can’t sign',
  ])
  expect(consumers({ kind: 'seen', proof: { ...proof, listed: 1 } })[0]).toContain('only 1 of 2 certificates on 1 CRL')
  expect(consumers({ kind: 'seen', proof: { ...proof, ocspRevoked: 0 } })[0]).toContain('OCSP says revoked of only 0 of 1')
})

test('a relying party that is retired is forgotten by a command, or taken out of the configuration where it is named', () => {
  const retired = '; if a relying party is retired: '
  const takenOut = 'out of mqtt.services in the configuration, and start the server again'
  expect(retiringText([], ['orders'], '')).toBe('')
  expect(retiringText(['billing'], [], ' --dir s')).toBe(`${retired}birthmark revoke parties --forget billing --dir s`)
  expect(retiringText(['billing'], ['billing', 'orders'], '')).toBe(`${retired}take it (billing) ${takenOut}`)
  expect(retiringText(['a', 'billing', 'c', 'orders'], ['billing', 'orders'], '')).toBe(
    `${retired}birthmark revoke parties --forget NAME; or take it (billing, orders) ${takenOut}`,
  )
})
