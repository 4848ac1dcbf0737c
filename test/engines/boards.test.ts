// The mains of examples/esp32-js, with simulated peripherals: Moddable's on XS, Espruino's on XS and, byte for byte the same, on Duktape.
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { type ModdableCrypto, moddableKeys, preferenceStore } from '@birthmark/device-sdk/moddable'
import type { Plugin } from 'esbuild'
import { expect, it } from 'vitest'
import { boardStart, startBoardWorld } from './board-world.ts'
import { playOnDuktape } from './duktape.ts'
import { espruinoScript, example, exampleBundle } from './example-bundle.ts'
import { type Asked, hexOf } from './recorded.ts'
import { boardTime, espruinoBoard, moddableModules, moddableNetwork } from './simulated-boards.ts'
import { runOnXs } from './xs.ts'

const simulation = (modules: Record<string, string>): Plugin => ({
  name: 'simulated-peripherals',
  setup(bundler) {
    bundler.onResolve({ filter: /^[a-z/-]+$/ }, ({ path }) => (modules[path] ? { path, namespace: 'simulated' } : undefined))
    bundler.onResolve({ filter: /^birthmark$/ }, () => ({ path: join(example, 'moddable/birthmark.js') }))
    bundler.onLoad({ filter: /.*/, namespace: 'simulated' }, ({ path }) => ({ contents: modules[path], loader: 'js' }))
  },
})

/** Turns of a board's event loop; its whole story takes some forty. */
const turnsMax = 300

const wholeLife = ['active 1', 'connected 1', 'published', 'active 2', 'connected 2', 'published', 'revoked by notice']
const wholeSight = (id: string): string[] => [
  'POST simpleenroll as birth',
  'GET cacerts as operational',
  `session of ${id} as operational`,
  'subscribes fr/1/acme/head 1',
  `publishes devices/${id}/telemetry {"seq":0,"value":T}`,
  'POST simplereenroll as operational',
  'GET cacerts as operational',
  `session of ${id} as operational`,
  'subscribes fr/1/acme/head 1',
  `publishes devices/${id}/telemetry {"seq":0,"value":T}`,
]
/** Telemetry goes on and on. */
const withoutRepeats = (lines: string[]): string[] => lines.filter((line, at) => line !== lines[at - 1])

it('Moddable’s main on XS: birth, enrollment, session and telemetry by the operational key, renewal, another session, a notice, the end', async () => {
  const world = await startBoardWorld('board-1', 'der')
  const { keyId, noticeSpki, birthAnchor, operationalAnchor, serverAnchor } = world.furnished
  const fleet = {
    fleet: 'acme',
    est: { host: 'est', port: 8443 },
    mqtt: { host: 'broker', port: 8883 },
    builtAt: boardStart - 86_400,
    serverAnchors: [hexOf(serverAnchor)],
    birthAnchors: [hexOf(birthAnchor)],
    operationalAnchors: [hexOf(operationalAnchor)],
    noticeSigners: [{ keyId: hexOf(keyId), algorithm: -7, spki: hexOf(noticeSpki) }],
  }
  const main = await exampleBundle("import './moddable/main.js'", [simulation(moddableModules(fleet))])
  await runOnXs(`${boardTime(boardStart)}${moddableNetwork}\n;${main}\nrunTasks(${turnsMax})`, world.answer)
  await world.close()
  expect(withoutRepeats(world.said)).toEqual(wholeLife)
  expect(withoutRepeats(world.seen)).toEqual(wholeSight('board-1'))
  // One signature a CSR, one a connection that shows a certificate: no secret number is ever used twice.
  expect(world.secrets.size).toBe(world.seen.filter(line => /^GET|^session/.test(line)).length + 2 * 2)
})

it('a chip whose source gives the same octet over and over makes no key, and a full medium is no success', () => {
  const crypto = { entropy: (length: number) => new ArrayBuffer(length) } as ModdableCrypto
  const codes: unknown[] = []
  const full = { set() {}, get: () => undefined, delete() {} }
  moddableKeys(crypto, full).generate('op-0', error => codes.push(error?.code))
  moddableKeys({ ...crypto, entropy: length => new Uint8Array(randomBytes(length)).buffer }, full).generate('op-0', error =>
    codes.push(error?.code),
  )
  expect(codes).toEqual(['random_unavailable', 'store_write'])
  expect(() => preferenceStore(full).put('op-0', new Uint8Array(3))).toThrow('store_write')
})

it.each([true, false])('Espruino’s main on XS and Duktape, with a secure element: %s', async element => {
  const world = await startBoardWorld('board-2', 'compact')
  const transcript: Asked[] = []
  const main = await espruinoScript()
  const script = `${boardTime(boardStart)}\n${main}\n${espruinoBoard(element)}\nrunTasks(${turnsMax})`
  await runOnXs(script, async question => {
    const answer = await world.answer(question)
    transcript.push([question.name, question.text, question.bytes.map(hexOf), answer && hexOf(answer)])
    return answer
  })
  await world.close()
  // What the line does not take the first time is asked for again with the next telemetry.
  const [active, connected, ...life] = wholeLife
  const [post, get, session, subscribes, publishes, ...sight] = wholeSight('board-2')
  expect(withoutRepeats(world.said)).toEqual(
    element ? [active, connected, 'failed to subscribe', ...life] : ['failed random_unavailable'],
  )
  expect(withoutRepeats(world.seen)).toEqual(element ? [post, get, session, publishes, subscribes, publishes, ...sight] : [])

  await playOnDuktape(script, transcript)
})
