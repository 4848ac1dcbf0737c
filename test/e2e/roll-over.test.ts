// A roll-over as an operator does it: commands against a running server of several processes, whose devices go on enrolling and renewing.
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodePem, encodeBase64, parseCertificate, parseCertsOnly } from '@birthmark/device-sdk/core'
import mqtt from 'mqtt'
import { afterEach, expect, it } from 'vitest'
import { ensureTwoTier, writeChain } from '../../packages/birthmark/src/server-certificate.ts'
import { birthmark } from '../support/command.ts'
import { request } from '../support/devices.ts'
import { post } from '../support/raw-http.ts'
import { certificateIn, type Enrolled, pemsIn, prepareServing, type Serving } from '../support/serving.ts'

let s: Serving
afterEach(() => s.remove())

const ca = async (...args: string[]) => {
  const { code, json, stderr } = await birthmark('ca', ...args, '--dir', s.state, '--json')
  return {
    code,
    stderr,
    states: (json[0]?.issuers as { state: string; devices: number }[] | undefined)?.map(i => `${i.state} ${i.devices}`),
  }
}
/** Each worker looks once a second; whichever answers. */
async function until(what: () => Promise<boolean>): Promise<void> {
  for (let inRow = 0, i = 0; inRow < 5; i++) {
    if (i > 200) throw new Error('it did not come to that')
    inRow = (await what()) ? inRow + 1 : 0
    await new Promise(resolve => setTimeout(resolve, 100))
  }
}
const issuerOf = ({ certificate }: Enrolled) => /Acme (\d)/.exec(Buffer.from(certificate.issuer).toString('latin1'))?.[1]

async function cacerts(): Promise<number> {
  const connection = await s.connect()
  const answer = await connection.ask('GET /.well-known/est/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n')
  connection.close()
  return parseCertsOnly(Buffer.from(answer?.body ?? '', 'base64')).length
}

async function renew(device: string, { cert, key }: Enrolled): Promise<Enrolled | number> {
  const connection = await s.connect({ cert, key })
  const next = await request(device, parseCertificate(decodePem(cert, 'CERTIFICATE', 4)[0]).subject)
  const answer = await connection.ask(post('/.well-known/est/simplereenroll', encodeBase64(next.csr, 64)))
  connection.close()
  if (answer?.status !== 200) return answer?.status ?? 0
  return { certificate: certificateIn(answer), cert: pemsIn(answer), key: next.key, answer }
}

function connects(device: string, { cert, key }: Enrolled): Promise<boolean> {
  return new Promise(resolve => {
    const client = mqtt.connect(`mqtts://localhost:${s.mqttPort}`, {
      clientId: device,
      cert,
      key,
      ca: s.rootPem,
      reconnectPeriod: 0,
    })
    const done = (admitted: boolean) => {
      client.end(true)
      resolve(admitted)
    }
    client.once('connect', () => done(true))
    client.once('error', () => done(false))
    client.once('close', () => done(false))
  })
}

it('prepare, switch, retire: two workers and the broker follow, and each step is on record', async () => {
  s = await prepareServing(yaml =>
    yaml
      .replace(/^issuer: .*\n/m, 'issuer:\n  next: { certificate: issuer-2/chain.pem, key: issuer-2/issuing.key.pem }\n')
      .replace(/^log:/m, 'workers: 2\nlog:'),
  )
  const folder = join(s.folder, 'issuer-2')
  const { root, issuing } = await ensureTwoTier(folder, 'Acme 2', 'operational', randomBytes)
  writeChain(folder, { root, issuing: issuing.certificate })
  await s.start()

  expect((await ca('status')).states).toEqual(['signing 0'])
  const first = await s.enroll('gw-1')
  const lagging = await s.enroll('gw-2')
  expect([issuerOf(first), await cacerts()]).toEqual([undefined, 2])

  expect(await ca('switch')).toMatchObject({ code: 3, stderr: expect.stringContaining('no issuer is prepared') })
  expect(await ca('prepare')).toMatchObject({ code: 3, stderr: expect.stringContaining('nothing was changed') })
  expect((await ca('status')).states).toEqual(['signing 2'])
  expect(await ca('prepare', '--yes')).toMatchObject({ code: 0 })
  // The devices' folder names both roots from now on; cacerts follows within seconds in each worker.
  expect(decodePem(readFileSync(join(s.state, 'device', 'operational-ca.pem')), 'CERTIFICATE', 8)).toHaveLength(2)
  await until(async () => (await cacerts()) === 4)

  expect((await ca('switch', '--yes')).states).toEqual(expect.arrayContaining(['previous 2', 'signing 0']))
  // Whichever worker answers, it asks the store and is told.
  const later = await Promise.all(['gw-3', 'gw-4', 'gw-5', 'gw-6'].map(device => s.enroll(device)))
  expect(later.map(issuerOf)).toEqual(['2', '2', '2', '2'])
  expect(await ca('undo', '--yes')).toMatchObject({ code: 3, stderr: expect.stringContaining('forward only') })
  const renewed = (await renew('gw-1', first)) as Enrolled
  expect(issuerOf(renewed)).toBe('2')
  for (const identity of [renewed, first]) expect(await connects('gw-1', identity)).toBe(true)

  expect(await ca('retire', '--yes')).toMatchObject({ code: 3, stderr: expect.stringContaining('1 devices still hold') })
  expect(await ca('retire', '--yes', '--force')).toMatchObject({ code: 0 })
  expect(await connects('gw-2', lagging)).toBe(false)
  expect(await connects('gw-1', renewed)).toBe(true)
  await until(async () => (await renew('gw-2', lagging)) === 401)
}, 120_000)
