import { generateKeyPairSync, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Bytes, hexOf } from './bytes.ts'
import { CHALLENGE_PASSWORD, type Csr, csrAssemble, csrInfo, EXTENSION_REQUEST, encodeAttribute, parseCsr } from './csr.ts'
import { csrForm, csrReader } from './csr-form.ts'
import { COMMON_NAME, encodeName, SERIAL_NUMBER } from './distinguished-name.ts'

const keyPairs = {
  'P-256': () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  'P-384': () => generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  Ed25519: () => generateKeyPairSync('ed25519'),
  'ML-DSA-44': () => generateKeyPairSync('ml-dsa-44'),
  'ML-DSA-65': () => generateKeyPairSync('ml-dsa-65'),
  RSA: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
}
type KeyType = keyof typeof keyPairs

const anotherKey = (type: KeyType): Bytes => keyPairs[type]().publicKey.export({ type: 'spki', format: 'der' })
const rsaKey = anotherKey('RSA')
/** An RSA key takes a while to make. */
const spkiOf = (type: KeyType): Bytes => (type === 'RSA' ? rsaKey : anotherKey(type))

/** Signed by nobody: a parser does not ask. ECDSA's signatures differ in length. */
function request(serial: string, type: KeyType = 'P-256', attributes: Bytes[] = []): Buffer {
  const info = csrInfo(encodeName([{ oid: SERIAL_NUMBER, value: serial }]), spkiOf(type), attributes)
  return Buffer.from(csrAssemble(info, 'ecdsa-sha256', randomBytes(70 + (serial.length % 3))))
}

const parts = ({ der, info, subject, spki, signature, attributes, ...named }: Csr): string =>
  JSON.stringify([
    [der, info, subject, spki, signature].map(hexOf),
    attributes.map(({ oid, values }) => [oid, values.map(hexOf)]),
    named,
  ])

/** What the parser says: the parts, or null for a refusal. */
function parsed(der: Bytes): string | null {
  try {
    return parts(parseCsr(der))
  } catch {
    return null
  }
}

type Read = (der: Bytes) => Csr | null

/** Where a form reads a request, the parser reads the same. True when the form did. */
function agrees(read: Read, der: Bytes): boolean {
  let csr: Csr | null = null
  try {
    csr = read(der)
  } catch {
    // A refusal: the parser has to refuse, too.
    expect(parsed(der)).toBe(null)
  }
  if (csr) expect(parts(csr)).toBe(parsed(der))
  return csr !== null
}

function formOf(der: Bytes): Read {
  const form = csrForm(parseCsr(der))
  if (form === null) throw new Error('no form')
  return form.read
}

