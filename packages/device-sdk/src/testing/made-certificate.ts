// Certificates for unit tests, every field open to being wrong. They are not signed: the signature is the signer's key spelt out, and
// `madeVerify` compares it. So a test says who signed what without a clock, a random number or any cryptography.

import type { Verify } from '../agent/ports.ts'
import { signatureAlgorithmIdentifier } from '../core/algorithm.ts'
import { type Bytes, equalBytes } from '../core/bytes.ts'
import {
  AUTHORITY_KEY_ID,
  BASIC_CONSTRAINTS,
  EXTENDED_KEY_USAGE,
  KEY_USAGE,
  NAME_CONSTRAINTS,
  SUBJECT_ALT_NAME,
  SUBJECT_KEY_ID,
} from '../core/certificate.ts'
import {
  BIT_STRING,
  BOOLEAN,
  encodeBits,
  encodeElement,
  encodeInteger,
  encodeOid,
  encodeSequence,
  encodeUnsigned,
  GENERALIZED_TIME,
  OCTET_STRING,
} from '../core/der.ts'
import { COMMON_NAME, encodeName } from '../core/distinguished-name.ts'

export function commonName(text: string): Bytes {
  return encodeName([{ oid: COMMON_NAME, value: text }])
}

/** A P-256 SubjectPublicKeyInfo whose point is `n` over and over; not a point on the curve, which nobody here asks. */
export function madeKey(n: number): Bytes {
  const point = new Uint8Array(65).fill(n)
  point[0] = 4
  return encodeSequence([encodeSequence([encodeOid('2a8648ce3d0201'), encodeOid('2a8648ce3d030107')]), encodeBits(point)])
}

export function madeExtension(oid: string, critical: boolean, value: Bytes): Bytes {
  return encodeSequence([
    encodeOid(oid),
    ...(critical ? [encodeElement(BOOLEAN, [new Uint8Array([0xff])])] : []),
    encodeElement(OCTET_STRING, [value]),
  ])
}

export function basicConstraints(ca: boolean, pathLength?: number, critical = true): Bytes {
  const flag = ca ? [encodeElement(BOOLEAN, [new Uint8Array([0xff])])] : []
  const length = pathLength === undefined ? [] : [encodeInteger(pathLength)]
  return madeExtension(BASIC_CONSTRAINTS, critical, encodeSequence([...flag, ...length]))
}

/** `octets`: content of the BIT STRING after the count of unused bits, such as 0x80 for digitalSignature, 0x04 for keyCertSign. */
export function keyUsage(unused: number, ...octets: number[]): Bytes {
  return madeExtension(KEY_USAGE, true, encodeElement(BIT_STRING, [new Uint8Array([unused, ...octets])]))
}

export function extendedKeyUsage(...oids: string[]): Bytes {
  return madeExtension(EXTENDED_KEY_USAGE, false, encodeSequence(oids.map(encodeOid)))
}

/** `names`: tag of the GeneralName, content. */
export function subjectAltName(critical: boolean, ...names: [number, Bytes][]): Bytes {
  return madeExtension(SUBJECT_ALT_NAME, critical, encodeSequence(names.map(([tag, value]) => encodeElement(tag, [value]))))
}

/** `permitted`, `excluded`: tag of the base GeneralName, content. */
export function nameConstraints(permitted: [number, Bytes][], excluded: [number, Bytes][], critical = true): Bytes {
  const subtrees = (tag: number, bases: [number, Bytes][]) =>
    bases.length
      ? [
          encodeElement(
            tag,
            bases.map(([kind, base]) => encodeSequence([encodeElement(kind, [base])])),
          ),
        ]
      : []
  return madeExtension(NAME_CONSTRAINTS, critical, encodeSequence([...subtrees(0xa0, permitted), ...subtrees(0xa1, excluded)]))
}

export function subjectKeyId(...octets: number[]): Bytes {
  return madeExtension(SUBJECT_KEY_ID, false, encodeElement(OCTET_STRING, [new Uint8Array(octets)]))
}

export function authorityKeyId(...octets: number[]): Bytes {
  return madeExtension(AUTHORITY_KEY_ID, false, encodeSequence([encodeElement(0x80, [new Uint8Array(octets)])]))
}

/** GeneralizedTime of `YYYYMMDDHHMMSSZ`. */
export function madeTime(text: string): Bytes {
  return encodeElement(GENERALIZED_TIME, [new Uint8Array(Buffer.from(text, 'latin1'))])
}

export interface MadeCertificate {
  /** DER Name; a string becomes its common name. */
  subject?: Bytes | string
  issuer?: Bytes | string
  /** Whose certificate it is, and who signed it: see `madeKey`. */
  key?: Bytes
  signer?: Bytes
  extensions?: Bytes[]
  /** DER elements, to be got wrong. */
  version?: Bytes
  serial?: Bytes
  algorithm?: Bytes
  outerAlgorithm?: Bytes
  notBefore?: Bytes
  notAfter?: Bytes
  uniqueIds?: Bytes[]
  more?: Bytes[]
}

/** A DER certificate, v3, valid from 2020 to 2040, signed `ecdsa-sha256`, with what `made` says otherwise. */
export function madeCertificate(made: MadeCertificate): Bytes {
  const name = (value: Bytes | string) => (typeof value === 'string' ? commonName(value) : value)
  const algorithm = made.algorithm ?? signatureAlgorithmIdentifier('ecdsa-sha256')
  const extensions = made.extensions ?? []
  const tbs = encodeSequence([
    made.version ?? encodeElement(0xa0, [encodeInteger(2)]),
    made.serial ?? encodeUnsigned(new Uint8Array([0x10, 0x20, 0x30])),
    algorithm,
    name(made.issuer ?? 'root'),
    encodeSequence([made.notBefore ?? madeTime('20200101000000Z'), made.notAfter ?? madeTime('20400101000000Z')]),
    name(made.subject ?? 'leaf'),
    made.key ?? madeKey(9),
    ...(made.uniqueIds ?? []),
    ...(extensions.length ? [encodeElement(0xa3, [encodeSequence(extensions)])] : []),
    ...(made.more ?? []),
  ])
  return encodeSequence([tbs, made.outerAlgorithm ?? algorithm, encodeBits(made.signer ?? madeKey(1))])
}

/** A CA certificate: as `madeCertificate`, with basicConstraints and keyCertSign. */
export function madeCa(made: MadeCertificate & { pathLength?: number }): Bytes {
  return madeCertificate({
    ...made,
    extensions: [basicConstraints(true, made.pathLength), keyUsage(2, 0x04), ...(made.extensions ?? [])],
  })
}

/** Believes a signature that spells the signer's key; counts how often it was asked. */
export function madeVerify(): Verify & { asked: number } {
  const verify = {
    asked: 0,
    verify(spki: Bytes, _algorithm: string, _message: Bytes, signature: Bytes, done: (good: boolean) => void) {
      verify.asked++
      done(equalBytes(spki, signature))
    },
  }
  return verify
}
