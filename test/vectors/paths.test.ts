// x509-limbo core and NIST PKITS against the path validator. Every case runs; deviations are in ledger.ts, each with its reason.
import { readFileSync } from 'node:fs'
import { decodePem } from '@birthmark/device-sdk/core'
import { describe, expect, it } from 'vitest'
import { vectorFile } from './folder.ts'
import { type Deviation, limboDeviations, pkitsDeviations } from './ledger.ts'
import { type Verdict, verdictOf } from './path-case.ts'

interface LimboCase {
  id: string
  expected_result: 'SUCCESS' | 'FAILURE'
  validation_time: string | null
  max_chain_depth: number | null
  extended_key_usage: string[]
  peer_certificate: string
  untrusted_intermediates: string[]
  trusted_certs: string[]
}

interface PkitsCase {
  number: string
  name: string
  should_validate: boolean
  /** Anchor first, leaf last. */
  certs: string[]
}

const SERVER_AUTH = '2b06010505070301' // 1.3.6.1.5.5.7.3.1

const pem = (text: string) => decodePem(text, 'CERTIFICATE', 1)[0]

/** All that differs between what was expected, what came, and what the ledger says of it. */
function findings(id: string, expected: boolean, verdict: Verdict, ledger: Record<string, Deviation>): string[] {
  const accepted = verdict === 'accepted'
  const listed = ledger[id]
  if (accepted === expected) return listed ? [`${id}: agrees (${verdict}), but is in the ledger`] : []
  if (!listed) return [`${id}: ${verdict}, expected ${expected ? 'acceptance' : 'refusal'}, and not in the ledger`]
  return (listed.ours === 'accepted') === accepted ? [] : [`${id}: ${verdict}, but the ledger says ${listed.ours}`]
}

const limbo = vectorFile('x509-limbo', 'limbo-core.json')
describe.runIf(limbo)('x509-limbo core', () => {
  const cases: LimboCase[] = limbo ? JSON.parse(readFileSync(limbo, 'utf8')).testcases : []

  it('[F9] agrees on all 113 cases but those in the ledger', () => {
    const found = cases.flatMap(c => {
      const { verdict } = verdictOf({
        leaf: pem(c.peer_certificate),
        intermediates: c.untrusted_intermediates.map(pem),
        anchors: c.trusted_certs.map(pem),
        // No time means now; all those certificates live for centuries. A fraction belongs to the second that has begun.
        time: Math.floor((c.validation_time ? Date.parse(c.validation_time) : Date.UTC(2026, 0, 1)) / 1000),
        purpose: c.extended_key_usage.includes('serverAuth') ? SERVER_AUTH : null,
        depthMax: c.max_chain_depth ?? 8,
      })
      return findings(c.id, c.expected_result === 'SUCCESS', verdict, limboDeviations)
    })
    expect(cases.length).toBe(113)
    expect(found).toEqual([])
    expect(Object.keys(limboDeviations).filter(id => !cases.some(c => c.id === id))).toEqual([])
  })
})

const pkits = vectorFile('pkits', 'cases.json')
describe.runIf(pkits)('NIST PKITS 4.1 to 4.7, 4.13 to 4.15', () => {
  const cases: PkitsCase[] = pkits ? JSON.parse(readFileSync(pkits, 'utf8')) : []
  const certificate = (name: string) => readFileSync(vectorFile('pkits', 'certs', `${name}.crt`) as string)

  it('[F9] agrees on all 159 cases but those in the ledger', () => {
    const found = cases.flatMap(c => {
      const { verdict } = verdictOf({
        leaf: certificate(c.certs[c.certs.length - 1]),
        intermediates: c.certs.slice(1, -1).map(certificate),
        anchors: [certificate(c.certs[0])],
        // The suite's certificates are valid from 2010 to 2030.
        time: Date.UTC(2015, 0, 1) / 1000,
      })
      return findings(c.number, c.should_validate, verdict, pkitsDeviations)
    })
    expect(cases.length).toBe(159)
    expect(found).toEqual([])
    expect(Object.keys(pkitsDeviations).filter(number => !cases.some(c => c.number === number))).toEqual([])
  })

  it('finds the path whatever order the certificates come in, and among those of all other cases', () => {
    const junk = [...new Set(cases.flatMap(c => c.certs.slice(1, -1)))].slice(0, 60).map(certificate)
    for (const c of cases.filter(c => c.should_validate && c.number.startsWith('4.6.'))) {
      const chain = c.certs.slice(1, -1).map(certificate)
      const { verdict, path } = verdictOf({
        leaf: certificate(c.certs[c.certs.length - 1]),
        intermediates: [...junk, ...chain.reverse()],
        anchors: [certificate(c.certs[0])],
        time: Date.UTC(2015, 0, 1) / 1000,
      })
      expect([c.number, verdict, path.length]).toEqual([c.number, 'accepted', c.certs.length])
    }
  })
})
