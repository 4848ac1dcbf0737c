// The csrattrs examples of RFC 7030 and RFC 9908, and the CSR template of RFC 9908 3.4, read and written back byte for byte.
import { readFileSync } from 'node:fs'
import {
  bytesOfHex,
  encodeElement,
  encodeSequence,
  hexOf,
  oidText,
  parseCsr,
  requestedExtensions,
} from '@birthmark/device-sdk/core'
import { describe, expect, it } from 'vitest'
import {
  CSR_TEMPLATE,
  encodeCsrAttributes,
  encodeCsrTemplate,
  keyAlgorithmOf,
  parseCsrAttributes,
  parseCsrTemplate,
} from '../../packages/est-server/src/wire/csr-attributes.ts'
import { vectorFile } from './folder.ts'

const read = (...path: string[]) => new Uint8Array(readFileSync(vectorFile(...path) as string))
const said = (der: Uint8Array) =>
  parseCsrAttributes(der).map(({ oid, values }) => (values ? [oidText(oid), ...values.map(hexOf)] : oidText(oid)))

const challengePassword = '1.2.840.113549.1.9.7'

describe.runIf(vectorFile('rfc9908'))('RFC 9908 examples', () => {
  const examples: Record<string, unknown> = {
    'harkins01.csrattr.der': [challengePassword, ['1.2.840.113549.1.1.1', '02021000'], '1.2.840.113549.1.1.11'],
    'harkins02.csrattr.der': [challengePassword, ['1.2.840.10045.2.1', '06052b81040022'], '2.5.4.5', '1.2.840.10045.4.3.3'],
    'rfc7030-example01.csrattr.der': [
      challengePassword,
      ['1.2.840.10045.2.1', '06052b81040022'],
      '1.3.6.1.1.1.1.22',
      '1.2.840.10045.4.3.3',
    ],
  }
  it.each(Object.keys(examples))('[RFC 9908 5] %s says what its text says', name => {
    expect(said(read('rfc9908', 'examples', name))).toEqual(examples[name])
  })

  it.each([...Object.keys(examples), 'harkins03.csrattr.der', 'potato-example.csrattr.der', 'realistic-acp.csrattr.der'])(
    '[RFC 9908 5] %s is written back as it was',
    name => {
      const der = read('rfc9908', 'examples', name)
      expect(hexOf(encodeCsrAttributes(parseCsrAttributes(der)))).toBe(hexOf(der))
    },
  )

  it('[RFC 9908 3.3] a whole CSR as a template is a CSR, not a template', () => {
    const der = read('rfc9908', 'CSR-template.der')
    expect(requestedExtensions(parseCsr(der)).length).toBe(2)
    expect(() => parseCsrTemplate(der)).toThrow()
  })
})

describe.runIf(vectorFile('rfc7030'))('RFC 7030 examples', () => {
  it.each(['csrattrs1.der', 'csrattrs2.der'])('[RFC 7030 A.2] %s is read and written back', name => {
    const der = read('rfc7030', name)
    expect(hexOf(encodeCsrAttributes(parseCsrAttributes(der)))).toBe(hexOf(der))
    expect(parseCsrAttributes(der).length).toBeGreaterThan(2)
  })
})

describe('the CSR template', () => {
  // The example at the end of RFC 9908 3.4, put together here from its printed dump, element by element.
  const oid = (hex: string) => encodeElement(6, [bytesOfHex(hex)])
  const rdn = (type: string, value?: string) =>
    encodeElement(0x31, [encodeSequence(value ? [oid(type), encodeElement(12, [Buffer.from(value)])] : [oid(type)])])
  const dump = encodeSequence([
    Uint8Array.of(2, 1, 0),
    encodeSequence([rdn('550403'), rdn('55040b', 'myDept'), rdn('55040b', 'myGroup')]),
    encodeElement(0xa0, [encodeSequence([oid('2a8648ce3d0201'), oid('2a8648ce3d030107')])]),
    encodeElement(0xa1, [
      encodeSequence([
        oid('2a864886f70d010910023e'),
        encodeElement(0x31, [
          encodeSequence([
            encodeSequence([
              oid('551d11'),
              encodeElement(4, [encodeSequence([encodeElement(0x82, [Buffer.from('www.myServer.com')]), Uint8Array.of(0x87, 0)])]),
            ]),
            encodeSequence([oid('551d0f'), Uint8Array.of(1, 1, 255), encodeElement(4, [Uint8Array.of(3, 2, 3, 0x88)])]),
            encodeSequence([oid('551d25')]),
          ]),
        ]),
      ]),
    ]),
  ])

  it('[RFC 9908 3.4] of the text is read as the text explains it, and written back', () => {
    const template = parseCsrTemplate(dump)
    expect(
      template.subject?.map(rdns => rdns.map(a => [oidText(a.oid), a.value && Buffer.from(a.value).toString('latin1', 2)])),
    ).toEqual([[['2.5.4.3', null]], [['2.5.4.11', 'myDept']], [['2.5.4.11', 'myGroup']]])
    expect(template.key).toEqual({ algorithm: keyAlgorithmOf('P-256'), placeholder: null })
    expect(template.extensions.map(e => [oidText(e.oid), e.critical, e.value === null])).toEqual([
      ['2.5.29.17', false, false],
      ['2.5.29.15', true, false],
      ['2.5.29.37', false, true],
    ])
    expect(hexOf(encodeCsrTemplate(template))).toBe(hexOf(dump))
    expect(said(encodeCsrAttributes([{ oid: CSR_TEMPLATE, values: [dump] }]))).toEqual([
      ['1.2.840.113549.1.9.16.2.61', hexOf(dump)],
    ])
  })

  it('[F2] of another version, with two requests for extensions or cut short is refused', () => {
    const again = (from: string, to: string) => bytesOfHex(hexOf(dump).replace(from, to))
    expect(() => parseCsrTemplate(again('020100', '020101'))).toThrow('version')
    for (let length = 0; length < dump.length; length++) expect(() => parseCsrTemplate(dump.subarray(0, length))).toThrow()
  })
})
