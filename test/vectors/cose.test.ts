import { createPublicKey, type JsonWebKey, verify } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { codeOf, ecdsaDerOfRaw, ecdsaRawOfDer, encodeSign1, hexOf, parseSign1, sign1ToBeSigned } from '@birthmark/device-sdk/core'
import { describe, expect, it } from 'vitest'
import { vectorFile } from './folder.ts'

interface Key {
  kty: string
  crv?: string
  [name: string]: string | undefined
}

interface Example {
  title: string
  input: { sign0?: { key: Key; external?: string } }
  intermediates: { ToBeSign_hex?: string }
  output: { cbor: string }
}

const bytesOf = (hex: string) => new Uint8Array(Buffer.from(hex, 'hex'))

function publicKey(key: Key) {
  // The examples spell coordinates in base64url or, as `x_hex`, in hexadecimal.
  const part = (name: string) =>
    key[`${name}_hex`] ? Buffer.from(key[`${name}_hex`] ?? '', 'hex').toString('base64url') : key[name]
  const jwk =
    key.kty === 'OKP' ? { kty: 'OKP', crv: key.crv, x: part('x') } : { kty: 'EC', crv: key.crv, x: part('x'), y: part('y') }
  return createPublicKey({ key: jwk as JsonWebKey, format: 'jwk' })
}

const hashes: { [algorithm: number]: string | null } = { [-7]: 'sha256', [-8]: null, [-35]: 'sha384', [-36]: 'sha512' }

describe('COSE examples', () => {
  const folder = vectorFile('cose')
  if (!folder) {
    // A suite without a test would fail, where it is only left out.
    it.skip('vectors at hand', () => {})
    return
  }
  let sign1 = 0
  for (const suite of readdirSync(folder).sort()) {
    if (suite.includes('.') || suite === 'LICENSE') continue
    for (const name of readdirSync(`${folder}/${suite}`).sort()) {
      const example: Example = JSON.parse(readFileSync(`${folder}/${suite}/${name}`, 'utf8'))
      const bytes = bytesOf(example.output.cbor)
      if (!example.input.sign0) {
        it(`${suite}/${name}: another kind of message is refused`, () => {
          let code: string | null = null
          try {
            parseSign1(bytes)
          } catch (error) {
            code = codeOf(error)
          }
          expect(['cbor_malformed', 'cose_malformed']).toContain(code)
        })
        continue
      }
      sign1++
      it(`[RFC 9052 4.4] ${suite}/${name}: ${example.title}`, () => {
        const message = parseSign1(bytes)
        const toBeSigned = sign1ToBeSigned(message.protectedHeader, message.payload)
        expect(hexOf(toBeSigned)).toBe(example.intermediates.ToBeSign_hex?.toLowerCase())
        const key = publicKey(example.input.sign0?.key as Key)
        const ecdsa = message.algorithm !== -8
        const signature = ecdsa ? ecdsaDerOfRaw(message.signature) : message.signature
        expect(verify(hashes[message.algorithm], toBeSigned, key, signature)).toBe(true)
        if (ecdsa) expect(hexOf(ecdsaRawOfDer(signature, message.signature.length / 2))).toBe(hexOf(message.signature))
        expect(hexOf(encodeSign1(message.protectedHeader, message.keyId, message.payload, message.signature))).toBe(hexOf(bytes))
        for (const at of [0, message.payload.length - 1]) {
          const forged = message.payload.slice()
          forged[at] ^= 1
          expect(verify(hashes[message.algorithm], sign1ToBeSigned(message.protectedHeader, forged), key, signature)).toBe(false)
        }
      })
    }
  }
  it('covers every COSE_Sign1 of the suite', () => {
    expect(sign1).toBeGreaterThanOrEqual(8)
  })
})
