// What is revoked otherwise than by group, as openssl sees it the moment after: in the list of its shard and from the responder.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { encodePem, membershipOf, parseCertificate } from '@birthmark/device-sdk/core'
import {
  createOcspResponder,
  createRevocation,
  createRevocationLists,
  createStatusListener,
  createStatusRoutes,
  issuerName,
} from '@birthmark/est-server'
import { describe, expect, it } from 'vitest'
import { listCoder } from '../../packages/birthmark/src/recorded-rules.ts'
import { csrFor, fleet, issuedBy, kernel, nameOf, testKey } from '../../packages/est-server/src/testing/kernel.ts'
import { available, run } from './debian.ts'

const log = { info() {}, warn() {}, error: (_: object, message: string) => void console.error(message) }

describe.skipIf(!available({ openssl: 'openssl' }))('single revocations, judged by openssl', () => {
  it('[RFC 5280 5, RFC 6960] [F46] lists, ranges, floors and issuers are in the shard and in OCSP at once', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'birthmark-single-'))
    const k = await kernel({ issuer: real => ({ ...real, statusUrl: 'http://status.acme.example' }) })
    // openssl judges by the machine's clock.
    k.clock.at = Math.floor(Date.now() / 1000)
    const parts = { store: k.store, issuers: [k.issuer], clock: k.clock, log }
    const lists = createRevocationLists({ ...parts, lifetimeSeconds: 86_400, folder: join(k.folder, 'crl') })
    const ocsp = createOcspResponder({ ...parts, lifetimeSeconds: 3600 })
    const listener = createStatusListener({ answer: createStatusRoutes({ lists, ocsp, prefix: '', clock: k.clock }), log })
    const { port } = await listener.listen('127.0.0.1', 0)
    const openssl = (...args: string[]) =>
      run('openssl', args, { cwd: folder }).then(
        ({ stdout, stderr }) => `${stdout}${stderr}`,
        error => String(error),
      )
    const ids = ['one', 'two', 'three', 'four', 'five']
    const idx: Record<string, number> = {}
    for (const id of ids) {
      const device = await k.device(id)
      const certificate = issuedBy(await k.enroll(device.peer(), csrFor(testKey(), nameOf(id))))
      idx[id] = membershipOf(parseCertificate(certificate))!.idx
      writeFileSync(join(folder, `${id}.pem`), encodePem('CERTIFICATE', certificate))
    }
    writeFileSync(join(folder, 'ca.pem'), k.ca.pem)

    /** Which of them both ways call revoked. */
    async function revoked(): Promise<string[]> {
      const given = await lists.shard(issuerName(k.issuer.keyId), fleet, 0)
      if (given.kind !== 'list') throw new Error(JSON.stringify(given))
      writeFileSync(join(folder, 'crl.pem'), encodePem('X509 CRL', given.list.der))
      const asked = ids.flatMap(id => ['-cert', `${id}.pem`])
      const told = await openssl(
        ...['ocsp', '-issuer', 'ca.pem', '-CAfile', 'ca.pem', '-no_nonce', '-url', `http://127.0.0.1:${port}/ocsp`, ...asked],
      )
      expect(told).toContain('Response verify OK')
      const out: string[] = []
      for (const id of ids) {
        const verdict = await openssl('verify', '-crl_check', '-CAfile', 'ca.pem', '-CRLfile', 'crl.pem', `${id}.pem`)
        const isRevoked = verdict.includes('certificate revoked')
        expect(verdict.includes(`${id}.pem: OK`)).toBe(!isRevoked)
        expect(told).toContain(`${id}.pem: ${isRevoked ? 'revoked' : 'good'}`)
        if (isRevoked) out.push(id)
      }
      return out
    }

    const signNotice = async ({ seq }: { seq: number }) => ({ notice: Buffer.from(`${seq}`), sha256: Buffer.alloc(32, seq) })
    const revocation = createRevocation({ store: k.store, fleet, signNotice, coder: listCoder, clock: k.clock, log })
    const by = 'test'
    expect(await revoked()).toEqual([])
    await revocation.revokeDevices({ devices: ['four'], reason: 1, by })
    expect(await revoked()).toEqual(['four'])
    const dated = await openssl('crl', '-in', 'crl.pem', '-noout', '-text')
    expect(dated).toContain('Key Compromise')
    await revocation.revokeRange({ start: idx.two, length: 1, by })
    expect(await revoked()).toEqual(['two', 'four'])
    await revocation.raiseFloor({ floor: idx.three, by })
    expect(await revoked()).toEqual(['one', 'two', 'four'])
    await revocation.revokeIssuer({ issuer: k.issuer.keyId, by })
    expect(await revoked()).toEqual(ids)
    const full = await lists.full(issuerName(k.issuer.keyId))
    expect(full.kind).toBe('list')

    await listener.close(0)
    await lists.close()
    await k.remove()
    rmSync(folder, { recursive: true })
  })
})
