// Certificate status from the configuration to the verdict: `birthmark serve` with a `status:` part, devices that enroll, one group revoked over the
// operator's socket, and openssl following the addresses that it finds in the certificates.

import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decodePem, encodePem } from '@birthmark/device-sdk/core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { CampaignView } from '../../packages/birthmark/src/campaign-administration.ts'
import { ensureTwoTier, writeChain } from '../../packages/birthmark/src/server-certificate.ts'
import { available, run } from '../interop/debian.ts'
import { birthmark } from '../support/command.ts'
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
    const next = 'issuer:\n  next: { certificate: issuer-2/chain.pem, key: issuer-2/issuing.key.pem }\n'
    serving = await prepareServing(yaml => yaml.replace(/^issuer: .*\n/m, next) + status)
    const second = join(serving.folder, 'issuer-2')
    const { root, issuing } = await ensureTwoTier(second, 'Acme 2', 'operational', randomBytes)
    writeChain(second, { root, issuing: issuing.certificate })
    await serving.start()
    await enroll('kept', 'batch=1')
    await enroll('lost', 'batch=2')
    await enroll('late', 'batch=3')
    await enroll('taken', 'batch=4')
  }, 60_000)
  afterAll(async () => {
    await serving?.remove()
    rmSync(folder, { recursive: true, force: true })
  })

  async function enroll(device: string, group: string): Promise<void> {
    const [leaf, issuer] = decodePem((await serving.enroll(device, [group])).cert, 'CERTIFICATE', 4)
    writeFileSync(join(folder, `${device}.pem`), encodePem('CERTIFICATE', leaf))
    writeFileSync(join(folder, `${device}.issuer.pem`), encodePem('CERTIFICATE', issuer))
  }

  const revoke = async (group: string) => {
    const why = ['--reason', 'lost in a tram', '--code', 'key-compromise', '--yes', '--dir', serving.state]
    expect((await birthmark('revoke', group, ...why)).code).toBe(0)
  }

  const addressOf = async (device: string, wanted: RegExp) =>
    wanted.exec(await openssl('x509', '-in', `${device}.pem`, '-noout', '-text'))?.[1] ?? ''

  async function byList(device: string): Promise<string> {
    const url = await addressOf(device, /URI:(\S+\.crl)/)
    await run('curl', ['-sS', '--fail', '-o', 'shard.der', url], { cwd: folder })
    await openssl('crl', '-inform', 'DER', '-in', 'shard.der', '-out', 'shard.pem')
    const trust = ['-CAfile', `${device}.issuer.pem`, '-partial_chain', '-CRLfile', 'shard.pem']
    return openssl('verify', '-crl_check', ...trust, '-purpose', 'sslclient', `${device}.pem`)
  }

  async function byOcsp(device: string): Promise<string> {
    const url = await addressOf(device, /OCSP - URI:(\S+)/)
    const trust = ['-issuer', `${device}.issuer.pem`, '-CAfile', `${device}.issuer.pem`, '-partial_chain']
    return openssl('ocsp', ...trust, '-cert', `${device}.pem`, '-url', url)
  }

  test('[RFC 5280 6.3, RFC 6960] both are good; after a revocation one is not, by list and by OCSP, at once', async () => {
    for (const device of ['kept', 'lost']) {
      expect(await byList(device)).toContain(`${device}.pem: OK`)
      expect(await byOcsp(device)).toMatch(
        new RegExp(`Response verify OK[\\s\\S]*${device}.pem: good|${device}.pem: good[\\s\\S]*Response verify OK`),
      )
    }
    await revoke('batch=2')
    expect(await byList('kept')).toContain('kept.pem: OK')
    expect(await byList('lost')).toContain('certificate revoked')
    expect(await byOcsp('kept')).toContain('kept.pem: good')
    const said = await byOcsp('lost')
    expect(said).toContain('lost.pem: revoked')
    expect(said).toContain('Reason: keyCompromise')
  })

  test('a campaign shows what openssl is told: the number and the date of the list, and revoked by OCSP', async () => {
    const { administration, state } = serving
    const asked = { select: 'id=taken', reason: 'lost in a bus', windowSeconds: 0, by: 'alice' }
    const { id, planSha256 } = await administration.planCampaign(asked)
    await administration.submitCampaign({ id, planSha256, by: 'alice', signature: null })
    const watched = await birthmark('revoke', 'watch', id, '--json', '--dir', state)
    expect(watched.code).toBe(0)
    const { standardConsumers: told } = (watched.json.at(-1) as unknown as CampaignView).stages
    if (told.kind !== 'seen') throw new Error(JSON.stringify(told))
    expect(told.proof).toMatchObject({ certificates: 1, listed: 1, lists: 1, read: 1, ocspRevoked: 1 })
    const [{ crlNumber, thisUpdate }] = told.proof.shown
    expect(await byList('taken')).toContain('certificate revoked')
    const list = await openssl('crl', '-in', 'shard.pem', '-noout', '-crlnumber', '-lastupdate')
    expect(Number.parseInt(/crlNumber=(?:0x)?([0-9A-F]+)/.exec(list)?.[1] ?? '', 16)).toBe(crlNumber)
    expect(Date.parse(/lastUpdate=(.*)/.exec(list)?.[1] ?? '')).toBe(thisUpdate * 1000)
    expect(await byOcsp('taken')).toContain('taken.pem: revoked')
    expect((await administration.campaignReceipt({ id })).body.standardConsumers).toEqual(told)
  })

  test('[RFC 5280 5] after a roll-over the former issuer still signs the lists and answers of what it issued, also of what is revoked later', async () => {
    for (const step of ['prepare', 'switch'])
      expect((await birthmark('ca', step, '--yes', '--dir', serving.state)).code, step).toBe(0)
    await enroll('new', 'batch=3')
    expect(await openssl('x509', '-in', 'new.pem', '-noout', '-issuer')).toContain('Acme 2')
    expect(await openssl('x509', '-in', 'late.pem', '-noout', '-issuer')).not.toContain('Acme 2')
    for (const device of ['late', 'new']) expect(await byList(device)).toContain(`${device}.pem: OK`)
    await revoke('batch=3')
    for (const device of ['late', 'new']) {
      expect(await byList(device)).toContain('certificate revoked')
      expect(await byOcsp(device)).toContain(`${device}.pem: revoked`)
    }
    expect(await byList('kept')).toContain('kept.pem: OK')
  })
})
