// Profiles as an operator and a device meet them: labels of one server, a person who decides, and the explanation of a refusal, through the real
// listener and the real command.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { encodeBase64, encodePem, nameText } from '@birthmark/device-sdk/core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { birthmark } from '../support/command.ts'
import { request } from '../support/devices.ts'
import { post, type RawAnswer } from '../support/raw-http.ts'
import { certificateIn, pemsIn, prepareServing, type Serving } from '../support/serving.ts'

let server: Serving
beforeAll(async () => {
  server = await prepareServing(
    yaml => `${yaml}
profiles:
  - label: null
  - label: gateways
    admit: { secrets: true }
    certificate:
      subject: ["CN={id}", O=Acme, "OU={model}"]
      names: ["dns:{id}.gateways.acme.example"]
      purposes: [serverAuth]
      lifetime: 30d
    renewal: { window: 50% }
    approval: first
`,
  )
  await server.start()
}, 60_000)
afterAll(() => server?.remove())

const path = (operation: string, label: string | null) => `/.well-known/est/${label === null ? '' : `${label}/`}${operation}`

/** A device with a secret, a key and its CSR. */
async function device(id: string, groups: string[] = []) {
  const { device: user, secret } = await server.administration.mintSecret({ device: id, groups, minutes: 60 })
  const { csr, key } = await request(id)
  const basic = { Authorization: `Basic ${Buffer.from(`${user}:${secret}`).toString('base64')}` }
  const file = join(server.folder, `${id}.csr`)
  writeFileSync(file, encodePem('CERTIFICATE REQUEST', csr))
  const ask = async (label: string | null): Promise<RawAnswer | null> => {
    const connection = await server.connect()
    const answer = await connection.ask(post(path('simpleenroll', label), encodeBase64(csr, 64), basic))
    connection.close()
    return answer
  }
  return { id, key, file, ask }
}
const command = (...args: string[]) => birthmark(...args, '--dir', server.state)

test('[RFC 7030 4.2.3] a waiting device is answered 202 with Retry-After until a person has decided; the same CSR again is the poll', async () => {
  const gateway = await device('gw-1', ['model=gw-7'])
  const first = await gateway.ask('gateways')
  expect(first).toMatchObject({ status: 202, headers: { 'retry-after': '30' } })
  expect(await gateway.ask('gateways')).toMatchObject({ status: 202 })

  const waiting = await command('approvals', 'list', '--json')
  expect(waiting.json).toMatchObject([
    {
      device: 'gw-1',
      label: 'gateways',
      operation: 'enroll',
      state: 'waiting',
      summary: 'OU=gw-7,O=Acme,CN=gw-1, DNS gw-1.gateways.acme.example; P-256 key',
    },
  ])
  const { id } = waiting.json[0]
  const approved = await command('approvals', 'approve', String(id), '--by', 'alice', '--json')
  expect(approved.json).toMatchObject([{ id, state: 'approved', decidedBy: 'alice, at the local socket' }])

  const answer = await gateway.ask('gateways')
  expect(answer?.status).toBe(200)
  const certificate = certificateIn(answer as RawAnswer)
  expect(nameText(certificate.subject)).toBe('OU=gw-7,O=Acme,CN=gw-1')
  expect(certificate.extendedKeyUsage).toEqual(['2b06010505070302', '2b06010505070301'])
  // Lost on the way: asked once more, it is the same one.
  expect(certificateIn((await gateway.ask('gateways')) as RawAnswer).der).toEqual(certificate.der)

  // Half of its life has not passed, and another label never admitted it.
  const { csr, key } = await request('gw-1')
  const current = { cert: pemsIn(answer as RawAnswer), key: gateway.key }
  const renewing = async (label: string | null) => {
    const connection = await server.connect(current)
    const body = encodeBase64(csr, 64)
    const said = await connection.ask(post(path('simplereenroll', label), body))
    connection.close()
    return said
  }
  expect(key).not.toBe(gateway.key)
  expect((await renewing(null))?.body).toMatch(/^certificate_of_other_profile: .*\(rule renewal.labels\)/)
  // The subject of the CSR has to be the current one, which comes first.
  expect((await renewing('gateways'))?.body).toMatch(/^subject_changed: .*\(rule renewal.name\)/)
}, 60_000)

