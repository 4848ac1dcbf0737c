import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { madeCertificate, madeExtension } from '../testing/made-certificate.ts'
import { type Bytes, bytesOfHex, utf8Bytes } from './bytes.ts'
import { parseCertificate } from './certificate.ts'
import { encodeElement, encodeInteger, encodeSequence, UTF8_STRING } from './der.ts'
import { codeOf } from './errors.ts'
import { encodeFleetExtension, FLEET_EXTENSION, type Membership, membershipOf } from './fleet-extension.ts'

const certified = (extension: Bytes) => parseCertificate(madeCertificate({ extensions: [extension] }))

function outcome(read: () => unknown): unknown {
  try {
    return read()
  } catch (error) {
    return codeOf(error)
  }
}

describe('fleet extension', () => {
  it('comes back from a certificate as it went in, uncritical', () => {
    fc.assert(
      fc.property(
        fc.stringMatching(/^[a-z0-9-]{1,32}$/),
        fc.nat(0x7fffffff),
        fc.uniqueArray(fc.integer({ min: 1, max: 0x7fffffff }), { maxLength: 8 }),
        (fleet, idx, gids) => {
          const membership = { fleet, idx, gids: gids.sort((a, b) => a - b) }
          const certificate = certified(encodeFleetExtension(membership))
          expect(membershipOf(certificate)).toEqual(membership)
          expect(certificate.extensions[0]).toMatchObject({ oid: FLEET_EXTENSION, critical: false })
        },
      ),
    )
    expect(membershipOf(parseCertificate(madeCertificate({})))).toBeNull()
  })

  it('stays within its bounds on both sides', () => {
    const value = (fleet: string, idx: number, gids: number[]) =>
      madeExtension(
        FLEET_EXTENSION,
        false,
        encodeSequence([
          encodeElement(UTF8_STRING, [utf8Bytes(fleet)]),
          encodeInteger(idx),
          encodeSequence(gids.map(encodeInteger)),
        ]),
      )
    for (const [fleet, idx, gids] of [
      ['', 0, []],
      ['Fleet', 0, []],
      ['a/#', 0, []],
      ['a\n', 0, []],
      ['a'.repeat(33), 0, []],
      ['a', 2 ** 31, []],
      ['a', 0, [0]],
      ['a', 0, [2, 1]],
      ['a', 0, [1, 1]],
      ['a', 0, [2 ** 31]],
      ['a', 0, [1, 2, 3, 4, 5, 6, 7, 8, 9]],
    ] as [string, number, number[]][]) {
      expect(outcome(() => encodeFleetExtension({ fleet, idx, gids }))).toBe('certificate_malformed')
      expect(outcome(() => membershipOf(certified(value(fleet, idx, gids))))).toMatch(
        /^(certificate_malformed|der_malformed|der_limit)$/,
      )
    }
    for (const idx of [-1, 0.5, Number.NaN])
      expect(outcome(() => encodeFleetExtension({ fleet: 'a', idx, gids: [] } as Membership))).toBe('certificate_malformed')
    expect(outcome(() => membershipOf(certified(madeExtension(FLEET_EXTENSION, false, bytesOfHex('0500')))))).toBe('der_malformed')
  })
})
