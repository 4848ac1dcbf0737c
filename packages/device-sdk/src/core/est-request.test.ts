import { describe, expect, it } from 'vitest'
import { codeOf } from './errors.ts'
import { cacertsRequest, enrollRequest } from './est-request.ts'

const bodyOf = (request: { body: Uint8Array | null }) => Buffer.from(request.body ?? []).toString()

describe('EST requests', () => {
  const csr = new Uint8Array(100).fill(7)

  it('[RFC 7030 4.2.1] posts base64 PKCS#10 in lines of 64 with its length', () => {
    const request = enrollRequest(csr, { label: null, reenroll: false, basic: null })
    expect(request.method).toBe('POST')
    expect(request.path).toBe('/.well-known/est/simpleenroll')
    expect(request.headers['content-type']).toBe('application/pkcs10')
    expect(request.headers.accept).toBe('application/pkcs7-mime')
    expect(request.headers['content-transfer-encoding']).toBeUndefined()
    const lines = bodyOf(request).trim().split('\n')
    expect(lines.slice(0, -1).every(line => line.length === 64)).toBe(true)
    expect(Buffer.from(lines.join(''), 'base64')).toEqual(Buffer.from(csr))
  })

  it('[RFC 7030 3.2.2] puts the label between the well-known prefix and the operation', () => {
    expect(cacertsRequest('gateways').path).toBe('/.well-known/est/gateways/cacerts')
    expect(enrollRequest(csr, { label: 'gateways', reenroll: true, basic: null }).path).toBe(
      '/.well-known/est/gateways/simplereenroll',
    )
  })

  it('a label that is no path segment leads nowhere', () => {
    for (const label of ['', '.', '..', '../admin', 'a/b', 'a%2Fb', 'a b', 'é', 'x'.repeat(65), 'a?b', 'a\r\nHost: x']) {
      let code: string | null = null
      try {
        cacertsRequest(label)
      } catch (error) {
        code = codeOf(error)
      }
      expect(code, label).toBe('est_refused')
    }
  })

  it('[RFC 7030 3.2.3] sends Basic credentials only when told to', () => {
    expect(enrollRequest(csr, { label: null, reenroll: false, basic: null }).headers.authorization).toBeUndefined()
    const { headers } = enrollRequest(csr, { label: null, reenroll: false, basic: { user: 'dev-1', password: 'π:secret' } })
    expect(headers.authorization).toBe(`Basic ${Buffer.from('dev-1:π:secret').toString('base64')}`)
  })
})
