import { generateKeyPairSync } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { type TestAuthority, testAuthority } from '../testing/authority.ts'
import { encodeBase64 } from './base64.ts'
import { type Bytes, utf8Bytes } from './bytes.ts'
import { encodeCertsOnly } from './cms.ts'
import { COMMON_NAME, encodeName } from './distinguished-name.ts'
import { codeOf } from './errors.ts'
import { judgeCacerts, judgeEnroll } from './est-response.ts'

const root = testAuthority('Root')
const issuer = root.subordinate('Issuer')

function spki(): Bytes {
  return new Uint8Array(generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'der' }))
}

function leafFor(key: Bytes, authority: TestAuthority = issuer): Bytes {
  const subject = encodeName([{ oid: COMMON_NAME, value: 'dev-1' }])
  return authority.issue({ profile: 'client', subject, spki: key, notBefore: 1767225600, notAfter: 1798761600 })
}

function answer(status: number, body: Bytes | string, headers: Record<string, string> = {}) {
  return { status, headers, body: typeof body === 'string' ? utf8Bytes(body) : body }
}

const certsOnly = (
  certificates: Bytes[],
  headers: Record<string, string> = { 'content-type': 'application/pkcs7-mime; smime-type=certs-only' },
) => answer(200, encodeBase64(encodeCertsOnly(certificates), 64), headers)

function codeThrown(f: () => unknown): string | null {
  try {
    f()
  } catch (error) {
    return codeOf(error)
  }
  return 'nothing thrown'
}

describe('a 200', () => {
  it('[RFC 7030 4.2.3] gives the certificate for our key first, wherever the server put it', () => {
    const key = spki()
    const leaf = leafFor(key)
    for (const certificates of [[leaf, issuer.certificate], [issuer.certificate, leaf], [leaf]]) {
      const verdict = judgeEnroll(certsOnly(certificates), key)
      if (verdict.kind !== 'issued') throw new Error(verdict.kind)
      expect(verdict.certificates[0].der).toEqual(leaf)
      expect(verdict.certificates).toHaveLength(certificates.length)
    }
  })

  it('[F58] for another key is a mismatch, and so is a bag without a leaf', () => {
    expect(codeThrown(() => judgeEnroll(certsOnly([leafFor(spki()), issuer.certificate]), spki()))).toBe('est_certificate_mismatch')
    expect(codeThrown(() => judgeEnroll(certsOnly([issuer.certificate]), spki()))).toBe('est_certificate_mismatch')
  })

  it('[F58] with an empty PKCS#7, no base64, truncated DER or HTML is malformed', () => {
    const type = { 'content-type': 'application/pkcs7-mime' }
    expect(codeThrown(() => judgeEnroll(certsOnly([]), spki()))).toBe('est_response_malformed')
    expect(codeThrown(() => judgeCacerts(certsOnly([])))).toBe('est_response_malformed')
    expect(codeThrown(() => judgeCacerts(answer(200, 'no base64!', type)))).toBe('base64_malformed')
    expect(codeThrown(() => judgeCacerts(answer(200, 'MIIBIjANBgkq', type)))).toBe('der_malformed')
    expect(codeThrown(() => judgeCacerts(answer(200, '<html>Log in</html>', { 'content-type': 'text/html' })))).toBe(
      'est_response_malformed',
    )
    expect(codeThrown(() => judgeCacerts(answer(200, '')))).toBe('est_response_malformed')
  })

  it('[F58] longer than any chain is refused before it is decoded in full', () => {
    const type = { 'content-type': 'application/pkcs7-mime' }
    expect(codeThrown(() => judgeCacerts(answer(200, 'A'.repeat(400_000), type)))).toBe('base64_malformed')
  })

  it('[F6] with a content encoding is refused, never undone', () => {
    const key = spki()
    const good = certsOnly([leafFor(key)])
    for (const encoding of ['gzip', 'br', 'deflate', 'identity, gzip'])
      expect(
        codeThrown(() => judgeEnroll({ ...good, headers: { ...good.headers, 'content-encoding': encoding } }, key)),
        encoding,
      ).toBe('est_response_malformed')
    expect(judgeEnroll({ ...good, headers: { ...good.headers, 'content-encoding': 'identity' } }, key).kind).toBe('issued')
  })

  it('takes the content type with or without parameters, in any case', () => {
    for (const type of ['application/pkcs7-mime', 'Application/PKCS7-Mime ; smime-type="certs-only"'])
      expect(judgeCacerts(certsOnly([root.certificate], { 'content-type': type })).kind).toBe('issued')
    for (const type of ['application/pkcs7-mimes', 'application/pkcs7-signature', 'text/plain; application/pkcs7-mime'])
      expect(codeThrown(() => judgeCacerts(certsOnly([root.certificate], { 'content-type': type })))).toBe('est_response_malformed')
  })
})

describe('any other status', () => {
  const seconds = (retryAfter: string | undefined, now?: number) => {
    const verdict = judgeEnroll(answer(202, '', retryAfter === undefined ? {} : { 'retry-after': retryAfter }), spki(), now)
    return verdict.kind === 'issued' ? Number.NaN : verdict.retryAfterSeconds
  }

  it('[RFC 7030 4.2.3] 202 is pending for Retry-After seconds, a second to a day', () => {
    expect(judgeEnroll(answer(202, ''), spki()).kind).toBe('pending')
    expect(seconds('30')).toBe(30)
    expect(seconds('0')).toBe(1)
    expect(seconds('99999999999999999999')).toBe(86400)
    for (const odd of [undefined, '', '-5', '1e9', '3.5', 'soon', '0x10', '１２']) expect(seconds(odd), String(odd)).toBe(60)
  })

  it('[RFC 9110 10.2.3] a Retry-After date counts from a trusted clock, and is the default without one', () => {
    const date = 'Sun, 22 Nov 2026 16:30:00 GMT'
    const at = Date.parse(date) / 1000
    expect(seconds(date, at - 90)).toBe(90)
    expect(seconds(date, at + 90)).toBe(1)
    expect(seconds(date, 5)).toBe(86400)
    expect(seconds(date, -1)).toBe(60)
    expect(seconds(date)).toBe(60)
    expect(seconds('No, 99 Nope 2026 99:99:99 GMT', at)).toBe(60)
  })

  it('names the outcome by its status', () => {
    const kinds: Record<number, string> = { 401: 'unauthorized', 429: 'unavailable', 500: 'unavailable', 503: 'unavailable' }
    for (const status of [204, 301, 302, 307, 308, 400, 401, 403, 404, 415, 429, 500, 503])
      expect(judgeCacerts(answer(status, 'x', { location: 'https://elsewhere.example/' })).kind, String(status)).toBe(
        kinds[status] ?? 'refused',
      )
  })

  it('quotes at most 200 printable characters of the body', () => {
    const body = utf8Bytes(`group_revoked: \u001b[2J\r\nbatch ☃ ${'x'.repeat(1000)}`)
    const verdict = judgeEnroll(answer(403, body), spki())
    if (verdict.kind === 'issued') throw new Error(verdict.kind)
    expect(verdict.detail).toMatch(/^403 group_revoked: [ -~]+$/)
    expect(verdict.detail.length).toBeLessThanOrEqual(204)
  })
})
