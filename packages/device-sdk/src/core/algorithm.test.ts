import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import {
  algorithmFitsKey,
  defaultAlgorithms,
  publicKeyOf,
  rsaKeyOf,
  signatureAlgorithmIdentifier,
  signatureAlgorithmOf,
} from './algorithm.ts'
import { type Bytes, bytesOfHex, hexOf } from './bytes.ts'
import { encodeBits, encodeSequence, readWhole, SEQUENCE } from './der.ts'
import { codeOf } from './errors.ts'

const spkiOf = (keys: { publicKey: KeyObject }) => new Uint8Array(keys.publicKey.export({ type: 'spki', format: 'der' }))
const curve = (namedCurve: string) => spkiOf(generateKeyPairSync('ec', { namedCurve }))
const rsa = (modulusLength: number) => spkiOf(generateKeyPairSync('rsa', { modulusLength }))
const keyOf = (spki: Bytes) => publicKeyOf(readWhole(spki, SEQUENCE))
const nameOf = (hex: string) => signatureAlgorithmOf(readWhole(bytesOfHex(hex), SEQUENCE))

describe('signature algorithms', () => {
  it('has one spelling for each name', () => {
    for (const name of [...defaultAlgorithms, 'rsa-pkcs1-sha1'])
      expect(signatureAlgorithmOf(readWhole(signatureAlgorithmIdentifier(name), SEQUENCE))).toBe(name)
    expect(new Set([...defaultAlgorithms].map(name => hexOf(signatureAlgorithmIdentifier(name)))).size).toBe(12)
  })

  it('[RFC 5758 3.2][RFC 8017 A.2] spells them as the standards do', () => {
    expect(hexOf(signatureAlgorithmIdentifier('ecdsa-sha512'))).toBe('300a06082a8648ce3d040304')
    expect(hexOf(signatureAlgorithmIdentifier('rsa-pkcs1-sha384'))).toBe('300d06092a864886f70d01010c0500')
    expect(hexOf(signatureAlgorithmIdentifier('ed25519'))).toBe('300506032b6570')
    expect(hexOf(signatureAlgorithmIdentifier('ml-dsa-65'))).toBe('300b0609608648016503040312')
    expect(hexOf(signatureAlgorithmIdentifier('rsa-pss-sha256'))).toBe(
      '304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120',
    )
  })

  it('[F2] does not know them with other parameters', () => {
    expect(nameOf('300c06082a8648ce3d0403020500')).toBe('')
    expect(nameOf('300b06092a864886f70d01010b')).toBe('')
    expect(nameOf('300706032b65700500')).toBe('')
    // PSS with its defaults, SHA-1 all over.
    expect(nameOf('300d06092a864886f70d01010a3000')).toBe('')
  })

  it('[F3] looks no further than it must at a long identifier', () => {
    expect(
      signatureAlgorithmOf(readWhole(encodeSequence([bytesOfHex('06022a03'), encodeSequence([new Uint8Array(8000)])]), SEQUENCE)),
    ).toBe('')
  })

  it('goes with one kind of key', () => {
    expect(algorithmFitsKey('ecdsa-sha256', 'P-384')).toBe(true)
    expect(algorithmFitsKey('ecdsa-sha256', 'RSA')).toBe(false)
    expect(algorithmFitsKey('rsa-pss-sha256', 'RSA')).toBe(true)
    expect(algorithmFitsKey('ed25519', 'Ed25519')).toBe(true)
    expect(algorithmFitsKey('ml-dsa-44', 'ML-DSA-44')).toBe(true)
    expect(algorithmFitsKey('ml-dsa-44', 'ML-DSA-65')).toBe(false)
    expect(algorithmFitsKey('ed25519', '')).toBe(false)
  })
})

describe('public keys', () => {
  it('reads what node:crypto makes', () => {
    for (const [spki, algorithm, bits] of [
      [curve('P-256'), 'P-256', 256],
      [curve('P-384'), 'P-384', 384],
      [curve('P-521'), 'P-521', 521],
      [spkiOf(generateKeyPairSync('ed25519')), 'Ed25519', 256],
      [rsa(2048), 'RSA', 2048],
      [rsa(1025), 'RSA', 1025],
      [spkiOf(generateKeyPairSync('ml-dsa-44')), 'ML-DSA-44', 10496],
      [spkiOf(generateKeyPairSync('ml-dsa-65')), 'ML-DSA-65', 15616],
      [curve('secp256k1'), '', 0],
      [spkiOf(generateKeyPairSync('x25519')), '', 0],
    ] as [Bytes, string, number][])
      expect(keyOf(spki)).toEqual({ algorithm, bits })
  })

  it('gives an RSA key’s numbers for a policy to judge', () => {
    const spki = rsa(2048)
    const key = rsaKeyOf(spki)
    const jwk = createPublicKey({ key: Buffer.from(spki), type: 'spki', format: 'der' }).export({ format: 'jwk' })
    expect(Buffer.from(key?.modulus ?? []).toString('base64url')).toBe(jwk.n)
    expect(hexOf(key?.exponent ?? new Uint8Array())).toBe('010001')
    expect(rsaKeyOf(curve('P-256'))).toBeNull()
  })

  it('[F2] refuses a key of the wrong form', () => {
    const outcome = (spki: Bytes) => {
      try {
        return keyOf(spki).algorithm
      } catch (error) {
        return codeOf(error)
      }
    }
    const p256 = bytesOfHex('301306072a8648ce3d020106082a8648ce3d030107')
    const point = new Uint8Array(65).fill(1)
    expect(outcome(encodeSequence([p256, encodeBits(point)]))).toBe('der_malformed')
    point[0] = 4
    expect(outcome(encodeSequence([p256, encodeBits(point)]))).toBe('P-256')
    expect(outcome(encodeSequence([p256, encodeBits(point.subarray(0, 64))]))).toBe('der_malformed')
    // Compressed.
    expect(outcome(encodeSequence([p256, encodeBits(new Uint8Array(33).fill(2))]))).toBe('der_malformed')
    const identifier = bytesOfHex('300d06092a864886f70d0101010500')
    expect(outcome(encodeSequence([identifier, encodeBits(new Uint8Array(4))]))).toBe('der_malformed')
    expect(() => rsaKeyOf(encodeSequence([identifier, encodeBits(bytesOfHex('30060201ff020103'))]))).toThrow('der_malformed')
  })
})
