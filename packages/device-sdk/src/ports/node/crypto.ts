// Hash, random and signature verification by node:crypto (OpenSSL).

import { constants, createHash, createPublicKey, randomBytes, verify } from 'node:crypto'
import type { Hash, Rng, Verify } from '../../agent/ports.ts'

export const nodeHash: Hash = { sha256: bytes => new Uint8Array(createHash('sha256').update(bytes).digest()) }

export const nodeRng: Rng = { random: length => new Uint8Array(randomBytes(length)) }

/** The PSS salt is as long as the hash (core/algorithm.ts names no other form); `saltLength` says so, lest OpenSSL accept any. */
function options(algorithm: string): { hash: string | null; padding?: number; saltLength?: number; key: string } | null {
  const hash = /-(sha(1|256|384|512))$/.exec(algorithm)?.[1] ?? null
  if (algorithm.startsWith('ecdsa-')) return { hash, key: 'ec' }
  if (algorithm.startsWith('rsa-pkcs1-')) return { hash, key: 'rsa', padding: constants.RSA_PKCS1_PADDING }
  if (algorithm.startsWith('rsa-pss-'))
    return { hash, key: 'rsa', padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
  if (/^(ed25519|ml-dsa-44|ml-dsa-65)$/.test(algorithm)) return { hash: null, key: algorithm }
  return null
}

/** Every algorithm named in core/algorithm.ts, as far as this Node's OpenSSL has it (ML-DSA from 3.5). Anything odd is simply not good. */
export const nodeVerify: Verify = {
  verify(spki, algorithm, message, signature, done) {
    const how = options(algorithm)
    let good = false
    if (how) {
      // An import that fails builds a stack trace nobody reads; without it a refusal costs half (and a good import too, on some builds).
      const depth = Error.stackTraceLimit
      Error.stackTraceLimit = 0
      try {
        const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
        const { hash, key: type, ...padding } = how
        good = key.asymmetricKeyType === type && verify(hash, message, { key, ...padding }, signature)
      } catch {
        good = false
      } finally {
        Error.stackTraceLimit = depth
      }
    }
    done(good)
  },
}
