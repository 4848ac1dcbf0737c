import { hexOf, parseCertificate } from '@birthmark/device-sdk/core'
import { testAuthority } from '@birthmark/device-sdk/testing'
import { expect, it } from 'vitest'
import { certificateMemory } from './certificate-memory.ts'

it('parses equal octets once, whoever changes the bytes that they came in', () => {
  const parse = certificateMemory()
  const { certificate } = testAuthority('Maker devices')
  const sent = Buffer.from(certificate)
  const first = parse(sent)
  sent.fill(0)
  expect(parse(certificate)).toBe(first)
  expect(hexOf(first.der)).toBe(hexOf(certificate))
})

it('takes no certificate for another, also where they end alike', () => {
  const parse = certificateMemory()
  const { certificate } = testAuthority('Maker devices')
  parse(certificate)
  for (let at = 0; at < certificate.length; at++) {
    const changed = Uint8Array.from(certificate)
    changed[at] ^= 1
    const outcome = (read: typeof parse) => {
      try {
        return read(changed)
      } catch (error) {
        return (error as { code: string }).code
      }
    }
    expect(outcome(parse)).toEqual(outcome(parseCertificate))
  }
  expect(() => parse(new Uint8Array(0))).toThrow('der_malformed')
})
