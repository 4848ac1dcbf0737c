// For who reads many CSRs. Requests of one product are alike: they differ in the serial number, the key and the signature. What was judged in one
// of them need not be judged again in the next, as long as every other octet is the same.
//
// Why this admits nothing that parseCsr() would not: a parser of DER decides by tags and lengths. Where those are the same octets in the same
// places, it finds the same elements, and it asks nothing of the octets that may differ but what is asked here, too:
//   - of a key whose length is fixed (EC points after their form octet, Ed25519, ML-DSA) nothing; its value is for cryptography to judge;
//   - of text in the subject, that it is text: where it was printable ASCII and is that again, it is text in all three string types;
//   - of the signature, a BIT STRING without unused bits.

import { signatureAlgorithmIdentifier } from './algorithm.ts'
import { type Bytes, concatBytes } from './bytes.ts'
import { CHALLENGE_PASSWORD, type Csr, csrBytesMax, parseCsr } from './csr.ts'
import { BIT_STRING, readElement, readWhole, SEQUENCE } from './der.ts'
import { attributesOf } from './distinguished-name.ts'

export interface CsrForm {
  /** The CSR as parseCsr() would read it, its `attributes` shared by all of this form; null for one of another form, of which this says nothing. */
  read(der: Bytes): Csr | null
}

const FIXED = 0
const TEXT = 1
const ANY = 2

/** Keys of a fixed form: name and how many octets at the end of the SubjectPublicKeyInfo are the key's value. RSA's INTEGERs have rules. */
const KEYS = ['P-256', 64, 'P-384', 96, 'Ed25519', 32, 'ML-DSA-44', 1312, 'ML-DSA-65', 1952]

/** The form of a CSR that parseCsr() has read; null for one whose key has no fixed form, or that names a session of its own. */
export function csrForm(csr: Csr): CsrForm | null {
  const valueBytes = KEYS[KEYS.indexOf(csr.keyAlgorithm) + 1] as number
  if (KEYS.indexOf(csr.keyAlgorithm) < 0 || csr.signatureAlgorithm === '') return null
  if (csr.attributes.some(attribute => attribute.oid === CHALLENGE_PASSWORD)) return null
  // A copy: the caller's bytes are not this form's to keep. Not by slice(), which of a Buffer of Node is a view.
  const own = parseCsr(concatBytes([csr.der]))
  const info = own.info
  const within = (part: Bytes): number => part.byteOffset - info.byteOffset
  const subjectBegin = within(own.subject)
  const subjectEnd = subjectBegin + own.subject.length
  const spkiBegin = within(own.spki)
  const spkiEnd = spkiBegin + own.spki.length
  const freedom = new Uint8Array(info.length)
  freedom.fill(ANY, spkiEnd - valueBytes, spkiEnd)
  attributesOf(readWhole(own.subject, SEQUENCE)).forEach(attribute => {
    // Not where it has other characters: half of one of those and half of another is none.
    if (/^[ -~]*$/.test(attribute.text))
      freedom.fill(TEXT, subjectBegin + attribute.value.content, subjectBegin + attribute.value.end)
  })
  const algorithm = signatureAlgorithmIdentifier(own.signatureAlgorithm)

  const read = (der: Bytes): Csr | null => {
    if (der.length > csrBytesMax || der.length < info.length + algorithm.length + 8) return null
    const outer = readElement(der, 0, der.length)
    const begin = outer.content
    const algorithmBegin = begin + info.length
    const signatureBegin = algorithmBegin + algorithm.length
    if (outer.tag !== SEQUENCE || outer.end !== der.length || signatureBegin + 3 > der.length) return null
    for (let i = 0; i < info.length; i++) {
      const octet = der[begin + i]
      if (octet === info[i] || freedom[i] === ANY) continue
      if (freedom[i] === FIXED || octet < 0x20 || octet > 0x7e) return null
    }
    for (let i = 0; i < algorithm.length; i++) if (der[algorithmBegin + i] !== algorithm[i]) return null
    const bits = readElement(der, signatureBegin, der.length)
    if (bits.tag !== BIT_STRING || bits.end !== der.length || der[bits.content] !== 0) return null
    return {
      der: der,
      info: der.subarray(begin, algorithmBegin),
      subject: der.subarray(begin + subjectBegin, begin + subjectEnd),
      spki: der.subarray(begin + spkiBegin, begin + spkiEnd),
      keyAlgorithm: own.keyAlgorithm,
      keyBits: own.keyBits,
      attributes: own.attributes,
      signatureAlgorithm: own.signatureAlgorithm,
      signature: der.subarray(bits.content + 1),
    }
  }
  return { read: read }
}

/** Lengths of a serial number, times what makes their CSRs, for one product. Each costs a request of another form some ten nanoseconds. */
const formsMax = 8

/**
 * parseCsr() for one CSR after another: the same outcome and the same errors, and those in the form of one lately read cost a tenth.
 * Nothing of a CSR stays but its form, of which the latest few are kept.
 */
export function csrReader(): (der: Bytes) => Csr {
  const forms: CsrForm[] = []
  let next = 0
  return der => {
    for (let i = 0; i < forms.length; i++) {
      const alike = forms[i].read(der)
      if (alike) return alike
    }
    const csr = parseCsr(der)
    const form = csrForm(csr)
    if (form) {
      forms[next] = form
      next = (next + 1) % formsMax
    }
    return csr
  }
}
