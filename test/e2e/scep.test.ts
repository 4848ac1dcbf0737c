// SCEP as an operator runs it: `birthmark serve` with two workers, challenges minted from a file, GetCRL, and a roll-over of CA and RA together; and
// with the RA's key in a token.

import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Bytes, decodePem, equalBytes, hexOf, parseCertificate, parseCertsOnly } from '@birthmark/device-sdk/core'
import { afterEach, expect, it } from 'vitest'
import { ensureTwoTier, writeChain } from '../../packages/birthmark/src/server-certificate.ts'
import { parseSigned } from '../../packages/est-server/src/wire/cms-signed.ts'
import { birthmark } from '../support/command.ts'
import { issuerAndSerial, readCertRep, scepCsr, scepMessage, selfSigned, signerOf } from '../support/scep-client.ts'
import { rsaKey } from '../support/scep-server.ts'
import { freePort, prepareServing, type Serving } from '../support/serving.ts'
import { softToken } from '../support/soft-token.ts'

let s: Serving
let url = ''
afterEach(() => s.remove())

async function get(operation: string): Promise<{ status: number; body: Bytes }> {
  const response = await fetch(`${url}?operation=${operation}`)
  return { status: response.status, body: new Uint8Array(await response.arrayBuffer()) }
}

/** Each worker looks once a second; whichever answers. */
async function until(what: () => Promise<boolean>): Promise<void> {
  for (let inRow = 0, i = 0; inRow < 5; i++) {
    if (i > 200) throw new Error('it did not come to that')
    inRow = (await what()) ? inRow + 1 : 0
    await new Promise(resolve => setTimeout(resolve, 100))
  }
}

const caCertificates = async () => parseCertsOnly((await get('GetCACert')).body)
const offered = async () =>
  Buffer.from((await get('GetCACaps')).body)
    .toString()
    .trim()
    .split('\n')

async function ask(messageType: string, content: Bytes, ra: Bytes, signer: ReturnType<typeof signerOf>) {
  const { issuer, serial, spki } = parseCertificate(ra)
  const { message } = scepMessage({ messageType, content, ra: { issuer, serial, spki }, signer })
  const answer = await fetch(`${url}?operation=PKIOperation`, { method: 'POST', body: Buffer.from(message) })
  return readCertRep(new Uint8Array(await answer.arrayBuffer()), ra, signer.privateKey)
}

async function enroll(id: string, challenge: string, ra: Bytes) {
  const key = rsaKey()
  const rep = await ask('19', scepCsr(key, id, challenge), ra, signerOf(selfSigned(key, id), key.privateKey))
  expect(rep.status, rep.failInfoText ?? '').toBe('success')
  const [certificate] = rep.certificates
  return { key, certificate, signer: signerOf(certificate, key.privateKey) }
}

