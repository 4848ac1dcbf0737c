// A board without TLS, on a noisy serial line to a gateway of ours, which carries its requests to a real server: examples/esp32-js's Espruino main on XS, and the same
// bytes on Duktape. The board's peripherals are simulated; gateway, server and their mutual TLS are not.
import { createHash, createPrivateKey } from 'node:crypto'
import { duplexPair } from 'node:stream'
import { type Bytes, concatBytes, decodePem, membershipOf, parseCertificate, spkiOfPoint } from '@birthmark/device-sdk/core'
import { createGateway, serveStream } from '@birthmark/device-sdk/gateway'
import { createIdentity } from '@birthmark/device-sdk/node'
import { p256 } from '@noble/curves/nist.js'
import { expect, it } from 'vitest'
import { gatewayBench } from '../support/gateway-bench.ts'
import { playOnDuktape } from './duktape.ts'
import { espruinoScript } from './example-bundle.ts'
import { type Asked, hexOf } from './recorded.ts'
import { boardTime, espruinoMain } from './simulated-boards.ts'
import { runOnXs, type XsQuestion } from './xs.ts'

/** The board, and what happens on it: what is due soon is run, then the line is heard; when it is silent, the device renews, once. It is in 1970. */
const board = (fleet: string, builtAt: number): string => `
var hear = null, renewed = false
${espruinoMain(
  true,
  `uptime: function () { return clock / 1000 },
  serial: { write: function (bytes) { lend('write', '', bytes) }, on: function (event, callback) { hear = callback } },
  openBus: function () { return { subscribe: function () { return true }, publish: function () { return true }, close: function () {} } },`,
  `fleet: '${fleet}',
    builtAt: ${builtAt},
    noticeSigners: [{ keyId: lend('given', 'keyId'), algorithm: -7, spki: lend('given', 'noticeSpki') }],
    telemetrySeconds: 3600,
    measure: function () { return 0 },`,
)}
for (var turn = 0; turn < 400; turn++) {
  tasks = tasks.filter(function (one) { return one.callback })
  var soon = tasks.filter(function (one) { return one.due - clock < 5000 })
  if (soon.length) {
    tasks.splice(tasks.indexOf(soon[0]), 1)
    soon[0].callback()
    continue
  }
  var bytes = lend('read', '')
  if (bytes) {
    var text = ''
    for (var i = 0; i < bytes.length; i++) text += String.fromCharCode(bytes[i])
    hear(text)
  } else if (renewed) break
  else {
    renewed = true
    agent.renew(function (error) { lend('say', 'renewed ' + (error ? error.code : 'well')) })
  }
}`

/** On the line before each answer: text, half a frame, an escape that is none. */
const noise = Buffer.from('boot ok\r\n\xc0\x85\x01\xdb\x00\xc0', 'latin1')

it('[F55] a board without TLS and without a clock enrolls and renews over a noisy serial line, by a gateway, on XS and Duktape', async () => {
  const bench = await gatewayBench({ gateways: ['role=gateway'] })
  const gatewayUnit = await bench.bear('gw-1', ['role=gateway'])
  const identity = createIdentity({ ...gatewayUnit, server: { url: bench.url }, trust: bench.trust })
  await identity.enroll()
  const gateway = createGateway({ identity, server: bench.url, trust: bench.trust.server })
  const [gatewayEnd, boardEnd] = duplexPair()
  serveStream(gateway, gatewayEnd)

  const unit = await bench.bear('meter-1', ['role=meter'])
  const { key } = unit.keys.tlsKey('birth') as { key: string }
  const secrets = new Map<string, Uint8Array>([
    ['0', new Uint8Array(Buffer.from(createPrivateKey(key).export({ format: 'jwk' }).d as string, 'base64url'))],
  ])
  const point = (slot: string) => p256.getPublicKey(secrets.get(slot) as Uint8Array, false)
  const [birthAnchor] = decodePem(bench.trust.birth, 'CERTIFICATE', 1)
  const birthChain = unit.store.get('birth.chain') as Bytes
  const { keyId, spki } = bench.timeSigner
  const given: Record<string, Bytes> = { birthAnchor, operationalAnchor: bench.operationalAnchors[0], keyId, noticeSpki: spki }
  const said: string[] = []
  const came: Buffer[] = []
  boardEnd.on('data', part => came.push(noise, part))
  let sent = 0
  let answered = 0
  const hosts: Record<string, (text: string, ...bytes: Bytes[]) => Promise<Uint8Array | null> | Uint8Array | null> = {
    factory: name => (name === 'birthmark/birth.chain' ? birthChain : null),
    given: name => given[name],
    say(line) {
      said.push(line)
      return null
    },
    generate(slot) {
      secrets.set(slot, p256.utils.randomSecretKey())
      return point(slot).subarray(1)
    },
    publicKey: slot => (secrets.has(slot) ? point(slot).subarray(1) : null),
    sign: (slot, digest) => p256.sign(digest, secrets.get(slot) as Uint8Array, { prehash: false }),
    verify: (_, key, digest, signature) =>
      p256.verify(signature, digest, concatBytes([Uint8Array.of(4), key]), { prehash: false, lowS: false })
        ? new Uint8Array(0)
        : null,
    sha256: (_, bytes) => createHash('sha256').update(bytes).digest(),
    write(_, bytes) {
      sent++
      boardEnd.write(bytes)
      return null
    },
    // At most 100 bytes at a time, as a UART's buffer gives them up; nothing once every request was answered.
    async read() {
      while (!came.length && answered < sent) await new Promise(resolve => setTimeout(resolve, 5))
      if (!came.length) return null
      const whole = Buffer.concat(came.splice(0))
      if (whole.length > 100) came.push(whole.subarray(100))
      else answered = sent
      return whole.subarray(0, 100)
    },
  }
  const transcript: Asked[] = []
  const main = await espruinoScript()
  const script = `${boardTime(0)}\n${main}\n${board(bench.fleet, Math.floor(Date.now() / 1000) - 86_400)}`
  await runOnXs(script, async ({ name, text, bytes }: XsQuestion) => {
    const answer = await hosts[name](text, ...bytes.map(part => new Uint8Array(part)))
    transcript.push([name, text, bytes.map(hexOf), answer && hexOf(answer)])
    return answer
  })
  expect(said).toEqual(['active 1', 'active 2', 'renewed well'])
  // By its own keys and in its own name, as the server has it on record.
  const record = await bench.device('meter-1')
  const birth = parseCertificate(birthChain)
  expect(hexOf(spkiOfPoint(point('0')))).toBe(hexOf(birth.spki))
  expect(record.gids).not.toEqual(membershipOf(parseCertificate(identity.chain()[0]))?.gids)
  expect(await bench.issued()).toBeGreaterThanOrEqual(3)
  identity.close()
  await bench.close()

  await playOnDuktape(script, transcript)
})
