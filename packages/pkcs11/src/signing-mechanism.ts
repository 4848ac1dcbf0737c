// How a signature of one of our algorithms, or a decryption, is asked of a token. The token gets a hash, or for RSA a hash in its DigestInfo: the mechanisms that
// every token has, while those that hash for us are missing from many.

import { createHash } from 'node:crypto'
import { type Bytes, ecdsaDerOfRaw } from '@birthmark/device-sdk/core'
import type { PKCS11 } from 'pkcs11js'

type Mechanism = Parameters<PKCS11['C_SignInit']>[1]

export interface SigningMechanism {
  mechanism: Mechanism
  /** What the token is given for `data`. */
  input(data: Bytes): Buffer
  /** The token's answer in X.509 form. Throws when it is not even of the right length. */
  output(raw: Buffer): Bytes
  /** Room for the answer. */
  bytesMax: number
}

// PKCS #11 2.40, 6.2 and 6.3.
const CKM_RSA_PKCS = 0x1
const CKM_RSA_PKCS_PSS = 0xd
const CKM_ECDSA = 0x1041
const CK_PARAMS_RSA_PSS = 5
const hashes: Record<string, { digestInfo: string; mechanism: number; mgf: number; length: number }> = {
  // DigestInfo up to the hash: RFC 8017 9.2, note 1.
  sha256: { digestInfo: '3031300d060960864801650304020105000420', mechanism: 0x250, mgf: 2, length: 32 },
  sha384: { digestInfo: '3041300d060960864801650304020205000430', mechanism: 0x260, mgf: 3, length: 48 },
  sha512: { digestInfo: '3051300d060960864801650304020305000440', mechanism: 0x270, mgf: 4, length: 64 },
}

/** Null for an algorithm that tokens are not asked for here: Ed25519 and ML-DSA have mechanisms in PKCS #11 3.x that few tokens have. */
export function signingMechanism(algorithm: string, coordinateBytes: number): SigningMechanism | null {
  const [, family, digest] = /^(ecdsa|rsa-pkcs1|rsa-pss)-(sha\d+)$/.exec(algorithm) ?? []
  const hash = hashes[digest]
  if (hash === undefined) return null
  const hashOf = (data: Bytes) => createHash(digest).update(data).digest()
  // An RSA signature of 8,192 bits; P-521's is 132 bytes.
  const bytesMax = 1024
  if (family === 'ecdsa')
    return {
      mechanism: { mechanism: CKM_ECDSA },
      input: hashOf,
      output(raw) {
        if (raw.length !== coordinateBytes * 2) throw new Error(`an ECDSA signature of ${raw.length} bytes`)
        return ecdsaDerOfRaw(raw)
      },
      bytesMax,
    }
  const output = (raw: Buffer) => new Uint8Array(raw)
  if (family === 'rsa-pkcs1') {
    const digestInfo = Buffer.from(hash.digestInfo, 'hex')
    return {
      mechanism: { mechanism: CKM_RSA_PKCS },
      input: data => Buffer.concat([digestInfo, hashOf(data)]),
      output,
      bytesMax,
    }
  }
  // RFC 4055 3.1 as core parses it: MGF1 on the same hash, the salt as long as the hash.
  const parameter = { type: CK_PARAMS_RSA_PSS, hashAlg: hash.mechanism, mgf: hash.mgf, saltLen: hash.length }
  return { mechanism: { mechanism: CKM_RSA_PKCS_PSS, parameter }, input: hashOf, output, bytesMax }
}

const CKM_RSA_PKCS_OAEP = 0x9
const CK_PARAMS_RSA_OAEP = 1
const CKZ_DATA_SPECIFIED = 1

/** RSAES-PKCS1-v1_5, or OAEP with `oaep` for its hash and inside MGF1, without a label (RFC 4055 4.1). */
export function decryptionMechanism(oaep: string | null): Mechanism {
  if (oaep === null) return { mechanism: CKM_RSA_PKCS }
  const { mechanism: hashAlg, mgf } = hashes[oaep]
  const parameter = { type: CK_PARAMS_RSA_OAEP, hashAlg, mgf, source: CKZ_DATA_SPECIFIED }
  return { mechanism: CKM_RSA_PKCS_OAEP, parameter }
}
