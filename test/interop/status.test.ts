// Certificate status as programs see it that nobody here wrote: `openssl verify -crl_check`, `openssl crl`, `openssl ocsp`, curl.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Bytes, encodePem, hexOf, parseCertificate } from '@birthmark/device-sdk/core'
import { testAuthority } from '@birthmark/device-sdk/testing'
import {
  createOcspResponder,
  createRevocationLists,
  createStatusListener,
  createStatusRoutes,
  delegatedSigner,
  issuerName,
  type OcspResponder,
  type RevocationLists,
  type StatusListener,
} from '@birthmark/est-server'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { csrFor, issuedBy, type Kernel, kernel, nameOf, testKey } from '../../packages/est-server/src/testing/kernel.ts'
import { available, run } from './debian.ts'

const day = 86_400

describe.skipIf(!available({ openssl: 'openssl', curl: 'curl' }))('certificate status, judged by openssl', () => {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-status-'))
  const file = (name: string) => join(folder, name)
  const openssl = async (...args: string[]) => {
    try {
      const { stdout, stderr } = await run('openssl', args, { cwd: folder })
      return `${stdout}${stderr}`
    } catch (error) {
      return String(error)
    }
  }
  const curl = async (...args: string[]) => (await run('curl', ['-sS', ...args], { cwd: folder })).stdout
  let k: Kernel
  let lists: RevocationLists
  let ocsp: OcspResponder
  let listener: StatusListener
  let url: string
  let prefix: string
  const certificates: Record<string, Bytes> = {}

  const serve = async (more: Partial<Parameters<typeof createOcspResponder>[0]> = {}) => {
    ocsp = createOcspResponder({ ...{ store: k.store, issuers: [k.issuer], lifetimeSeconds: 3600, clock: k.clock, log }, ...more })
    const answer = createStatusRoutes({ lists, ocsp, prefix: '', clock: k.clock })
    const opened = createStatusListener({ answer, log })
    return { opened, port: (await opened.listen('127.0.0.1', 0)).port }
  }
  const log = { info() {}, warn() {}, error: (_: object, message: string) => void console.error(message) }

  beforeAll(async () => {
    // openssl judges by the machine's clock.
    k = await kernel({ issuer: real => ({ ...real, statusUrl: 'http://status.acme.example' }) })
    k.clock.at = Math.floor(Date.now() / 1000)
    lists = createRevocationLists({
      ...{ store: k.store, issuers: [k.issuer], lifetimeSeconds: day, folder: join(k.folder, 'crl'), clock: k.clock, log },
    })
    const served = await serve()
    listener = served.opened
    url = `http://127.0.0.1:${served.port}`
    prefix = `${url}/crl/${issuerName(k.issuer.keyId)}`
    for (const [id, group] of [
      ['good', 'batch=1'],
      ['revoked', 'batch=2'],
    ]) {
      const device = await k.device(id, [group])
      certificates[id] = issuedBy(await k.enroll(device.peer(), csrFor(testKey(), nameOf(id))))
      writeFileSync(file(`${id}.pem`), encodePem('CERTIFICATE', certificates[id]))
    }
    // Of the same CA, and nothing this server knows of.
    const stranger = { subject: nameOf('unknown'), spki: testKey().spki }
    const unknown = k.ca.issue({ profile: 'client', ...stranger, notBefore: k.clock.at - 60, notAfter: k.clock.at + day })
    writeFileSync(file('unknown.pem'), encodePem('CERTIFICATE', unknown))
    writeFileSync(file('ca.pem'), k.ca.pem)
    await k.revocation.revokeGroup({ group: 'batch=2', reason: 1, by: 'test' })
  })
  afterAll(async () => {
    await listener.close(0)
    await lists.close()
    await k.remove()
    rmSync(folder, { recursive: true })
  })

  it('[RFC 5280 4.2.1.13, 4.2.2.1] finds the addresses in the certificate', async () => {
    const text = await openssl('x509', '-in', 'good.pem', '-noout', '-text')
    expect(text).toContain(`URI:http://status.acme.example/crl/${issuerName(k.issuer.keyId)}/meters/0.crl`)
    expect(text).toContain('OCSP - URI:http://status.acme.example/ocsp')
  })

  it('[RFC 5280 5] reads the list of a shard, and verifies by it', async () => {
    await curl('-o', 'shard.crl', '--fail', `${prefix}/meters/0.crl`)
    const text = await openssl('crl', '-inform', 'DER', '-in', 'shard.crl', '-noout', '-text', '-CAfile', 'ca.pem')
    expect(text).toContain('verify OK')
    expect(text).toMatch(/X509v3 CRL Number: \n\s+1/)
    expect(text).toMatch(
      /X509v3 Issuing Distribution Point: critical\n\s+Full Name:\n\s+URI:http:\/\/status.acme.example\/crl\/.*\/meters\/0.crl\s+Only User Certificates/,
    )
    expect(text).toContain(`Serial Number: ${hexOf(parseCertificate(certificates.revoked).serial).toUpperCase()}`)
    expect(text).toContain('Key Compromise')
    expect(text.match(/Serial Number/g)).toHaveLength(1)
    await openssl('crl', '-inform', 'DER', '-in', 'shard.crl', '-out', 'shard.pem')
    const verify = (name: string, crl: string) =>
      openssl('verify', '-crl_check', '-CAfile', 'ca.pem', '-CRLfile', crl, '-purpose', 'sslclient', `${name}.pem`)
    expect(await verify('good', 'shard.pem')).toContain('good.pem: OK')
    expect(await verify('revoked', 'shard.pem')).toContain('certificate revoked')
    await curl('-o', 'full.crl', '--fail', `${prefix}.crl`)
    expect(await openssl('crl', '-inform', 'DER', '-in', 'full.crl', '-noout', '-text', '-CAfile', 'ca.pem')).toContain('verify OK')
    await openssl('crl', '-inform', 'DER', '-in', 'full.crl', '-out', 'full.pem')
    expect(await verify('good', 'full.pem')).toContain('good.pem: OK')
    expect(await verify('revoked', 'full.pem')).toContain('certificate revoked')
  })

  it('[RFC 5280 6.3.3] does not take the list of one shard for another’s', async () => {
    const other = k.issuer
    // Without the distribution point's name a list of shard 0 would pass for any certificate.
    const moved = createRevocationLists({
      ...{
        store: k.store,
        issuers: [{ ...other, statusUrl: 'http://elsewhere.example' }],
        lifetimeSeconds: day,
        clock: k.clock,
        log,
      },
      folder: join(k.folder, 'moved'),
    })
    const given = await moved.shard(issuerName(other.keyId), 'meters', 0)
    if (given.kind !== 'list') throw new Error(JSON.stringify(given))
    writeFileSync(file('moved.pem'), encodePem('X509 CRL', given.list.der))
    const verdict = await openssl('verify', '-crl_check', '-CAfile', 'ca.pem', '-CRLfile', 'moved.pem', 'good.pem')
    expect(verdict).toMatch(/Different CRL scope|unable to get certificate CRL/i)
    await moved.close()
  })

  it.each([['-sha1'], ['-sha256']])('[RFC 6960] answers good, revoked and unknown by POST, CertID %s', async digest => {
    const names = ['good', 'revoked', 'unknown']
    const ask = names.flatMap(name => ['-cert', `${name}.pem`])
    for (const nonce of ['-nonce', '-no_nonce']) {
      const text = await openssl('ocsp', digest, '-issuer', 'ca.pem', '-CAfile', 'ca.pem', nonce, '-url', `${url}/ocsp`, ...ask)
      expect(text).toContain('Response verify OK')
      expect(text).not.toContain('WARNING')
      expect(text).toContain('good.pem: good')
      expect(text).toMatch(/revoked.pem: revoked\n.*\n.*\n\s+Reason: keyCompromise\n\s+Revocation Time: /)
      expect(text).toContain('unknown.pem: unknown')
    }
  })

  it('[RFC 6960 A.1] answers by GET, escaped or not, and caches may keep it', async () => {
    await openssl('ocsp', '-sha256', '-issuer', 'ca.pem', '-no_nonce', '-cert', 'revoked.pem', '-reqout', 'request.der')
    const base64 = readFileSync(file('request.der')).toString('base64')
    for (const text of [base64, encodeURIComponent(base64), base64.replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '')]) {
      await curl('-o', 'response.der', '-D', 'headers', '--fail', '--path-as-is', `${url}/ocsp/${text}`)
      const verdict = await openssl(
        'ocsp',
        '-reqin',
        'request.der',
        '-respin',
        'response.der',
        '-issuer',
        'ca.pem',
        '-CAfile',
        'ca.pem',
        '-resp_text',
      )
      expect(verdict).toContain('Response verify OK')
      expect(verdict).toContain('Cert Status: revoked')
    }
    const headers = readFileSync(file('headers'), 'utf8').toLowerCase()
    expect(headers).toContain('content-type: application/ocsp-response')
    expect(headers).toMatch(/cache-control: public, max-age=300, must-revalidate/)
    const etag = /etag: (.*)\r/.exec(headers)?.[1] ?? ''
    expect(await curl('-o', '/dev/null', '-w', '%{http_code}', '-H', `If-None-Match: ${etag}`, `${url}/ocsp/${base64}`)).toBe('304')
    const tag = /etag: (.*)\r/i.exec(await curl('-I', `${prefix}/meters/0.crl`))?.[1] ?? ''
    expect(tag).toMatch(/^"crl-\d+"$/)
    expect(await curl('-o', '/dev/null', '-w', '%{http_code}', '-I', `${prefix}/meters/0.crl`)).toBe('200')
    expect(await curl('-o', '/dev/null', '-w', '%{http_code}', '-H', `If-None-Match: ${tag}`, `${prefix}/meters/0.crl`)).toBe('304')
    for (const path of ['/crl/x/meters/0.crl', '/crl/', '/', '/crl/0000000000000000/meters/0.crl', '/../crl', '/ocspx'])
      expect(await curl('-o', '/dev/null', '-w', '%{http_code}', '--path-as-is', `${url}${path}`), path).toBe('404')
    expect(await curl('-o', '/dev/null', '-w', '%{http_code}', '-X', 'PUT', `${prefix}.crl`)).toBe('405')
    expect(await curl('-o', '/dev/null', '-w', '%{http_code}', '-d', 'x', `${url}/ocsp`)).toBe('415')
    const big = ['-H', 'Content-Type: application/ocsp-request', '--data-binary', 'x'.repeat(9000)]
    expect(await curl('-o', '/dev/null', '-w', '%{http_code}', ...big, `${url}/ocsp`)).toBe('413')
  })

  it('[RFC 6960 4.2.2.2] believes a responder that the issuer appointed', async () => {
    writeFileSync(file('ca.key'), k.ca.privateKeyPem, { mode: 0o600 })
    writeFileSync(file('responder.ext'), 'extendedKeyUsage=critical,OCSPSigning\nnoCheck=ignored\nkeyUsage=digitalSignature\n')
    const p256 = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
    await openssl('req', '-new', ...p256, '-keyout', 'responder.key', '-out', 'responder.csr', '-subj', '/CN=Responder')
    const sign = ['x509', '-req', '-in', 'responder.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2']
    await openssl(...sign, '-extfile', 'responder.ext', '-out', 'responder.pem')
    const text = (name: string) => readFileSync(file(name), 'utf8')
    const appoint = (certificate: string) =>
      delegatedSigner({ certificate: text(certificate), privateKeyPem: text('responder.key'), issuer: k.issuer })
    const { opened, port } = await serve({ delegate: () => appoint('responder.pem') })
    const asked = ['-issuer', 'ca.pem', '-CAfile', 'ca.pem', '-url', `http://127.0.0.1:${port}/ocsp`, '-cert', 'revoked.pem']
    const verdict = await openssl('ocsp', ...asked, '-resp_text')
    expect(verdict).toContain('Response verify OK')
    expect(verdict).toContain('revoked.pem: revoked')
    expect(verdict).toMatch(/Subject: CN ?= ?Responder/)
    await opened.close(0)
    // Anything less is refused at the start, not by every client.
    writeFileSync(file('plain.ext'), 'extendedKeyUsage=clientAuth\n')
    await openssl(...sign, '-extfile', 'plain.ext', '-out', 'plain.pem')
    expect(() => appoint('plain.pem')).toThrow(/not for OCSP signing/)
    const strange = testAuthority('Operational CA')
    writeFileSync(file('strange.key'), strange.privateKeyPem)
    writeFileSync(file('strange.pem'), strange.pem)
    await openssl(...sign.map(a => a.replace(/^ca\./, 'strange.')), '-extfile', 'responder.ext', '-out', 'theirs.pem')
    expect(() => appoint('theirs.pem')).toThrow(/not signed by the issuer itself/)
    writeFileSync(file('nocheck.ext'), 'extendedKeyUsage=OCSPSigning\n')
    await openssl(...sign, '-extfile', 'nocheck.ext', '-out', 'checked.pem')
    expect(() => appoint('checked.pem')).toThrow(/no ocsp-nocheck/)
  })
})
