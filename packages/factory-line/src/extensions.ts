// Certificate extensions as DER (RFC 5280 4.2): only encoding. Which of them a certificate gets is the profile's business.

import {
  AUTHORITY_KEY_ID,
  BASIC_CONSTRAINTS,
  BOOLEAN,
  type Bytes,
  bytesOfHex,
  EXTENDED_KEY_USAGE,
  encodeElement,
  encodeInteger,
  encodeSequence,
  KEY_USAGE,
  OBJECT_IDENTIFIER,
  OCTET_STRING,
  SUBJECT_ALT_NAME,
  SUBJECT_KEY_ID,
  utf8Bytes,
} from '@birthmark/device-sdk/core'

export const HARDWARE_MODULE_NAME = '2b06010505070804' // 1.3.6.1.5.5.7.8.4, RFC 4108 5

export const SERVER_AUTH = '2b06010505070301' // 1.3.6.1.5.5.7.3.1
export const CLIENT_AUTH = '2b06010505070302' // 1.3.6.1.5.5.7.3.2

/** Named bit 6 of keyUsage, as `1 << 6`; the others are the core's. */
export const CRL_SIGN = 64

function oid(hex: string): Bytes {
  return encodeElement(OBJECT_IDENTIFIER, [bytesOfHex(hex)])
}

function extension(id: string, critical: boolean, value: Bytes): Bytes {
  const flag = critical ? [encodeElement(BOOLEAN, [Uint8Array.of(0xff)])] : []
  return encodeSequence([oid(id), ...flag, encodeElement(OCTET_STRING, [value])])
}

/** `pathLength` −1: none stated. Critical, as RFC 5280 4.2.1.9 asks of a CA. */
export function basicConstraintsCa(pathLength: number): Bytes {
  const parts = [encodeElement(BOOLEAN, [Uint8Array.of(0xff)])]
  if (pathLength >= 0) parts.push(encodeInteger(pathLength))
  return extension(BASIC_CONSTRAINTS, true, encodeSequence(parts))
}

/** `bits`: named bit n as `1 << n`, n < 8. */
export function keyUsage(bits: number): Bytes {
  let octet = 0
  let last = 0
  for (let n = 0; n < 8; n++) {
    if ((bits & (1 << n)) === 0) continue
    octet |= 0x80 >> n
    last = n
  }
  // X.690 11.2.2: a named bit list ends with its last bit set.
  return extension(KEY_USAGE, true, encodeElement(0x03, [Uint8Array.of(7 - last, octet)]))
}

export function extendedKeyUsage(purposes: string[]): Bytes {
  return extension(EXTENDED_KEY_USAGE, false, encodeSequence(purposes.map(oid)))
}

export function subjectKeyId(id: Bytes): Bytes {
  return extension(SUBJECT_KEY_ID, false, encodeElement(OCTET_STRING, [id]))
}

export function authorityKeyId(id: Bytes): Bytes {
  return extension(AUTHORITY_KEY_ID, false, encodeSequence([encodeElement(0x80, [id])]))
}

export function subjectAltNames(names: Bytes[]): Bytes {
  return extension(SUBJECT_ALT_NAME, false, encodeSequence(names))
}

/** otherName with HardwareModuleName (RFC 4108 5): the type as an OID in hex, the serial as its octets. */
export function hardwareModuleName(type: string, serial: Bytes): Bytes {
  const value = encodeSequence([oid(type), encodeElement(OCTET_STRING, [serial])])
  return encodeElement(0xa0, [oid(HARDWARE_MODULE_NAME), encodeElement(0xa0, [value])])
}

export function dnsName(name: string): Bytes {
  return encodeElement(0x82, [utf8Bytes(name)])
}

/** Four octets (IPv4) or sixteen (IPv6), network order. */
export function ipAddress(octets: Bytes): Bytes {
  return encodeElement(0x87, [octets])
}
