// Requests of one product are alike: they differ in the serial number, the key and the signature. What was judged in one of them need not be
// judged again in the next, as long as every other octet is the same.
//
// Why this admits nothing that parseCsr() would not: a parser of DER decides by tags and lengths. Where those are the same octets in the same
// places, it finds the same elements, and it asks nothing of the octets that may differ but what is asked here, too:
//   - of a key whose length is fixed (EC points after their form octet, Ed25519, ML-DSA) nothing; its value is OpenSSL's to judge;
//   - of text in the subject, that it is text: where it was printable ASCII and is that again, it is text in all three string types;
//   - of the signature, a BIT STRING without unused bits.

import {
  attributesOf,
  BIT_STRING,
  type Bytes,
  type Csr,
  csrBytesMax,
  readElement,
  readWhole,
  SEQUENCE,
  signatureAlgorithmIdentifier,
} from '@birthmark/device-sdk/core'

/** What a proof of possession needs of a CSR. `keyAlgorithm` and `signatureAlgorithm` as in Csr. */
export type SignedRequest = Pick<Csr, 'info' | 'spki' | 'keyAlgorithm' | 'signatureAlgorithm' | 'signature'>

export interface RequestForm {
  /** The CSR as parseCsr() would read it; null when it is of another form, of which this says nothing. */
  read(der: Bytes): SignedRequest | null
}

const FIXED = 0
const TEXT = 1
const ANY = 2

// How many octets at the end of the SubjectPublicKeyInfo are the key's value. RSA keys are not here: their INTEGERs have rules.
const VALUE_BYTES: Record<string, number | undefined> = {
  'P-256': 64,
  'P-384': 96,
  Ed25519: 32,
  'ML-DSA-44': 1312,
  'ML-DSA-65': 1952,
}

/** The form of a CSR that parseCsr() has read; null for one whose key has no fixed form. */
export function requestForm(csr: Csr): RequestForm | null {
  const { keyAlgorithm, signatureAlgorithm } = csr
  const valueBytes = VALUE_BYTES[keyAlgorithm]
  if (valueBytes === undefined || signatureAlgorithm === '') return null
  // Copies: the caller's bytes are not this form's to keep.
  const info = csr.info.slice()
  const within = (part: Bytes): number => part.byteOffset - csr.info.byteOffset
  const spkiBegin = within(csr.spki)
  const spkiEnd = spkiBegin + csr.spki.length
  const freedom = new Uint8Array(info.length)
  freedom.fill(ANY, spkiEnd - valueBytes, spkiEnd)
  // Not where it has other characters: half of one of those and half of another is none.
  for (const { value, text } of attributesOf(readWhole(csr.subject, SEQUENCE)))
    if (/^[ -~]*$/.test(text)) freedom.fill(TEXT, within(csr.subject) + value.content, within(csr.subject) + value.end)
  const algorithm = signatureAlgorithmIdentifier(signatureAlgorithm)

  return {
    read(der) {
      if (der.length > csrBytesMax || der.length < info.length + algorithm.length + 8) return null
      const outer = readElement(der, 0, der.length)
      const infoBegin = outer.content
      const algorithmBegin = infoBegin + info.length
      const signatureBegin = algorithmBegin + algorithm.length
      if (outer.tag !== SEQUENCE || outer.end !== der.length || signatureBegin + 3 > der.length) return null
      for (let i = 0; i < info.length; i++) {
        const octet = der[infoBegin + i]
        if (octet === info[i] || freedom[i] === ANY) continue
        if (freedom[i] === FIXED || octet < 0x20 || octet > 0x7e) return null
      }
      for (let i = 0; i < algorithm.length; i++) if (der[algorithmBegin + i] !== algorithm[i]) return null
      const bits = readElement(der, signatureBegin, der.length)
      if (bits.tag !== BIT_STRING || bits.end !== der.length || der[bits.content] !== 0) return null
      return {
        info: der.subarray(infoBegin, algorithmBegin),
        spki: der.subarray(infoBegin + spkiBegin, infoBegin + spkiEnd),
        keyAlgorithm,
        signatureAlgorithm,
        signature: der.subarray(bits.content + 1),
      }
    },
  }
}
