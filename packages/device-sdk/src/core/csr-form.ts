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

/** Keys of a fixed form: name and how many octets at the end of the SubjectPublicKeyInfo are the key's value. RSA's INTEGERs have rules. */
const KEYS = ['P-256', 64, 'P-384', 96, 'Ed25519', 32, 'ML-DSA-44', 1312, 'ML-DSA-65', 1952]

/** The form of a CSR that parseCsr() has read; null for one whose key has no fixed form, or that names a session of its own. */
export function csrForm(csr: Csr): CsrForm | null {
  const valueBytes = KEYS[KEYS.indexOf(csr.keyAlgorithm) + 1] as number
  if (KEYS.indexOf(csr.keyAlgorithm) < 0 || csr.signatureAlgorithm === '') return null
  if (csr.attributes.some(attribute => attribute.oid === CHALLENGE_PASSWORD)) return null
  // A copy: the caller's bytes are not this form's to keep. Not by slice(), which of a Buffer of Node is a view.
  const info = concatBytes([csr.info])
  // The parts of a parsed CSR are views on its bytes.
  const within = (part: Bytes): number => part.byteOffset - csr.info.byteOffset
  const attributes = csr.attributes.map(attribute => ({
    oid: attribute.oid,
    values: attribute.values.map(value => info.subarray(within(value), within(value) + value.length)),
  }))
  const subjectBegin = within(csr.subject)
  const subjectEnd = subjectBegin + csr.subject.length
  const spkiBegin = within(csr.spki)
  const spkiEnd = spkiBegin + csr.spki.length
  const valueBegin = spkiEnd - valueBytes
  /** Not zero where text may differ. */
  const text = new Uint8Array(subjectEnd)
  attributesOf(readWhole(csr.subject, SEQUENCE)).forEach(attribute => {
    // Not where it has other characters: half of one of those and half of another is none.
    if (/^[ -~]*$/.test(attribute.text)) text.fill(1, subjectBegin + attribute.value.content, subjectBegin + attribute.value.end)
  })
  // Not `csr` itself, which would keep the caller's bytes.
  const keyAlgorithm = csr.keyAlgorithm
  const keyBits = csr.keyBits
  const signatureAlgorithm = csr.signatureAlgorithm
  const algorithm = signatureAlgorithmIdentifier(signatureAlgorithm)

  const read = (der: Bytes): Csr | null => {
    if (der.length > csrBytesMax || der.length < info.length + algorithm.length + 8) return null
    const outer = readElement(der, 0, der.length)
    const begin = outer.content
    const algorithmBegin = begin + info.length
    const signatureBegin = algorithmBegin + algorithm.length
    if (outer.tag !== SEQUENCE || outer.end !== der.length || signatureBegin + 3 > der.length) return null
    for (let i = 0; i < info.length; i++) {
      // The version and the attributes enclose name and key, so that there is an octet after the key's value.
      if (i === valueBegin) i = spkiEnd
      const octet = der[begin + i]
      if (octet !== info[i] && (!text[i] || octet < 0x20 || octet > 0x7e)) return null
    }
    for (let i = 0; i < algorithm.length; i++) if (der[algorithmBegin + i] !== algorithm[i]) return null
    const bits = readElement(der, signatureBegin, der.length)
    if (bits.tag !== BIT_STRING || bits.end !== der.length || der[bits.content] !== 0) return null
    return {
      der: der,
      info: der.subarray(begin, algorithmBegin),
      subject: der.subarray(begin + subjectBegin, begin + subjectEnd),
      spki: der.subarray(begin + spkiBegin, begin + spkiEnd),
      keyAlgorithm: keyAlgorithm,
      keyBits: keyBits,
      attributes: attributes,
      signatureAlgorithm: signatureAlgorithm,
      signature: der.subarray(bits.content + 1),
    }
  }
  return { read: read }
}

/** Lengths of a serial number, times what makes their CSRs; a power of two. No form is longer than a CSR, so that they take half a MiB at the most. */
const formsMax = 32
/** How many CSRs are parsed for each form that is made. Making one costs as much as parsing, and memory: where none serves, this adds a twentieth. */
const parsedPerForm = 128

/**
 * Where the form of a CSR is kept: by the low bits of its info's length, in which the forms of one product differ, so that a request is compared
 * with one of them at the most. Any place for bytes that are no CSR.
 */
function placeOf(der: Bytes): number {
  let at = 1
  if (der[at] > 0x7f) at += der[at] & 0x7f
  at += 2
  if (der[at] > 0x7f) at += der[at] & 0x7f
  return der[at] & (formsMax - 1)
}

/**
 * parseCsr() for one CSR after another: the same outcome and the same errors. Where requests are alike, as those of one product are, they are read
 * by their form at a fraction of the cost. Where they are not, or are of more forms than are kept, it costs what parsing costs and a twentieth.
 * Nothing of a CSR stays but its form.
 */
export function csrReader(): (der: Bytes) => Csr {
  const forms: (CsrForm | null)[] = []
  for (let i = 0; i < formsMax; i++) forms.push(null)
  const served = new Uint8Array(formsMax)
  let parsed = parsedPerForm
  return der => {
    const at = placeOf(der)
    const known = forms[at]
    const alike = known ? known.read(der) : null
    if (alike) {
      served[at] = 1
      return alike
    }
    // Comparing costs, too: a form that reads nothing between two that it cannot read goes.
    if (!served[at]) forms[at] = null
    served[at] = 0
    const csr = parseCsr(der)
    const form = ++parsed > parsedPerForm ? csrForm(csr) : null
    if (form) {
      forms[at] = form
      served[at] = 1
      parsed = 0
    }
    return csr
  }
}
