import { generateKeyPairSync } from 'node:crypto'
import {
  CHALLENGE_PASSWORD,
  csrAssemble,
  csrInfo,
  encodeAttribute,
  encodeElement,
  encodeSequence,
  parseCsr,
  utf8Bytes,
} from '@birthmark/device-sdk/core'
import { expect, test } from 'vitest'
import { withoutChallenge } from './scep-challenge.ts'

const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
const spki = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
const challenge = encodeAttribute(CHALLENGE_PASSWORD, [encodeElement(0x0c, [utf8Bytes('hunter2')])])

test('what is kept of a CSR has no challenge and the algorithm that it named, also one that is none of ours', () => {
  const der = csrAssemble(csrInfo(encodeSequence([]), spki, [challenge]), 'rsa-pkcs1-sha256', new Uint8Array(256))
  // md5WithRSAEncryption, 1.2.840.113549.1.1.4, in the place of 1.1.11.
  const oid = Buffer.from(der).lastIndexOf(Buffer.from('2a864886f70d01010b', 'hex'))
  const old = Uint8Array.from(der)
  old[oid + 8] = 4
  for (const asked of [parseCsr(der), parseCsr(old)]) {
    const kept = parseCsr(withoutChallenge(asked))
    expect(kept).toMatchObject({ attributes: [], spki: asked.spki, signatureAlgorithm: asked.signatureAlgorithm })
    expect(Buffer.from(kept.der).includes('hunter2')).toBe(false)
  }
  expect(parseCsr(old).signatureAlgorithm).toBe('')
})