test('denied, the device is told by whom and why', async () => {
  const gateway = await device('gw-2', ['model=gw-7'])
  expect((await gateway.ask('gateways'))?.status).toBe(202)
  const [{ id }] = (await server.administration.approvals({ state: 'waiting', limit: 10 })).approvals
  expect(await command('approvals', 'deny', String(id), '--by', 'bob', '--reason', 'stolen')).toMatchObject({ code: 0 })
  const refused = await gateway.ask('gateways')
  expect(refused?.status).toBe(403)
  expect(refused?.body).toMatch(
    /^approval_denied: bob, at the local socket denied this request of device gw-2: stolen \(rule approval\)\nNext: /,
  )
  expect(await command('approvals', 'approve', '999')).toMatchObject({
    code: 3,
    stderr: expect.stringContaining('approval_unknown'),
  })
}, 60_000)

test('explain says rule by rule what would happen, and the refusal on the wire names the same rule', async () => {
  const sensor = await device('s-1')
  const open = await command('profile', 'explain', sensor.file, '--secret-of', 's-1')
  expect(open).toMatchObject({ code: 0 })
  for (const part of ['✔ label', '✔ certificate.template', 's-1 would get it', 'Taken for granted', 'valid'])
    expect(open.stdout).toContain(part)

  // In no group model=…, which the names of the label need.
  const explained = await command('profile', 'explain', sensor.file, '--secret-of', 's-1', '--label', 'gateways', '--json')
  expect(explained.code).toBe(1)
  expect(explained.json[0]).toMatchObject({
    device: 's-1',
    verdict: { kind: 'refuse', rule: 'certificate.template', code: 'name_not_possible' },
    certificate: null,
  })
  const answer = await sensor.ask('gateways')
  expect(answer?.body).toMatch(
    /^name_not_possible: device s-1 is in no group model=… \(rule certificate.template\)|^name_not_possible: /,
  )
  expect(answer?.body).toContain('(rule certificate.template)')

  const waits = await command(
    'profile',
    'explain',
    (await device('gw-3', ['model=gw-7'])).file,
    '--secret-of',
    'gw-3',
    '--label',
    'gateways',
  )
  expect(waits).toMatchObject({ code: 1, stderr: expect.stringContaining('would_wait') })
  expect(waits.stdout).toContain('OU=gw-7,O=Acme,CN=gw-3')

  expect(await command('profile', 'explain', sensor.file)).toMatchObject({ code: 2 })
  const certificate = join(server.folder, 's-1.pem')
  writeFileSync(certificate, pemsIn((await sensor.ask(null)) as RawAnswer))
  const renewal = await command('profile', 'explain', sensor.file, '--operational', certificate, '--json')
  expect(renewal.json[0]).toMatchObject({ operation: 'reenroll', verdict: { rule: 'renewal.name' } })
}, 60_000)

test('profiles are listed, and a file of them is judged without a server', async () => {
  const listed = await command('profile', 'list', '--json')
  expect(listed.json).toMatchObject([
    { label: null, approval: 'none', admitSecrets: true },
    { label: 'gateways', subject: ['CN={id}', 'O=Acme', 'OU={model}'], purposes: ['clientAuth', 'serverAuth'], approval: 'first' },
  ])
  const check = async (text: string) => {
    const file = join(server.folder, 'profile.yaml')
    writeFileSync(file, text)
    return birthmark('profile', 'check', file)
  }
  const sound = await check('label: open\nadmit: { birth: { manifest: false } }\ncertificate: { names: ["dns:gw.example"] }\n')
  expect(sound).toMatchObject({ code: 0 })
  expect(sound.stdout).toContain('caution      every device')
  expect(sound.stdout).toContain('it lacks {id}')
  const broken = await check('label: open\nrenewal:\n  window: half\n')
  expect(broken).toMatchObject({ code: 2, stderr: expect.stringContaining('profile.yaml:3: renewal.window is like 50%') })
  expect(await birthmark('profile', 'check', server.config)).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('2 profiles, sound'),
  })
}, 60_000)
