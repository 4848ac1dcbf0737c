// The adapter to @noble beside OpenSSL, for what Wycheproof's files here leave out: P-384, each curve with each hash, and ECDSA as real makers signed with it.
import { generateKeyPairSync, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { concatBytes, decodePem, equalBytes } from '@birthmark/device-sdk/core'
import { type NobleParts, nobleVerify } from '@birthmark/device-sdk/noble'
import { ed25519 } from '@noble/curves/ed25519.js'
import { p256, p384 } from '@noble/curves/nist.js'
import { sha256, sha384, sha512 } from '@noble/hashes/sha2.js'
import { describe, expect, it } from 'vitest'
import { vectorFile } from './folder.ts'
import { verifyNow } from './node-verify.ts'
import { parsed } from './path-case.ts'

const parts: NobleParts = { sha256, sha384, sha512, p256, p384, ed25519 }
type Given = [spki: Uint8Array, algorithm: string, message: Uint8Array, signature: Uint8Array]
function byNoble(given: Given, own: NobleParts = parts): boolean {
  let verdict: boolean | undefined
  nobleVerify(own).verify(...given, good => {
    verdict = good
  })
  expect(verdict).toBeTypeOf('boolean')
  return verdict === true
}

const message = new Uint8Array([1, 2, 3])
const hashes = ['sha256', 'sha384', 'sha512']
function signed(namedCurve: string, hash: string): Given {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve })
  const spki = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
  return [spki, `ecdsa-${hash}`, message, new Uint8Array(sign(hash, message, privateKey))]
}
const changed = (bytes: Uint8Array, at: number) => bytes.map((octet, i) => (i === at ? octet ^ 1 : octet))

it.each(['P-256', 'P-384'].flatMap(curve => hashes.map(hash => [curve, hash])))(
  'what OpenSSL signed by %s with %s is good, and nothing else is',
  (curve, hash) => {
    const [spki, algorithm, , signature] = signed(curve, hash)
    expect(byNoble([spki, algorithm, message, signature])).toBe(true)
    const wrong: Given[] = [
      [spki, algorithm, changed(message, 0), signature],
      [spki, algorithm, message, changed(signature, signature.length - 1)],
      [spki, algorithm, message, concatBytes([signature, message])],
      [spki, algorithm, message, signature.subarray(0, -1)],
      [spki, algorithm, message, new Uint8Array(0)],
      // Off the curve; another key; a byte too many.
      [changed(spki, spki.length - 1), algorithm, message, signature],
      [signed(curve, hash)[0], algorithm, message, signature],
      [concatBytes([spki, message]), algorithm, message, signature],
      ...hashes.filter(other => other !== hash).map((other): Given => [spki, `ecdsa-${other}`, message, signature]),
      ...['ecdsa-sha1', 'ed25519', 'rsa-pkcs1-sha256'].map((other): Given => [spki, other, message, signature]),
    ]
    expect(wrong.map(given => byNoble(given))).toEqual(wrong.map(() => false))
  },
)

it('a curve or hash that was not handed in, another curve and a compressed point are not good', () => {
  const given = signed('P-384', 'sha384')
  expect(byNoble(given, { sha256, sha384, p256 })).toBe(false)
  expect(byNoble(given, { sha256, p256, p384 })).toBe(false)
  for (const curve of ['P-521', 'secp256k1', 'brainpoolP384r1']) expect(byNoble(signed(curve, 'sha384'))).toBe(false)
  const [spki, algorithm, , signature] = given
  const point = spki.subarray(23)
  const compressed = concatBytes([
    Buffer.from('3046301006072a8648ce3d020106052b81040022033200', 'hex'),
    p384.Point.fromBytes(point).toBytes(true),
  ])
  expect(verifyNow(compressed, algorithm, message, signature)).toBe(true)
  expect(byNoble([compressed, algorithm, message, signature])).toBe(false)
})

const file = vectorFile('birth', 'birth-chains.json')
describe.runIf(file)('certificates of real makers', () => {
  it('noble judges each ECDSA signature among them as OpenSSL does, P-384 too', () => {
    const chains = file
      ? (JSON.parse(readFileSync(file, 'utf8')) as { leaf: string; intermediates: string[]; roots: string[] }[])
      : []
    const texts = new Set(chains.flatMap(({ leaf, intermediates, roots }) => [leaf, ...intermediates, ...roots]))
    const certificates = parsed([...texts].map(text => decodePem(text, 'CERTIFICATE', 1)[0]))
    const good = new Set<string>()
    for (const one of certificates)
      for (const issuer of certificates) {
        if (!one.signatureAlgorithm.startsWith('ecdsa') || !equalBytes(one.issuer, issuer.subject)) continue
        const given: Given = [issuer.spki, one.signatureAlgorithm, one.tbs, one.signature]
        const verdict = byNoble(given)
        expect(verdict).toBe(verifyNow(...given))
        if (verdict) good.add(`${issuer.keyAlgorithm} ${one.signatureAlgorithm}`)
        expect(byNoble([issuer.spki, one.signatureAlgorithm, changed(one.tbs, 20), one.signature])).toBe(false)
      }
    expect([...good].sort()).toEqual(['P-256 ecdsa-sha256', 'P-384 ecdsa-sha384'])
  })
})
