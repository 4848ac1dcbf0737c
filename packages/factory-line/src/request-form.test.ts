import { type Bytes, csrAssemble, csrInfo, encodeAttribute, encodeName, parseCsr, SERIAL_NUMBER } from '@birthmark/device-sdk/core'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { birthRequest } from './birth-request.ts'
import { requestForm, type SignedRequest } from './request-form.ts'
import { generateSigningKey, type KeyType, keyTypes } from './signing-key.ts'

const parts = ({ info, spki, keyAlgorithm, signatureAlgorithm, signature }: SignedRequest): string =>
  [info, spki, signature].map(part => Buffer.from(part).toString('hex')).join() + keyAlgorithm + signatureAlgorithm

/** What the parser says: the parts, or null for a refusal. */
function parsed(der: Bytes): string | null {
  try {
    return parts(parseCsr(der))
  } catch {
    return null
  }
}

/** Where a form reads a request, the parser reads the same. True when the form did. */
function agrees(read: (der: Bytes) => SignedRequest | null, der: Bytes): boolean {
  let request: SignedRequest | null = null
  try {
    request = read(der)
  } catch {
    // A refusal: the parser has to refuse, too.
    expect(parsed(der)).toBe(null)
  }
  if (request) expect(parts(request)).toBe(parsed(der))
  return request !== null
}

async function form(serial: string, type: KeyType) {
  const made = requestForm(parseCsr(await birthRequest(serial, generateSigningKey(type).key)))
  return made && ((der: Bytes) => made.read(der))
}

test.each(keyTypes.filter(type => !type.startsWith('RSA')))(
  'the next request with a key of %s has the form of the one before',
  async type => {
    const read = await form('SN-0001', type)
    expect(read).not.toBe(null)
    for (let i = 0; i < 8; i++) {
      const next = await birthRequest(`SN-100${i}`, generateSigningKey(type).key)
      // Signatures differ in length; keys, serial numbers and everything around them do not.
      expect(agrees(read as never, next)).toBe(true)
    }
    expect(agrees(read as never, await birthRequest('SN-00010', generateSigningKey(type).key))).toBe(false)
    expect(agrees(read as never, await birthRequest('SN-0002', generateSigningKey('P-384').key))).toBe(type === 'P-384')
  },
)

test('an RSA key has no form: its numbers have rules of their own', async () => {
  expect(await form('SN-0001', 'RSA-2048')).toBe(null)
})

test('[F1] every value of every octet: a form reads nothing that the parser refuses, and nothing otherwise', async () => {
  const read = (await form('SN-0001', 'P-256')) as never
  const next = await birthRequest('SN-0002', generateSigningKey().key)
  for (let at = 0; at < next.length; at++) {
    const changed = next.slice()
    for (let value = 0; value < 256; value++) {
      changed[at] = value
      agrees(read, changed)
    }
  }
  for (let length = 0; length < next.length; length++) agrees(read, next.slice(0, length))
  for (const more of [1, 2, 127, 300]) expect(agrees(read, Buffer.concat([next, Buffer.alloc(more)]))).toBe(false)
})

test('[F1] the same with several octets changed, cut and put in, and for a name beyond ASCII', async () => {
  const key = generateSigningKey().key
  const challenge = encodeAttribute('2a864886f70d010907', [Buffer.from('0c03616263', 'hex')])
  for (const [serial, attributes] of [
    ['SN-0001', []],
    ['SN-0001', [challenge]],
    ['SN-é-01', []],
  ] as [string, Bytes[]][]) {
    const csr = async (name: string): Promise<Bytes> => {
      const info = csrInfo(encodeName([{ oid: SERIAL_NUMBER, value: name }]), key.spki, attributes)
      return csrAssemble(info, key.algorithm, await key.sign(info))
    }
    const made = requestForm(parseCsr(await csr(serial)))
    const read = (der: Bytes): SignedRequest | null => made?.read(der) ?? null
    const next = Buffer.from(await csr(serial.replace('1', '2')))
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
