import { describe, expect, it } from 'vitest'
import { madeCertificate } from '../testing/made-certificate.ts'
import { type Bytes, bytesOfHex, hexOf } from './bytes.ts'
import { cmsCertificatesMax, encodeCertsOnly, parseCertsOnly } from './cms.ts'
import { codeOf } from './errors.ts'

function outcome(der: Bytes): string | number | null {
  try {
    return parseCertsOnly(der).length
  } catch (error) {
    return codeOf(error)
  }
}

/** SignedData of hex parts, lengths of one octet. */
function message(version: string, digests: string, content: string, rest: string): Bytes {
  const wrap = (tag: string, hex: string) => tag + (hex.length / 2).toString(16).padStart(2, '0') + hex
  const data = wrap('30', version + digests + content + rest)
  return bytesOfHex(wrap('30', '06092a864886f70d010702' + wrap('a0', data)))
}

const v1 = '020101'
const none = '3100'
const data = '300b06092a864886f70d010701'

describe('certs-only CMS', () => {
  it('[RFC 5652 5.2] gives back what was put in, in order', () => {
    const certificates = ['b', 'a'].map(subject => madeCertificate({ subject }))
    expect(parseCertsOnly(encodeCertsOnly(certificates)).map(hexOf)).toEqual(certificates.map(hexOf))
    expect(parseCertsOnly(encodeCertsOnly([]))).toEqual([])
  })

  it('tolerates CRLs, digest algorithms and the absence of certificates', () => {
    expect(outcome(message(v1, none, data, none))).toBe(0)
    expect(outcome(message(v1, none, data, 'a100' + none))).toBe(0)
    expect(outcome(message('020103', '3102' + '3000', data, 'a0023000' + none))).toBe(1)
  })

  it('[F2] is nothing but certificates: no signer, no content, no attribute certificate, no other type, no order of its own', () => {
    expect(outcome(message(v1, none, data, '31023000'))).toBe('cms_malformed')
    expect(outcome(message(v1, none, '300f' + data.slice(4) + 'a0020400', none))).toBe('cms_malformed')
    expect(outcome(message(v1, none, '300b06092a864886f70d010702', none))).toBe('cms_malformed')
    expect(outcome(message(v1, none, data, 'a002a100' + none))).toBe('der_malformed')
    expect(outcome(message(v1, none, data, none + 'a0023000'))).not.toBe(1)
    expect(outcome(message(v1, none, data, ''))).toBe('der_malformed')
    expect(outcome(message('0400', none, data, none))).toBe('der_malformed')
    expect(outcome(bytesOfHex('300d06092a864886f70d010701a000'))).toBe('der_malformed')
  })

  it('[F1] bounds the certificates', () => {
    const one = bytesOfHex('3000')
    expect(outcome(encodeCertsOnly(new Array(cmsCertificatesMax).fill(one)))).toBe(cmsCertificatesMax)
    expect(outcome(encodeCertsOnly(new Array(cmsCertificatesMax + 1).fill(one)))).toBe('der_limit')
  })
})
