// The time, signed for whoever asks: a device without a clock sends a number that nobody else knows, and the answer is no older than the
// question. GET /.well-known/birthmark/time?nonce=… is answered by a COSE_Sign1 of a notice key; docs/signed-time.md has the format. Optional:
// the agent does not reach this file.

import { type Bytes, equalBytes, hexOf, utf8Bytes } from './bytes.ts'
import { decodeCbor, encodeCbor, mapEntries } from './cbor.ts'
import { COSE_EDDSA, COSE_ES256, ecdsaDerOfRaw, parseSign1, sign1ToBeSigned } from './cose.ts'
import { type DeviceError, deviceError, fail } from './errors.ts'
import type { HttpRequest, HttpResponse } from './http-message.ts'
import type { Verify } from './verify.ts'

/** A key whose word on the time is taken; a NoticeSigner of fleet-revocation is one. `keyId`: the first 8 bytes of SHA-256 over `spki`. */
export interface TimeSigner {
  keyId: Bytes
  /** −7 ES256 or −8 EdDSA. */
  algorithm: number
  spki: Bytes
}

export const timePath = '/.well-known/birthmark/time'
/** 16 bytes: no answer was ever given to the same question. */
export const timeNonceBytesMin = 16
export const timeNonceBytesMax = 32
/** Fleet of 32, nonce of 32, a time, and a signature of 64. */
export const timeBytesMax = 256
/** The answer is as old as it took to come: longer, and it is not worth having. */
export const timeTimeoutSeconds = 20

/** Asks for the time. `nonce`: 16 to 32 bytes of a cryptographic source, never used before. */
export function timeRequest(nonce: Bytes): HttpRequest {
  return {
    method: 'GET',
    path: timePath + '?nonce=' + hexOf(nonce),
    headers: { accept: 'application/cose' },
    body: null,
    bodyBytesMax: timeBytesMax,
    timeoutSeconds: timeTimeoutSeconds,
  }
}

/** The payload of an answer: `{1: fleet, 2: nonce, 3: seconds since 1970}`. */
export function encodeTime(fleet: string, nonce: Bytes, time: number): Bytes {
  return encodeCbor({
    map: [
      [1, fleet],
      [2, nonce],
      [3, time],
    ],
  })
}

/** What the signer of a payload signs. */
export function timeToBeSigned(protectedHeader: Bytes, payload: Bytes): Bytes {
  // Signed but not sent (RFC 9052 4.3): a signed time cannot be taken for another message of the same key.
  return sign1ToBeSigned(protectedHeader, payload, utf8Bytes('birthmark/1 time'))
}

const rejected = (detail: string): never => fail('time_rejected', detail)

function signerOf(signers: TimeSigner[], keyId: Bytes | null, algorithm: number): TimeSigner {
  for (let i = 0; i < signers.length; i++)
    if (keyId && signers[i].algorithm === algorithm && equalBytes(signers[i].keyId, keyId)) return signers[i]
  return rejected('signer unknown')
}

/** The time that a payload says, once its signature stands. Throws `time_rejected`, `cbor_malformed`. */
function timeOf(payload: Bytes, fleet: string, nonce: Bytes): number {
  const fields = mapEntries(decodeCbor(payload, { depthMax: 1, itemsMax: 7 }))
  if (fields.length !== 3 || fields[0][0] !== 1 || fields[1][0] !== 2 || fields[2][0] !== 3) rejected('fields')
  const said = fields[1][1]
  const time = fields[2][1]
  if (fields[0][1] !== fleet) rejected('another fleet')
  if (!(said instanceof Uint8Array) || !equalBytes(said, nonce)) rejected('another nonce')
  return typeof time === 'number' && time > 0 ? time : rejected('no time')
}

/**
 * Judges the answer to `timeRequest(nonce)`. Before: bytes from anybody. After: seconds since 1970, signed by one of `signers` of this fleet
 * after the nonce was made. Fails with `time_rejected`, `cose_malformed`, `cbor_malformed`; 404 of a server without the endpoint is `est_refused`.
 */
export function judgeTime(
  response: HttpResponse,
  nonce: Bytes,
  fleet: string,
  signers: TimeSigner[],
  verify: Verify,
  done: (error: DeviceError | null, time: number) => void,
): void {
  try {
    if (response.status !== 200) fail('est_refused', response.status + ' time')
    if (response.body.length > timeBytesMax) rejected('length')
    const message = parseSign1(response.body)
    const algorithm = message.algorithm
    if (message.countersignature || (algorithm !== COSE_ES256 && algorithm !== COSE_EDDSA)) rejected('algorithm')
    const signer = signerOf(signers, message.keyId, algorithm)
    const es256 = algorithm === COSE_ES256
    verify.verify(
      signer.spki,
      es256 ? 'ecdsa-sha256' : 'ed25519',
      timeToBeSigned(message.protectedHeader, message.payload),
      es256 ? ecdsaDerOfRaw(message.signature) : message.signature,
      good => {
        let time = 0
        let error: DeviceError | null = good ? null : deviceError('time_rejected', 'signature')
        try {
          if (good) time = timeOf(message.payload, fleet, nonce)
        } catch (thrown) {
          error = thrown as DeviceError
        }
        done(error, time)
      },
    )
  } catch (thrown) {
    done(thrown as DeviceError, 0)
  }
}
