// OCSP responses of other responders, read by our reader: all of their forms, and their signatures where the suite says that they are good or not.
import { X509Certificate } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { decodePem, signatureAlgorithmIdentifier } from '@birthmark/device-sdk/core'
import { type OcspResponse, parseOcspResponse } from '@birthmark/est-server'
import { describe, expect, it } from 'vitest'
import { vectorFile } from './folder.ts'
import { verifyNow } from './node-verify.ts'

const first = vectorFile('ocsp', 'D1.ors')
const folder = first === null ? '' : dirname(first)

const read = (name: string): OcspResponse => {
  const response = parseOcspResponse(Buffer.from(readFileSync(join(folder, name), 'latin1'), 'base64'))
  if (typeof response === 'string') throw new Error(`${name}: ${response}`)
  return response
}
// By OID: some leave the NULL parameters out.
const oidOf = (identifier: Uint8Array) => Buffer.from(identifier.subarray(2, 4 + identifier[3])).toString('hex')
const algorithmOf = ({ algorithm }: OcspResponse) =>
  ['rsa-pkcs1-sha1', 'rsa-pkcs1-sha256', 'ecdsa-sha256'].find(
    name => oidOf(signatureAlgorithmIdentifier(name)) === oidOf(algorithm),
  ) ?? ''
// Certificates of 2012 hold what our strict parser refuses; only their keys are wanted.
const keyOf = (der: Uint8Array) => new Uint8Array(new X509Certificate(der).publicKey.export({ type: 'spki', format: 'der' }))
const isGood = (response: OcspResponse, der: Uint8Array) =>
  verifyNow(keyOf(der), algorithmOf(response), response.tbs, response.signature)

describe.skipIf(first === null)('OCSP responses of the certvalidator suite', () => {
  const names = first === null ? [] : readdirSync(folder).filter(name => name.endsWith('.ors'))
  const pem = (name: string) => decodePem(readFileSync(join(folder, name), 'utf8'), 'CERTIFICATE', 1)[0]

  it('are all read, each about one certificate', () => {
    expect(names.length).toBeGreaterThan(20)
    for (const name of names) {
      const { responses, producedAt, signature } = read(name)
      expect(responses, name).toHaveLength(1)
      expect(['good', 'revoked', 'unknown']).toContain(responses[0].status.kind)
      expect(Math.abs(producedAt - responses[0].thisUpdate), name).toBeLessThan(366 * 86_400)
      expect(signature.length, name).toBeGreaterThan(100)
    }
  })

  it('carry the signature of the issuer, or of the responder that comes along', () => {
    for (const i of [1, 2, 3]) {
      const [issuer] = readdirSync(folder).filter(name => name.startsWith(`ND${i}_Issuer`))
      expect(isGood(read(`ND${i}.ors`), pem(issuer)), `ND${i}`).toBe(true)
      const delegated = read(`D${i}.ors`)
      expect(isGood(delegated, delegated.certificates[0]), `D${i}`).toBe(true)
    }
  })

  it('with a wrong signature are not taken for good', () => {
    for (const i of [1, 2, 3]) {
      const [issuer] = readdirSync(folder).filter(name => name.startsWith(`ND${i}_Issuer`))
      expect(isGood(read(`ISOP_ND${i}.ors`), pem(issuer)), `ISOP_ND${i}`).toBe(false)
      const delegated = read(`ISOP_D${i}.ors`)
      expect(isGood(delegated, delegated.certificates[0]), `ISOP_D${i}`).toBe(false)
    }
  })

  it('cut short or longer are refused', () => {
    const der = Buffer.from(readFileSync(join(folder, 'ND1.ors'), 'latin1'), 'base64')
    for (let length = 0; length < der.length; length++)
      expect(() => parseOcspResponse(der.subarray(0, length)), String(length)).toThrow()
    expect(() => parseOcspResponse(Buffer.concat([der, new Uint8Array(1)]))).toThrow()
  })
})
