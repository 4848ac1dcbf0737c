// Certificates in the forms in which people bring them.

import { decodePem } from '../../core/base64.ts'
import { parseCertificate } from '../../core/certificate.ts'

/** PEM text (any number of certificates, text around them is fine), one DER certificate, or a list of these. */
export type Anchors = string | Uint8Array | readonly (string | Uint8Array)[]

/** Roots and intermediates of several manufacturers. */
const anchorsMost = 256

/** DER, each parsed once. TypeError when `anchors` holds none; throws as parseCertificate does. */
export function certificates(name: string, anchors: Anchors): Uint8Array[] {
  const out: Uint8Array[] = []
  for (const one of typeof anchors === 'string' || anchors instanceof Uint8Array ? [anchors] : anchors) {
    // DER starts with a SEQUENCE tag, which no text does.
    const ders = one instanceof Uint8Array && one[0] === 0x30 ? [one] : decodePem(one, 'CERTIFICATE', anchorsMost)
    if (ders.length === 0) throw new TypeError(`${name} holds no PEM certificate`)
    for (const der of ders) {
      parseCertificate(der)
      out.push(der)
    }
  }
  if (out.length === 0) throw new TypeError(`${name} is empty`)
  return out
}
