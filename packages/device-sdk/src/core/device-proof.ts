// What a device shows in place of a TLS client certificate when a gateway carries its request: its certificate, and a signature by that certificate's
// key over the request. Who carries it can neither change it nor keep it for later (docs/gateway.md has the format). Optional: the agent does not
// reach this file.

import { type Bytes, utf8Bytes } from './bytes.ts'
import { type CborValue, decodeCbor, encodeCbor, mapEntries } from './cbor.ts'
import {
  COSE_EDDSA,
  COSE_ES256,
  ecdsaDerOfRaw,
  ecdsaRawOfDer,
  encodeSign1,
  parseSign1,
  sign1Header,
  sign1ToBeSigned,
} from './cose.ts'
import { fail } from './errors.ts'

/** Base64 of a proof. */
export const proofHeader = 'birthmark-proof'
/** Three certificates of RSA-4096 beside a P-256 leaf; with it, all headers of a request stay below 16 KB. */
export const proofBytesMax = 8192
/** A request takes seconds to arrive; the rest is for clocks that are off. */
export const proofSecondsMax = 300
const chainMost = 6

export interface DeviceProof {
  /** What was signed: the request's path, SHA-256 of its body as sent, and when, seconds since 1970. */
  path: string
  bodySha256: Bytes
  time: number
  /** Name of the signature algorithm, the bytes that were signed, and the signature in X.509 form. */
  algorithm: string
  toBeSigned: Bytes
  signature: Bytes
  /** DER, leaf first. Nothing of it is trusted yet. */
  chain: Bytes[]
}

function toBeSignedOf(header: Bytes, payload: Bytes): Bytes {
  return sign1ToBeSigned(header, payload, utf8Bytes('birthmark/1 proof'))
}

/** What the key of `keyAlgorithm` signs. Throws `certificate_unsupported` for what is neither P-256 nor Ed25519. */
export function proofParts(keyAlgorithm: string, path: string, bodySha256: Bytes, time: number) {
  if (keyAlgorithm !== 'P-256' && keyAlgorithm !== 'Ed25519') fail('certificate_unsupported', keyAlgorithm)
  const header = sign1Header(keyAlgorithm === 'P-256' ? COSE_ES256 : COSE_EDDSA)
  const map: [CborValue, CborValue][] = [
    [1, path],
    [2, bodySha256],
    [3, time],
  ]
  const payload = encodeCbor({ map: map })
  return { header: header, payload: payload, toBeSigned: toBeSignedOf(header, payload) }
}

/** `signature`: in X.509 form, by the key of `chain[0]`, over `parts.toBeSigned`. */
export function encodeProof(parts: { header: Bytes; payload: Bytes }, signature: Bytes, chain: Bytes[]): Bytes {
  // The header's only entry is {1: alg}, and -7 is one byte, 26 in hex.
  const raw = parts.header[2] === 0x26 ? ecdsaRawOfDer(signature, 32) : signature
  return encodeCbor([encodeSign1(parts.header, null, parts.payload, raw), chain])
}

const malformed = (detail: string): never => fail('cose_malformed', detail)

/** Throws `cbor_malformed`, `cose_malformed`, `der_*`. */
export function parseProof(bytes: Bytes): DeviceProof {
  if (bytes.length > proofBytesMax) malformed('length')
  const parts = decodeCbor(bytes, { depthMax: 3, itemsMax: 4 + chainMost })
  if (!Array.isArray(parts) || parts.length !== 2 || !(parts[0] instanceof Uint8Array) || !Array.isArray(parts[1]))
    return malformed('proof')
  const chain = parts[1]
  if (!chain.length || chain.length > chainMost || !chain.every(one => one instanceof Uint8Array)) malformed('chain')
  const message = parseSign1(parts[0])
  const es256 = message.algorithm === COSE_ES256
  if (message.countersignature || message.keyId || message.signature.length !== 64 || !(es256 || message.algorithm === COSE_EDDSA))
    malformed('signature')
  const fields = mapEntries(decodeCbor(message.payload, { depthMax: 1, itemsMax: 7 }))
  if (fields.length !== 3 || fields[0][0] !== 1 || fields[1][0] !== 2 || fields[2][0] !== 3) malformed('fields')
  const path = fields[0][1]
  const bodySha256 = fields[1][1]
  const time = fields[2][1]
  if (typeof path !== 'string' || !(bodySha256 instanceof Uint8Array) || typeof time !== 'number') return malformed('fields')
  return {
    path: path,
    bodySha256: bodySha256,
    time: time,
    algorithm: es256 ? 'ecdsa-sha256' : 'ed25519',
    toBeSigned: toBeSignedOf(message.protectedHeader, message.payload),
    signature: es256 ? ecdsaDerOfRaw(message.signature) : message.signature,
    chain: chain as Bytes[],
  }
}
