// One run of story.ts on Node with real keys and a real EST server, and the same as a script that any engine can be given.
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { runInNewContext } from 'node:vm'
import { type Bytes, defaultAlgorithms } from '@birthmark/device-sdk/core'
import { memoryKeys, memoryStore, nodeHash, nodeRng, nodeVerify } from '@birthmark/device-sdk/node'
import { startTestEst } from '@birthmark/device-sdk/testing'
import { build } from 'esbuild'
import { createTestHistory } from '../../packages/fleet-revocation/src/testing/history.ts'
import { createTestNoticeKey } from '../../packages/fleet-revocation/src/testing/notice-key.ts'
import { deviceScript, entries, minifiedBundle } from '../../tools/device-bundle.ts'
import type { Bundles, Given, Lend, startStory } from './story.ts'

const hex = (bytes: Bytes): string => Buffer.from(bytes).toString('hex')
const unhex = (text: string): Bytes => new Uint8Array(Buffer.from(text, 'hex'))
const spkiOf = (key: KeyObject): Bytes => new Uint8Array(key.export({ type: 'spki', format: 'der' }))

export interface Recorded {
  /** What the story says on Node. */
  lines: string[]
  /** What every engine is given first: the device's script as flashed, and the notice receiver's. */
  bundles: string
  /** Plays the story to the engine and leaves its lines, joined, in the global `told`; throws where the engine asks for anything else. */
  replay: string
}

async function storyScript(): Promise<string> {
  const { outputFiles } = await build({
    // Not as an export: esbuild's helpers for those are no ES5.
    stdin: {
      contents: "import { startStory } from './story.ts'\nglobalThis.startStory = startStory",
      resolveDir: import.meta.dirname,
      loader: 'js',
    },
    bundle: true,
    format: 'iife',
    target: 'es2020',
    write: false,
    logLevel: 'silent',
  })
  return outputFiles[0].text
}

export async function recordStory(): Promise<Recorded> {
  const bundles = [
    await deviceScript(),
    'globalThis.lent = { createAgent: birthmark.createAgent };',
    await minifiedBundle({ [entries.receiver]: ['createDeviceReceiver'] }),
    'lent.createDeviceReceiver = birthmark.createDeviceReceiver;',
  ].join('\n')
  const script = await storyScript()

  const now = Date.UTC(2026, 10, 22) / 1000
  const est = await startTestEst({ now: () => now })
  est.fail('simpleenroll', { fault: 'wrong-ca' }, { fault: 'lost-reply' })
  const born = { keys: memoryKeys(), store: memoryStore() }
  await est.bear('unit-7', born)
  const noticeKey = createTestNoticeKey()
  const history = createTestHistory(noticeKey)
  await history.add([{ kind: 'group', gid: 7, bound: 10 }])
  await history.add([{ kind: 'group', gid: 9, bound: 11 }])
  const given: Given = {
    now,
    birthChain: hex(born.store.get('birth.chain') as Bytes),
    birthAnchor: hex(est.authorities.birth.certificate),
    algorithms: defaultAlgorithms,
    signer: { keyId: hex(noticeKey.keyId), algorithm: noticeKey.algorithm, spki: hex(noticeKey.signer.spki) },
    notices: history.notices.map(({ notice }) => hex(notice)),
  }

  const keys = new Map<string, { privateKey: KeyObject; publicKey: KeyObject }>()
  let birthSpki = ''
  born.keys.publicKey('birth', (_, spki) => {
    birthSpki = hex(spki as Bytes)
  })
  const hosts: Record<string, (argument: string) => string> = {
    sha256: bytes => hex(nodeHash.sha256(unhex(bytes))),
    verify(argument) {
      const [spki, algorithm, message, signature] = argument.split(' ')
      let verdict = ''
      nodeVerify.verify(unhex(spki), algorithm, unhex(message), unhex(signature), good => {
        verdict = good ? 'good' : 'bad'
      })
      return verdict
    },
    generate(slot) {
      const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      keys.set(slot, pair)
      return hex(spkiOf(pair.publicKey))
    },
    publicKey(slot) {
      const pair = keys.get(slot)
      return slot === 'birth' ? birthSpki : pair ? hex(spkiOf(pair.publicKey)) : ''
    },
    sign(argument) {
      const [slot, message] = argument.split(' ')
      return hex(new Uint8Array(sign('sha256', unhex(message), keys.get(slot)?.privateKey as KeyObject)))
    },
    random: length => hex(nodeRng.random(Number(length))),
  }
  const transcript: string[][] = []
  const lend: Lend = (name, argument) => {
    const answer = hosts[name](argument)
    transcript.push([name, argument, answer])
    return answer
  }
  const ask = (text: string) =>
    new Promise<string>(resolve => {
      const [method, path, body, slot, chain] = text.split(' ')
      est
        .direct()
        .request(
          { method, path, headers: {}, body: body === '-' ? null : unhex(body), bodyBytesMax: 65536, timeoutSeconds: 60 },
          { slot: slot === '-' ? null : slot, chain: chain ? chain.split(',').map(unhex) : [] },
          (_, response) =>
            resolve(response ? `${response.status}|${response.headers['content-type']}|${hex(response.body)}` : 'network'),
        )
    })

  const engine = {} as { lent: Bundles; startStory: typeof startStory }
  runInNewContext(`${bundles}\n${script}`, engine)
  const story = engine.startStory(engine.lent, given, lend)
  for (let request = story.waiting.shift(); request; request = story.waiting.shift()) {
    const answer = await ask(request.ask)
    transcript.push(['http', request.ask, answer])
    request.answer(answer)
  }
  await est.close()
  const replay = `${script}
var transcript = ${JSON.stringify(transcript)}, at = 0
function lend(name, argument) {
  var line = transcript[at++] || []
  if (line[0] !== name || line[1] !== argument) throw new Error('asked for ' + name + ' ' + argument + ' at ' + at + ' instead of ' + line[0] + ' ' + line[1])
  return line[2]
}
var story = startStory(lent, ${JSON.stringify(given)}, lend)
while (story.waiting.length) {
  var request = story.waiting.shift()
  request.answer(lend('http', request.ask))
}
if (at !== transcript.length) throw new Error('asked for less')
globalThis.told = story.lines.join('\\n')`
  return { lines: [...story.lines], bundles, replay }
}
