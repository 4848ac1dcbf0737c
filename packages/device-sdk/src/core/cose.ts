// COSE_Sign1 (RFC 9052 4.2): its structure and the bytes that are signed, and both shapes of an ECDSA signature. Nothing is ignored: a
// header that isn't listed here is refused, which covers `crit`. Verifying is the caller's, and comes before the payload is looked into.

import { type Bytes, concatBytes } from './bytes.ts'
import { type CborTag, type CborValue, decodeCbor, encodeCbor, mapEntries } from './cbor.ts'
import { childrenOf, encodeSequence, encodeUnsigned, integerBytes, readWhole, SEQUENCE } from './der.ts'
import { fail } from './errors.ts'

/** Algorithm numbers of RFC 9053 2.1 and 2.2. */
export const COSE_ES256 = -7
export const COSE_EDDSA = -8

export interface Sign1 {
  /** Content of the protected bstr, as received. */
  protectedHeader: Bytes
  /** From the protected header; 0 (reserved by COSE) when it isn't there. */
  algorithm: number
  /** From the unprotected header: a hint which key to try, not a claim. */
  keyId: Bytes | null
  payload: Bytes
  /** r || s for ECDSA. */
  signature: Bytes
  countersignature: Countersignature | null
}

/** A second key's signature over the first (RFC 9338 3.1, label 11). */
export interface Countersignature {
  protectedHeader: Bytes
  algorithm: number
  keyId: Bytes | null
  signature: Bytes
}

// tag, array, four fields, two map entries, one of them a countersignature of three: nothing that we accept takes more.
const messageLimits = { depthMax: 5, itemsMax: 16 }
// A map of algorithm and content type.
const headerLimits = { depthMax: 1, itemsMax: 5 }

/** What a protected header says; 0 when it names no algorithm. */
function algorithmOf(protectedHeader: Bytes): number {
  let algorithm = 0
  const signed = protectedHeader.length === 0 ? [] : mapEntries(decodeCbor(protectedHeader, headerLimits))
  for (let i = 0; i < signed.length; i++) {
    const value = signed[i][1]
    if (signed[i][0] === 1 && typeof value === 'number') algorithm = value
    // 3 is the content type: a label for people, it changes nothing.
    else if (signed[i][0] !== 3) fail('cose_malformed', 'protected header')
  }
  return algorithm
}

function countersignatureOf(value: CborValue): Countersignature {
  if (!Array.isArray(value) || value.length !== 3) return fail('cose_malformed', 'countersignature')
  const protectedHeader = value[0]
  const signature = value[2]
  if (!(protectedHeader instanceof Uint8Array) || !(signature instanceof Uint8Array))
    return fail('cose_malformed', 'countersignature')
  const open = mapEntries(value[1])
  const keyId = open.length === 1 && open[0][0] === 4 ? open[0][1] : null
  if (open.length > 0 && !(keyId instanceof Uint8Array)) return fail('cose_malformed', 'countersignature')
  return {
    protectedHeader: protectedHeader,
    algorithm: algorithmOf(protectedHeader),
    keyId: keyId as Bytes | null,
    signature: signature,
  }
}

/** Parses a COSE_Sign1, tagged 18 or untagged. Throws `cbor_malformed` or `cose_malformed`. Nothing in the result is trusted yet. */
export function parseSign1(bytes: Bytes): Sign1 {
  let message = decodeCbor(bytes, messageLimits)
  if (bytes[0] === 0xd2) message = (message as CborTag).value
  if (!Array.isArray(message) || message.length !== 4) return fail('cose_malformed', 'fields')
  const protectedHeader = message[0]
  const payload = message[2]
  const signature = message[3]
  if (!(protectedHeader instanceof Uint8Array) || !(payload instanceof Uint8Array) || !(signature instanceof Uint8Array))
    return fail('cose_malformed', 'fields')
  let keyId: Bytes | null = null
  let countersignature: Countersignature | null = null
  const open = mapEntries(message[1])
  for (let i = 0; i < open.length; i++) {
    const value = open[i][1]
    if (open[i][0] === 4 && value instanceof Uint8Array) keyId = value
    else if (open[i][0] === 11) countersignature = countersignatureOf(value)
    else fail('cose_malformed', 'unprotected header')
  }
  return {
    protectedHeader: protectedHeader,
    algorithm: algorithmOf(protectedHeader),
    keyId: keyId,
    payload: payload,
    signature: signature,
    countersignature: countersignature,
  }
}

/** The protected header that names `algorithm` alone. */
export function sign1Header(algorithm: number): Bytes {
  return encodeCbor({ map: [[1, algorithm]] })
}

// An empty map may have been sent as bstr(A0); in what is signed it is always the empty string.
function signedHeader(protectedHeader: Bytes): Bytes {
  return protectedHeader.length === 1 && protectedHeader[0] === 0xa0 ? new Uint8Array(0) : protectedHeader
}

/**
 * The Sig_structure of RFC 9052 4.4: what is signed, and what a verifier rebuilds from the received fields. `external`: what both sides know
 * without saying it (4.3), such as the kind of message; nothing when it is left out.
 */
export function sign1ToBeSigned(protectedHeader: Bytes, payload: Bytes, external?: Bytes): Bytes {
  return encodeCbor(['Signature1', signedHeader(protectedHeader), external || new Uint8Array(0), payload])
}

/** The Countersign_structure of RFC 9338 3.3 over a COSE_Sign1. `protectedHeader`: the countersigner's own. */
export function countersignToBeSigned(message: Sign1, protectedHeader: Bytes, external?: Bytes): Bytes {
  return encodeCbor([
    'CounterSignatureV2',
    signedHeader(message.protectedHeader),
    signedHeader(protectedHeader),
    external || new Uint8Array(0),
    message.payload,
    [message.signature],
  ])
}

/** A tagged COSE_Sign1. */
export function encodeSign1(
  protectedHeader: Bytes,
  keyId: Bytes | null,
  payload: Bytes,
  signature: Bytes,
  countersignature?: Countersignature,
): Bytes {
  const open: [CborValue, CborValue][] = keyId ? [[4, keyId]] : []
  if (countersignature) {
    const names: [CborValue, CborValue][] = countersignature.keyId ? [[4, countersignature.keyId]] : []
    open.push([11, [countersignature.protectedHeader, { map: names }, countersignature.signature]])
  }
  return encodeCbor({ tag: 18, value: [protectedHeader, { map: open }, payload, signature] })
}

/** r || s as the DER that X.509 and the ports' `verify` take. */
export function ecdsaDerOfRaw(raw: Bytes): Bytes {
  const half = raw.length >> 1
  if (half === 0 || raw.length !== half * 2) fail('cose_malformed', 'signature length')
  return encodeSequence([encodeUnsigned(raw.subarray(0, half)), encodeUnsigned(raw.subarray(half))])
}

/** DER of an ECDSA signature as r || s, `size` bytes each (32 for P-256). Throws `der_malformed`, `cose_malformed`. */
export function ecdsaRawOfDer(der: Bytes, size: number): Bytes {
  const numbers = childrenOf(readWhole(der, SEQUENCE), 2)
  if (numbers.length !== 2) fail('cose_malformed', 'signature')
  const parts: Bytes[] = []
  for (let i = 0; i < 2; i++) {
    let octets = integerBytes(numbers[i])
    if (octets[0] >= 0x80) fail('cose_malformed', 'negative signature')
    if (octets[0] === 0) octets = octets.subarray(1)
    if (octets.length > size) fail('cose_malformed', 'signature length')
    parts.push(new Uint8Array(size - octets.length), octets)
  }
  return concatBytes(parts)
}