it('two workers: challenges from a CSV, GetCRL, and the RA that rolls over with the CA', async () => {
  const [port, statusPort] = [await freePort(), await freePort()]
  url = `http://127.0.0.1:${port}/scep`
  const pair = (folder: string) => `certificate: ${folder}/ra.pem, key: ${folder}/ra.key.pem`
  s = await prepareServing(yaml =>
    yaml
      .replace(/^issuer: .*\n/m, 'issuer:\n  next: { certificate: issuer-2/chain.pem, key: issuer-2/issuing.key.pem }\n')
      .replace(
        /^log:/m,
        `workers: 2\nstatus: { url: 'http://status.acme.example', host: 127.0.0.1, port: ${statusPort} }\nscep: { host: 127.0.0.1, port: ${port}, ${pair('scep')} }\nlog:`,
      ),
  )
  const folder = join(s.folder, 'issuer-2')
  const { root, issuing } = await ensureTwoTier(folder, 'Acme 2', 'operational', randomBytes)
  writeChain(folder, { root, issuing: issuing.certificate })
  // The RA to come is made by a command, and named by the line that it prints.
  const made = await birthmark('ca', 'ra', join(s.folder, 'scep-2'), '--config', s.config)
  expect([made.code, made.stderr]).toEqual([0, ''])
  const [line] = /next: \{.*\}/.exec(made.stdout) ?? ['']
  expect(line).toBe('next: { certificate: scep-2/ra.pem, key: scep-2/ra.key.pem }')
  writeFileSync(s.config, readFileSync(s.config, 'utf8').replace(/^(scep: .*) \}$/m, `$1, ${line} }`))
  const program = await s.start()

  const units = join(s.folder, 'units.csv')
  writeFileSync(units, 'device,groups\nr-1,batch=1\nr-2,batch=1\nr-3,\n')
  const out = join(s.folder, 'challenges.csv')
  expect((await birthmark('challenge', 'mint', '--csv', units, '--out', out, '--dir', s.state)).code).toBe(0)
  const challenges = new Map(
    readFileSync(out, 'utf8')
      .trim()
      .split('\n')
      .map(line => line.split(',').slice(0, 2) as [string, string]),
  )
  const challengeOf = (id: string) => challenges.get(id) as string

  const [ra, issuer] = await caCertificates()
  const first = await enroll('r-1', challengeOf('r-1'), ra)
  expect(hexOf(parseCertificate(first.certificate).issuer)).toBe(hexOf(parseCertificate(issuer).subject))

  // GetCRL, before and after a revocation.
  const { serial } = parseCertificate(first.certificate)
  const second = await enroll('r-2', challengeOf('r-2'), ra)
  const wanted = issuerAndSerial(parseCertificate(issuer).subject, serial)
  const list = await ask('22', wanted, ra, second.signer)
  expect(list.status, list.failInfoText ?? '').toBe('success')
  // OpenSSL takes the list out, and it is the issuer's.
  const path = (name: string) => join(s.folder, name)
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: s.folder, encoding: 'utf8', stdio: 'pipe' })
  writeFileSync(path('list.p7'), list.content ?? '')
  writeFileSync(path('list.pem'), openssl('pkcs7', '-inform', 'DER', '-in', 'list.p7', '-print_certs'))
  openssl('crl', '-in', 'list.pem', '-CAfile', 'issuer/chain.pem', '-noout')
  const lists = (content: Bytes | null, number: Bytes) => Buffer.from(content ?? []).includes(Buffer.from(number))
  expect([lists(list.content, parseCertificate(issuer).subject), lists(list.content, serial)]).toEqual([true, false])
  const third = await enroll('r-3', challengeOf('r-3'), ra)
  expect((await birthmark('revoke', 'batch=1', '--reason', 'keys leaked', '--yes', '--dir', s.state)).code).toBe(0)
  await until(async () => {
    const rep = await ask('22', wanted, ra, third.signer)
    return rep.status === 'success' && lists(rep.content, serial)
  })

  // The roll-over: what is to come is shown, signed by the RA that clients know; then it stands.
  expect([(await get('GetNextCACert')).status, (await offered()).includes('GetNextCACert')]).toEqual([501, false])
  expect((await birthmark('ca', 'prepare', '--yes', '--dir', s.state)).code).toBe(0)
  await until(async () => (await offered()).includes('GetNextCACert'))
  const { status, body } = await get('GetNextCACert')
  const shown = parseSigned(body)
  writeFileSync(path('next.der'), body)
  openssl(
    'cms',
    '-verify',
    '-inform',
    'DER',
    '-in',
    'next.der',
    '-CAfile',
    'issuer/chain.pem',
    '-purpose',
    'any',
    '-binary',
    '-out',
    'next.p7',
  )
  expect(openssl('pkcs7', '-inform', 'DER', '-in', 'next.p7', '-print_certs').match(/subject=/g)).toHaveLength(3)
  expect([status, hexOf(shown.certificates[0])]).toEqual([200, hexOf(ra)])
  const [nextRa] = decodePem(readFileSync(join(s.folder, 'scep-2', 'ra.pem'), 'utf8'), 'CERTIFICATE', 1)
  const promised = parseCertsOnly(shown.content ?? new Uint8Array())
  expect(promised.map(hexOf)).toEqual([nextRa, issuing.certificate, root].map(hexOf))
  expect(hexOf((await caCertificates())[0])).toBe(hexOf(ra))

  expect((await birthmark('ca', 'switch', '--yes', '--dir', s.state)).code).toBe(0)
  await until(async () => equalBytes((await caCertificates())[0], nextRa))
  const later = await s.administration.mintChallenges({ rows: [{ device: 'r-4', groups: [] }], label: null, minutes: 60 })
  const fourth = await enroll('r-4', later.minted[0].challenge, nextRa)
  expect(hexOf(parseCertificate(fourth.certificate).issuer)).toBe(hexOf(parseCertificate(issuing.certificate).subject))
  // Who still holds the old RA and an old certificate renews with both.
  const renewed = await ask('17', scepCsr(rsaKey(), 'r-3', null), ra, third.signer)
  expect(renewed.status, renewed.failInfoText ?? '').toBe('success')
  expect(hexOf(parseCertificate(renewed.certificates[0]).issuer)).toBe(hexOf(parseCertificate(issuing.certificate).subject))

  // Then the new pair stands in the first place and the old one under previous: a client that never asked again is answered as before.
  await program.stop()
  const settled = `scep: { host: 127.0.0.1, port: ${port}, ${pair('scep-2')}, previous: [{ ${pair('scep')} }] }`
  writeFileSync(s.config, readFileSync(s.config, 'utf8').replace(/^scep: .*$/m, settled))
  await s.start()
  expect(hexOf((await caCertificates())[0])).toBe(hexOf(nextRa))
  const last = await s.administration.mintChallenges({ rows: [{ device: 'r-5', groups: [] }], label: null, minutes: 60 })
  await enroll('r-5', last.minted[0].challenge, ra)
}, 120_000)

it('serve with the RA in a token: a challenge from the shell, and an enrollment', async () => {
  const token = softToken()
  try {
    const port = await freePort()
    url = `http://127.0.0.1:${port}/scep`
    const pkcs11 = `{ library: ${token.library}, token: { label: ${token.label} }, key: { label: scep }, pin: { file: ${token.pinFile} } }`
    s = await prepareServing(yaml =>
      yaml.replace(/^log:/m, `scep: { host: 127.0.0.1, port: ${port}, certificate: scep/ra.pem, pkcs11: ${pkcs11} }\nlog:`),
    )
    token.importKey(readFileSync(join(s.folder, 'scep', 'ra.key.pem'), 'utf8'), 'scep', '02')
    rmSync(join(s.folder, 'scep', 'ra.key.pem'))
    await s.start()
    const minted = await birthmark('challenge', 'mint', 'hsm-1', '--dir', s.state, '--json')
    const [ra] = await caCertificates()
    const { certificate } = await enroll('hsm-1', String(minted.json[0].challenge), ra)
    expect(Buffer.from(parseCertificate(certificate).subject).includes('hsm-1')).toBe(true)
    expect(token.logins()).toBeGreaterThan(0)
  } finally {
    await s.remove()
    token.remove()
  }
}, 60_000)
