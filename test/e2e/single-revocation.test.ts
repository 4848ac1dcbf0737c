// Single devices taken back on a server as operators run it: by the command, refused and cut at once, proven to a peer over the broker under a
// published root, the same after the server was killed, and admitted again.

import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodePem, membershipOf, parseSign1 } from '@birthmark/device-sdk/core'
import { decodeSnapshotBody, httpsGet, nodeSha256, nodeVerify, noticeKeyId } from '@birthmark/fleet-revocation'
import { connectMqttBus } from '@birthmark/fleet-revocation/broker'
import { createDeviceReceiver } from '@birthmark/fleet-revocation/device'
import { expect, it } from 'vitest'
import { quietLog } from '../../packages/fleet-revocation/src/testing/memory-bus.ts'
import { until } from '../support/broker.ts'
import { birthmark } from '../support/command.ts'
import { type Enrolled, prepareServing } from '../support/serving.ts'

it('[F44] [F54] a device is revoked by id, a peer proves it in 560 bytes, a restart forgets nothing, and it may come back', {
  timeout: 120_000,
}, async () => {
  const serving = await prepareServing()
  let program = await serving.start()
  const enrolled: Record<string, Enrolled> = {}
  for (const id of ['dev-a', 'dev-b', 'dev-c']) enrolled[id] = await serving.enroll(id, ['batch=1'])
  const idxOf = (id: string) => membershipOf(enrolled[id].certificate)!.idx
  const command = (...args: string[]) => birthmark(...args, '--dir', serving.state, '--json')

  const rehearsed = await command('revoke', '--device', 'dev-a', '--device', 'nobody', '--reason', 'stolen', '--dry-run')
  expect(rehearsed.json[0]).toMatchObject({ plan: { devices: 1, certificates: 1, unknown: ['nobody'] } })
  expect(await command('revoke', '--device', 'dev-a', '--reason', 'stolen')).toMatchObject({ code: 3 })
  expect((await command('revoke', '--device', 'dev-a', '--idx', '1', '--reason', 'both')).code).toBe(2)
  const done = await command('revoke', '--device', 'dev-a', '--reason', 'stolen', '--yes')
  expect(done).toMatchObject({ code: 0, json: [{ devices: 1, certificates: 1, again: false, done: { seq: 2, notices: 1 } }] })
  await expect(serving.enroll('dev-a', ['batch=1'])).rejects.toThrow('403')

  const spki = decodePem(readFileSync(join(serving.state, 'device', 'notice-key.pem'), 'utf8'), 'PUBLIC KEY', 4)[0]
  const signers = [{ keyId: noticeKeyId(spki), algorithm: -7, spki }]

  /** What dev-b comes to know about the others, from the broker alone. */
  async function asked(): Promise<Record<string, string | null>> {
    const bus = connectMqttBus({
      ...{ url: `mqtts://localhost:${serving.mqttPort}`, clientId: 'dev-b', log: quietLog },
      tls: { ca: [serving.rootPem], cert: enrolled['dev-b'].cert, key: enrolled['dev-b'].key },
    })
    await new Promise<void>(resolve => bus.onConnect(resolve))
    let record: Uint8Array | null = null
    const receiver = createDeviceReceiver({
      ...{ fleet: 'acme', signers, verify: nodeVerify(), membership: () => membershipOf(enrolled['dev-b'].certificate) },
      store: {
        get: () => record,
        put(_name, value) {
          record = value
        },
      },
    })
    const out: Record<string, string | null> = {}
    const take = (topic: string, payload: Uint8Array) => receiver.receive(topic, payload, () => {})
    await bus.subscribe('fr/1/acme/head', take)
    await bus.subscribe('fr/1/acme/rsp/dev-b', take)
    for (const id of ['dev-a', 'dev-c']) {
      const deadline = Date.now() + 45_000
      // Until the root that holds the revocation is published, there is nothing to prove it by.
      for (;;) {
        const question = receiver.ask('dev-b', new Uint8Array(randomBytes(16)), idxOf(id))
        const before = receiver.answered()
        await bus.publish(question.topic, question.payload, { qos: 1, retain: false })
        await until(() => receiver.answered() !== before, 'an answer')
        const proof = receiver.answered()?.proof ?? null
        out[id] = proof && receiver.peerStatus(proof, idxOf(id), nodeSha256)
        if (out[id] !== null || Date.now() > deadline) {
          expect(proof?.length).toBeLessThanOrEqual(560)
          break
        }
        await new Promise(resolve => setTimeout(resolve, 500))
      }
    }
    expect(receiver.revoked()).toBe(false)
    await bus.close()
    return out
  }
  expect(await asked()).toEqual({ 'dev-a': 'revoked', 'dev-c': 'good' })

  // Killed: rules, root and snapshot are those of the store.
  await program.stop('SIGKILL')
  program = await serving.start()
  expect(await asked()).toEqual({ 'dev-a': 'revoked', 'dev-c': 'good' })
  await expect(serving.enroll('dev-a', ['batch=1'])).rejects.toThrow('403')
  const get = httpsGet({ url: `https://localhost:${serving.port}`, tls: { ca: [serving.rootPem] } })
  const snapshot = (await get('/.well-known/fr/1/acme/snap/0', 65_536)) ?? new Uint8Array(0)
  const body = decodeSnapshotBody(parseSign1(snapshot).payload)
  expect(body).toMatchObject({ rules: [{ kind: 'range', start: idxOf('dev-a'), length: 1 }] })

  expect(await command('readmit', 'dev-a', '--reason', 'found again')).toMatchObject({ code: 0 })
  expect(await command('readmit', 'dev-a', '--reason', 'found again')).toMatchObject({ code: 3 })
  const again = await serving.enroll('dev-a', ['batch=1'])
  expect(membershipOf(again.certificate)!.idx).toBeGreaterThan(idxOf('dev-c'))
  await serving.remove()
})
