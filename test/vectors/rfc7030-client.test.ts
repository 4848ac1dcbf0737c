// The SDK's EST client judged by messages that nobody here wrote: the examples of RFC 7030 appendix A.
import { readFileSync } from 'node:fs'
import {
  anchorOf,
  type Certificate,
  type DeviceErrorCode,
  defaultAlgorithms,
  encodeBase64,
  enrollRequest,
  judgeCacerts,
  judgeEnroll,
  nameText,
  parseCsr,
  utf8Bytes,
  validatePath,
} from '@birthmark/device-sdk/core'
import { nodeVerify } from '@birthmark/device-sdk/node'
import { describe, expect, it } from 'vitest'
import { vectorFile } from './folder.ts'

const files = ['cacertsResponse.der', 'serverSimpleEnrolResponse.der', 'clientSimpleEnrol.der'].map(name =>
  vectorFile('rfc7030', name),
)

describe.runIf(files.every(Boolean))('RFC 7030 appendix A', () => {
  const [cacerts, enrolled, csrDer] = files.map(file => (file ? new Uint8Array(readFileSync(file)) : new Uint8Array(0)))
  const answer = (der: Uint8Array, lineLength: number) => ({
    status: 200,
    // As printed in A.1 and A.3, header for header.
    headers: {
      status: '200 OK',
      'content-type': 'application/pkcs7-mime; smime-type=certs-only',
      'content-transfer-encoding': 'base64',
    },
    body: utf8Bytes(encodeBase64(der, lineLength)),
  })
  const issued = (verdict: ReturnType<typeof judgeCacerts>): Certificate[] => {
    if (verdict.kind !== 'issued') throw new Error(verdict.kind)
    return verdict.certificates
  }
  const validate = (leaf: Certificate, others: Certificate[], algorithms: string[]) =>
    new Promise<DeviceErrorCode | string[]>(resolve => {
      const anchors = others.filter(one => nameText(one.subject) === 'CN=estExampleCA NwN').map(anchorOf)
      // 2013-09-01, within the lifetime of the example.
      const rules = { anchors, time: 1377993600, algorithms, purpose: null, understoodCritical: [], depthMax: 4, signaturesMax: 8 }
      validatePath(leaf, others, rules, nodeVerify, (error, path) =>
        resolve(error ? error.code : (path ?? []).map(one => nameText(one.subject))),
      )
    })

  it('[RFC 7030 A.1] /cacerts: both roots and the two links between them, however the base64 is wrapped', () => {
    for (const lineLength of [0, 64, 76]) {
      const names = issued(judgeCacerts(answer(cacerts, lineLength))).map(
        one => `${nameText(one.issuer)} > ${nameText(one.subject)}`,
      )
      expect(names).toEqual([
        'CN=estExampleCA OwO > CN=estExampleCA OwO',
        'CN=estExampleCA OwO > CN=estExampleCA NwO',
        'CN=estExampleCA NwN > CN=estExampleCA OwN',
        'CN=estExampleCA NwN > CN=estExampleCA NwN',
      ])
    }
  })

  it('[RFC 7030 A.3] /simpleenroll: the certificate is bound to the key of the example request', async () => {
    const csr = parseCsr(csrDer)
    const request = enrollRequest(csr.der, { label: null, reenroll: false, basic: null })
    expect(Buffer.from(Buffer.from(request.body ?? []).toString(), 'base64')).toEqual(Buffer.from(csrDer))
    const [leaf] = issued(judgeEnroll(answer(enrolled, 64), csr.spki))
    expect(nameText(leaf.subject)).toBe('CN=demostep4 1368141352')
    const others = issued(judgeCacerts(answer(cacerts, 64)))
    expect(await validate(leaf, others, ['rsa-pkcs1-sha1'])).toEqual(['CN=demostep4 1368141352', 'CN=estExampleCA NwN'])
    expect(await validate(leaf, others, defaultAlgorithms)).toBe('path_algorithm')
  })

  it('[F58] the same answer is a mismatch for anybody else', () => {
    const stranger = issued(judgeCacerts(answer(cacerts, 64)))[0].spki
    expect(() => judgeEnroll(answer(enrolled, 64), stranger)).toThrow('est_certificate_mismatch')
  })
})
