// Wycheproof: signatures that a verifier has to take or refuse, for everything that the server and the SDK verify. A deviation that is not in the
// ledger fails, and so does one that is and no longer happens.
import { readFileSync } from 'node:fs'
import { bytesOfHex, ecdsaDerOfRaw, encodeBits, encodeSequence } from '@birthmark/device-sdk/core'
import { nobleVerify } from '@birthmark/device-sdk/noble'
import { nodeHash } from '@birthmark/device-sdk/node'
import { p256Verify } from '@birthmark/device-sdk/p256-verify'
import { ed25519 } from '@noble/curves/ed25519.js'
import { p256, p384 } from '@noble/curves/nist.js'
import { sha256, sha384, sha512 } from '@noble/hashes/sha2.js'
import { describe, expect, it } from 'vitest'
import { createVerifier, verifyOnce } from '../../packages/est-server/src/node-crypto.ts'
import { verifySignature } from '../../packages/factory-line/src/signing-key.ts'
import { vectorFile } from './folder.ts'
import { nodeVerify } from './node-verify.ts'
import { wycheproofDeviations } from './wycheproof-ledger.ts'

interface Vector {
  tcId: number
  comment: string
  flags: string[]
  msg: string
  sig: string
  result: 'valid' | 'invalid' | 'acceptable'
}
interface Group {
  publicKeyDer?: string
  publicKeyAsn?: string
  publicKey?: string
  tests: Vector[]
}

type Check = (spki: Uint8Array, algorithm: string, message: Uint8Array, signature: Uint8Array) => boolean
const byPort =
  (verifier: typeof nodeVerify): Check =>
  (...given) => {
    let verdict = false
    verifier.verify(...given, good => {
      verdict = good
    })
    return verdict
  }
/** Each way in which a signature is judged here. */
const checks: Record<string, Check> = {
  'the enrollment server': verifyOnce,
  'its path validation': byPort(createVerifier()),
  'the SDK on Node': byPort(nodeVerify),
}

/** COSE and PKCS #11 carry r || s: through our own conversion, of which the length is the first thing to check. */
const raw = (signature: Uint8Array) => (signature.length === 64 ? ecdsaDerOfRaw(signature) : null)

const suites: { file: string; algorithm: string; factory?: boolean; form?: (signature: Uint8Array) => Uint8Array | null }[] = [
  { file: 'ecdsa_secp256r1_sha256_test.json', algorithm: 'ecdsa-sha256', factory: true },
  { file: 'ecdsa_secp256r1_sha256_p1363_test.json', algorithm: 'ecdsa-sha256', form: raw },
  { file: 'ed25519_test.json', algorithm: 'ed25519' },
  { file: 'rsa_signature_2048_sha256_test.json', algorithm: 'rsa-pkcs1-sha256' },
  { file: 'rsa_pss_2048_sha256_mgf1_32_test.json', algorithm: 'rsa-pss-sha256' },
  { file: 'mldsa_44_verify_test.json', algorithm: 'ml-dsa-44' },
]

function spkiOf(group: Group): Uint8Array {
  const der = group.publicKeyDer ?? group.publicKeyAsn
  if (der) return bytesOfHex(der)
  // ML-DSA-44 as RFC 9881 wraps it: no parameters.
  return encodeSequence([encodeSequence([bytesOfHex('0609608648016503040311')]), encodeBits(bytesOfHex(group.publicKey ?? ''))])
}

for (const { file, algorithm, factory, form = (s: Uint8Array) => s } of suites) {
  const path = vectorFile('wycheproof', file)
  if (path === null) {
    // A file without a test would fail, where it is only left out.
    it.skip(`wycheproof: ${file}`, () => {})
    continue
  }
  const { testGroups, numberOfTests } = JSON.parse(readFileSync(path, 'utf8')) as { testGroups: Group[]; numberOfTests: number }
  describe(`wycheproof: ${file}`, () => {
    const fallback: Record<string, Check> =
      algorithm === 'ecdsa-sha256' ? { 'the P-256 fallback': byPort(p256Verify(nodeHash)) } : {}
    if (/^(ecdsa|ed25519)/.test(algorithm))
      fallback['the SDK by @noble'] = byPort(nobleVerify({ sha256, sha384, sha512, p256, p384, ed25519 }))
    const ways = { ...checks, ...fallback, ...(factory ? { 'the factory line': verifySignature as Check } : {}) }
    for (const [name, check] of Object.entries(ways))
      it(`${name} judges ${numberOfTests} signatures as it should`, () => {
        const listed = wycheproofDeviations[file] ?? {}
        const deviations: string[] = []
        let judged = 0
        for (const group of testGroups) {
          const spki = spkiOf(group)
          for (const { tcId, comment, msg, sig, result } of group.tests) {
            const signature = form(bytesOfHex(sig))
            const accepted = signature !== null && check(spki, algorithm, bytesOfHex(msg), signature)
            judged++
            if (result === 'acceptable' || accepted === (result === 'valid')) continue
            deviations.push(`${tcId} ${accepted ? 'accepted' : 'refused'} (${comment})`)
          }
        }
        expect(judged).toBe(numberOfTests)
        expect(deviations.map(line => line.split(' (')[0])).toEqual(Object.entries(listed).map(([id, { ours }]) => `${id} ${ours}`))
      })
  })
}
