// Certificate status from the configuration to the verdict: `birthmark serve` with a `status:` part, devices that enroll, one group revoked over the
// operator's socket, and openssl following the addresses that it finds in the certificates.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decodePem, encodePem } from '@birthmark/device-sdk/core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { available, run } from '../interop/debian.ts'
import { freePort, prepareServing, type Serving } from '../support/serving.ts'

describe.skipIf(!available({ openssl: 'openssl', curl: 'curl' }))('birthmark serve with status on', () => {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-e2e-status-'))
  let serving: Serving
  const openssl = async (...args: string[]) => {
    try {
      const { stdout, stderr } = await run('openssl', args, { cwd: folder })
      return `${stdout}${stderr}`
    } catch (error) {
      return String(error)
    }
  }

  beforeAll(async () => {
    const port = await freePort()
    const status = `\nstatus:\n  url: http://127.0.0.1:${port}\n  host: 127.0.0.1\n  port: ${port}\n`
    serving = await prepareServing(yaml => yaml + status)
    await serving.start()
    for (const [device, group] of [
      ['kept', 'batch=1'],
      ['lost', 'batch=2'],
    ]) {
      const [leaf, issuer] = decodePem((await serving.enroll(device, [group])).cert, 'CERTIFICATE', 4)
      writeFileSync(join(folder, `${device}.pem`), encodePem('CERTIFICATE', leaf))
      writeFileSync(join(folder, 'issuer.pem'), encodePem('CERTIFICATE', issuer))
    }
  }, 60_000)
  afterAll(async () => {
    await serving?.remove()
    rmSync(folder, { recursive: true, force: true })
  })

  const addressOf = async (device: string, wanted: RegExp) =>
    wanted.exec(await openssl('x509', '-in', `${device}.pem`, '-noout', '-text'))?.[1] ?? ''

  async function byList(device: string): Promise<string> {
    const url = await addressOf(device, /URI:(\S+\.crl)/)
    await run('curl', ['-sS', '--fail', '-o', 'shard.der', url], { cwd: folder })
    await openssl('crl', '-inform', 'DER', '-in', 'shard.der', '-out', 'shard.pem')
    const trust = ['-CAfile', 'issuer.pem', '-partial_chain', '-CRLfile', 'shard.pem']
    return openssl('verify', '-crl_check', ...trust, '-purpose', 'sslclient', `${device}.pem`)
  }

  async function byOcsp(device: string): Promise<string> {
    const url = await addressOf(device, /OCSP - URI:(\S+)/)
    const trust = ['-issuer', 'issuer.pem', '-CAfile', 'issuer.pem', '-partial_chain']
    return openssl('ocsp', ...trust, '-cert', `${device}.pem`, '-url', url)
  }

  test('[RFC 5280 6.3, RFC 6960] both are good; after a revocation one is not, by list and by OCSP, at once', async () => {
    for (const device of ['kept', 'lost']) {
      expect(await byList(device)).toContain(`${device}.pem: OK`)
      expect(await byOcsp(device)).toMatch(
        new RegExp(`Response verify OK[^]*${device}.pem: good|${device}.pem: good[^]*Response verify OK`),
      )
    }
    const { digest } = await serving.administration.planRevocation('batch=2')
    await serving.administration.revoke({ group: 'batch=2', digest, reason: 'lost in a tram' })
    expect(await byList('kept')).toContain('kept.pem: OK')
    expect(await byList('lost')).toContain('certificate revoked')
    expect(await byOcsp('kept')).toContain('kept.pem: good')
    expect(await byOcsp('lost')).toContain('lost.pem: revoked')
  })
})
