// `birthmark sim fleet` against a server in use: its devices come to batches that are there already.

import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { birthmark } from '../support/command.ts'
import { prepareServing, type Serving } from '../support/serving.ts'

let serving: Serving
const line = () => join(serving.folder, 'factory')

beforeAll(async () => {
  serving = await prepareServing()
  expect((await birthmark('line', 'init', '--dir', line(), '--organization', 'Acme')).code).toBe(0)
  copyFileSync(join(line(), 'root.pem'), join(serving.folder, 'birth-anchors.pem'))
  await serving.start()
}, 60_000)
afterAll(() => serving.remove())

test('it joins a batch that is more than one person may take back, and passes one over that was taken back', async () => {
  for (let i = 0; i < 30; i++) await serving.enroll(`a-${i}`, ['batch=sim-a'])
  await expect(serving.administration.planRevocation('batch=sim-a')).rejects.toMatchObject({ code: 'too_many_at_once' })
  await serving.enroll('b-0', ['batch=sim-b'])
  const { digest } = await serving.administration.planRevocation('batch=sim-b')
  await serving.administration.revoke({ group: 'batch=sim-b', digest, reason: 'test' })
  const servers = ['--est', `https://localhost:${serving.port}`, '--mqtt', `mqtts://localhost:${serving.mqttPort}`]
  const simulated = [
    'sim',
    'fleet',
    '--count',
    '2',
    '--seconds',
    '1',
    '--dir',
    serving.state,
    '--line',
    line(),
    ...servers,
    '--json',
  ]
  const { code, json } = await birthmark(...simulated)
  expect(json.find(one => one.event === 'ready')).toMatchObject({ enrolled: 2, groups: ['batch=sim-a', 'batch=sim-c'] })
  expect(code).toBe(0)
}, 60_000)
