// What an issuing CA may issue: one SKU, within a time window, by named stations, each up to its quota. The root states it in the CA's
// certificate, so one file carries the permission from the root's desk to the line, nobody on the line can widen it, and whoever gets the
// manifest can hold the number of units against it.
//
//   IssuingMandate ::= SEQUENCE { sku UTF8String, from INTEGER, until INTEGER,      -- seconds since 1970
//     stations SEQUENCE SIZE (1..16) OF SEQUENCE { name UTF8String, keySha256 OCTET STRING (SIZE (32)), quota INTEGER } }
//
// The station's key seals its journal and signs its manifests: a journal that this CA has no station for is nobody's.

import {
  type Bytes,
  bytesOfHex,
  type Certificate,
  contentOf,
  encodeElement,
  encodeInteger,
  encodeOid,
  encodeSequence,
  expectTag,
  hexOf,
  INTEGER,
  integerBytes,
  OCTET_STRING,
  partsOf,
  SEQUENCE,
  UTF8_STRING,
  utf8Bytes,
  wholeParts,
} from '@birthmark/device-sdk/core'
import { FactoryError } from './errors.ts'

/** 2.25.237094318 as DER content octets. Not critical: the SDK and openssl need not know it. */
export const ISSUING_MANDATE = '69f1878b2e'

export interface MandatedStation {
  name: string
  /** SHA-256 of the station's SubjectPublicKeyInfo, hex. */
  keySha256: string
  quota: number
}

export interface Mandate {
  sku: string
  /** Seconds since 1970: the first and the last second in which a unit may be reserved. */
  from: number
  until: number
  stations: MandatedStation[]
}

/** Names of SKUs and stations: they stand in file names, logs and subject names. */
export const MANDATE_NAME = /^[A-Za-z0-9._-]{1,32}$/
const stationsMax = 16
// Larger than any order; well within the integers that JSON and JavaScript keep exact.
export const quotaMax = 1_000_000_000

export function encodeMandate(mandate: Mandate): Bytes {
  judge(mandate)
  const value = encodeSequence([
    encodeElement(UTF8_STRING, [utf8Bytes(mandate.sku)]),
    encodeInteger(mandate.from),
    encodeInteger(mandate.until),
    encodeSequence(
      mandate.stations.map(({ name, keySha256, quota }) =>
        encodeSequence([
          encodeElement(UTF8_STRING, [utf8Bytes(name)]),
          encodeElement(OCTET_STRING, [bytesOfHex(keySha256)]),
          encodeInteger(quota),
        ]),
      ),
    ),
  ])
  return encodeSequence([encodeOid(ISSUING_MANDATE), encodeElement(OCTET_STRING, [value])])
}

/** Null when the certificate states none: a trial line without limits. Throws `mandate_malformed`. */
export function mandateOf(certificate: Certificate): Mandate | null {
  const extension = certificate.extensions.find(({ oid }) => oid === ISSUING_MANDATE)
  if (!extension) return null
  try {
    const [sku, from, until, stations] = wholeParts(extension.value, 4, 4)
    const mandate = {
      sku: text(sku),
      from: number(from),
      until: number(until),
      stations: partsOf(stations, SEQUENCE, 1, stationsMax).map(item => {
        const [name, key, quota] = partsOf(item, SEQUENCE, 3, 3)
        return { name: text(name), keySha256: hexOf(contentOf(expectTag(key, OCTET_STRING))), quota: number(quota) }
      }),
    }
    judge(mandate)
    return mandate
  } catch (error) {
    throw new FactoryError('mandate_malformed', `the mandate in the CA's certificate: ${(error as Error).message}`, error)
  }
}

function text(element: Parameters<typeof contentOf>[0] | undefined): string {
  return new TextDecoder('utf-8', { fatal: true }).decode(contentOf(expectTag(element, UTF8_STRING)))
}

function number(element: Parameters<typeof contentOf>[0] | undefined): number {
  let value = 0
  const octets = integerBytes(expectTag(element, INTEGER))
  if (octets.length > 6 || octets[0] > 0x7f) throw new Error('a number is out of range')
  for (const octet of octets) value = value * 256 + octet
  return value
}

function judge({ sku, from, until, stations }: Mandate): void {
  const bad = (detail: string): FactoryError => new FactoryError('mandate_malformed', detail)
  if (!MANDATE_NAME.test(sku)) throw bad('a SKU is 1 to 32 of A-Z a-z 0-9 . _ -')
  if (!(from < until)) throw bad('the window ends before it begins')
  if (stations.length < 1 || stations.length > stationsMax) throw bad(`1 to ${stationsMax} stations`)
  if (new Set(stations.map(({ name }) => name)).size !== stations.length) throw bad('two stations have one name')
  for (const { name, keySha256, quota } of stations) {
    if (!MANDATE_NAME.test(name)) throw bad('a station is 1 to 32 of A-Z a-z 0-9 . _ -')
    if (!/^[0-9a-f]{64}$/.test(keySha256)) throw bad(`the key of station ${name}`)
    if (!Number.isInteger(quota) || quota < 1 || quota > quotaMax) throw bad(`the quota of station ${name}`)
  }
}