describe('the form of a CSR', () => {
  it.each<KeyType>(['P-256', 'P-384', 'Ed25519', 'ML-DSA-44', 'ML-DSA-65'])('is that of the next with a key of %s', type => {
    const read = formOf(request('SN-0001', type))
    for (let i = 0; i < 8; i++) expect(agrees(read, request(`SN-100${i}`, type))).toBe(true)
    expect(agrees(read, request('SN-00010', type))).toBe(false)
    expect(agrees(read, request('SN-0002', 'P-384'))).toBe(type === 'P-384')
  })

  it('is none for an RSA key, whose numbers have rules of their own, and for one that names its own session', () => {
    expect(csrForm(parseCsr(request('SN-0001', 'RSA')))).toBe(null)
    const challenge = encodeAttribute(CHALLENGE_PASSWORD, [Buffer.from('0c03616263', 'hex')])
    expect(csrForm(parseCsr(request('SN-0001', 'P-256', [challenge])))).toBe(null)
  })

  it('keeps nothing of the bytes that it was made from', () => {
    const first = request('SN-0001')
    const read = formOf(first)
    first.fill(0)
    expect(agrees(read, request('SN-0002'))).toBe(true)
  })

  it('[F1] reads nothing that the parser refuses, and nothing otherwise: every value of every octet', () => {
    const read = formOf(request('SN-0001'))
    const next = request('SN-0002')
    for (let at = 0; at < next.length; at++) {
      const changed = Buffer.from(next)
      for (let value = 0; value < 256; value++) {
        changed[at] = value
        agrees(read, changed)
      }
    }
    for (let length = 0; length < next.length; length++) agrees(read, next.subarray(0, length))
    for (const more of [1, 2, 127, 300]) expect(agrees(read, Buffer.concat([next, Buffer.alloc(more)]))).toBe(false)
  })

  it('[F1] the same with several octets changed, cut and put in, and for a name beyond ASCII', () => {
    const extensions = encodeAttribute(EXTENSION_REQUEST, [
      Buffer.from('301830160603551d11040f300d820b6d2e6578616d706c652e63', 'hex'),
    ])
    for (const [serial, attributes] of [
      ['SN-0001', []],
      ['SN-0001', [extensions]],
      ['SN-é-01', []],
    ] as [string, Bytes[]][]) {
      const read = formOf(request(serial, 'P-256', attributes))
      const next = request(serial.replace('1', '2'), 'P-256', attributes)
      expect(agrees(read, next)).toBe(serial === 'SN-0001')
      const octet = fc.integer({ min: 0, max: 255 })
      const change = fc.record({ at: fc.nat(next.length - 1), octets: fc.array(octet, { maxLength: 3 }), instead: fc.nat(3) })
      fc.assert(
        fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), changes => {
          let der: Buffer = next
          for (const { at, octets, instead } of changes)
            der = Buffer.concat([der.subarray(0, at), Buffer.from(octets), der.subarray(at + instead)])
          agrees(read, der)
        }),
        { numRuns: 5000 },
      )
    }
  })
})

describe('a reader of CSRs', () => {
  it('reads any order of forms as the parser does, also more of them than it keeps', () => {
    const requests: Bytes[] = []
    for (const type of ['P-256', 'RSA', 'Ed25519'] as const)
      for (let length = 1; length < 24; length++) for (const end of 'ab') requests.push(request('S'.repeat(length) + end, type))
    const expected = requests.map(parsed)
    const read = csrReader()
    // A form is learned once in a hundred parsed: these rounds see dozens come, serve and go.
    for (let round = 0; round < 30; round++) expect(requests.map(der => parts(read(der)))).toEqual(expected)
  })

  it('reads the next of a form at once by that of the first, and many forms in turn once they are learned', () => {
    const read = csrReader()
    // What is read by a form shares its attributes; what is parsed has its own.
    const byForm = (first: Bytes, next: Bytes): boolean => read(first).attributes === read(next).attributes
    read(request('SN-0001'))
    expect(byForm(request('SN-0002'), request('SN-0003'))).toBe(true)
    const lengths = Array.from({ length: 16 }, (_, i) => i + 10)
    const requests = lengths.map(length => request('S'.repeat(length)))
    for (let round = 0; round < 1000; round++) requests.forEach(read)
    for (const length of lengths) expect(byForm(request('T'.repeat(length)), request('U'.repeat(length)))).toBe(true)
  })

  it('refuses what the parser refuses, with the same code', () => {
    const read = csrReader()
    const good = request('SN-0001')
    read(good)
    for (const bad of [
      good.subarray(0, 100),
      Buffer.concat([good, Buffer.alloc(1)]),
      Buffer.alloc(0),
      Buffer.alloc(20_000, 0x30),
    ]) {
      let code: unknown
      expect(() => {
        try {
          parseCsr(bad)
        } catch (error) {
          code = (error as { code: string }).code
          throw error
        }
      }).toThrow()
      expect(() => read(bad)).toThrow(expect.objectContaining({ code }))
    }
  })

  it('takes two attributes of a name as they are', () => {
    const name = encodeName([
      { oid: COMMON_NAME, value: 'a' },
      { oid: SERIAL_NUMBER, value: 'b' },
    ])
    const der = csrAssemble(csrInfo(name, spkiOf('P-256'), []), 'ecdsa-sha256', randomBytes(70))
    const read = formOf(der)
    expect(agrees(read, der)).toBe(true)
  })
})
