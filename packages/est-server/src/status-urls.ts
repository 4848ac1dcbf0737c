// Where the status of a certificate is found. Certificates carry these URLs for as long as they live, so nothing here may ever change its
// spelling; who moves the server keeps the old name answering.

import { type Bytes, hexOf } from '@birthmark/device-sdk/core'

/** 4,096 indices a shard: 200 KB when all are revoked, which a gateway takes; a fleet of a million has 245. */
export const shardBits = 12

export function shardOf(idx: number): number {
  return idx >>> shardBits
}

/** Eight octets of the key identifier tell the few issuers of one server apart, and keep certificates short. */
const issuerOctets = 8

/** What issuerName() gives, as a regular expression's source. */
export const issuerNamePattern = '[0-9a-f]{16}'

export function issuerName(keyId: Bytes): string {
  return hexOf(keyId.subarray(0, issuerOctets))
}

export const ocspPath = '/ocsp'

/** Where the CRLs of a fleet's shards are, with a slash at the end. */
export function crlFolder(keyId: Bytes, fleet: string): string {
  return `/crl/${issuerName(keyId)}/${fleet}/`
}

export function crlFile(shard: number): string {
  return `${shard}.crl`
}

/** The CRL of everything that an issuer signed. */
export function fullCrlPath(keyId: Bytes): string {
  return `/crl/${issuerName(keyId)}.crl`
}

/** An http URL without a slash at its end; what is behind TLS would need the status of a certificate to be reached (RFC 5280 8). */
const urlPattern =
  /^http:\/\/[A-Za-z0-9.-]+(:\d{1,5})?(\/[A-Za-z0-9._~-]+)*$|^http:\/\/\[[0-9a-fA-F:]+\](:\d{1,5})?(\/[A-Za-z0-9._~-]+)*$/

/** Beyond it the URLs would be a third of a certificate. */
const urlCharsMax = 128

export function isStatusUrl(url: string): boolean {
  return url.length <= urlCharsMax && urlPattern.test(url)
}
