import { generateKeyPairSync } from 'node:crypto'
import { expect, it } from 'vitest'
import { concatBytes } from './bytes.ts'
import { pointOfSpki, spkiOfPoint } from './p256-spki.ts'

const spkiOn = (namedCurve: string) =>
  new Uint8Array(generateKeyPairSync('ec', { namedCurve }).publicKey.export({ type: 'spki', format: 'der' }))

it('[RFC 5480 2] a point is the key that OpenSSL spells, and the other way round', () => {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const { x = '', y = '' } = publicKey.export({ format: 'jwk' })
  const point = new Uint8Array([4, ...Buffer.from(x, 'base64url'), ...Buffer.from(y, 'base64url')])
  const spki = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
  expect(spkiOfPoint(point)).toEqual(spki)
  expect(pointOfSpki(spki)).toEqual(point)
})

it('another curve, a compressed point, and octets too many or too few are no point', () => {
  const spki = spkiOn('P-256')
  const compressed = spki.slice()
  compressed[26] = 2
  const others = [
    spkiOn('P-384'),
    spkiOn('secp256k1'),
    compressed,
    spki.subarray(1),
    spki.subarray(0, 90),
    concatBytes([spki, spki.subarray(90)]),
  ]
  expect(others.map(pointOfSpki)).toEqual(others.map(() => null))
})
