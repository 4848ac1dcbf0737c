// One run of story.ts on Node with real keys and a real EST server, and the same as a script that any engine can be given.
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { runInNewContext } from 'node:vm'
import { type Bytes, concatBytes, defaultAlgorithms, utf8Bytes } from '@birthmark/device-sdk/core'
import { memoryKeys, memoryStore, nodeHash, nodeRng, nodeVerify } from '@birthmark/device-sdk/node'
import { startTestEst } from '@birthmark/device-sdk/testing'
import { build } from 'esbuild'
import { createTestHistory } from '../../packages/fleet-revocation/src/testing/history.ts'
import { createTestNoticeKey } from '../../packages/fleet-revocation/src/testing/notice-key.ts'
import { deviceScript, entries, flashBundle, minifiedBundle } from '../../tools/device-bundle.ts'
import { type Bundles, type Given, type Lend, lives, type startStory, type Waiting } from './story.ts'

export const hexOf = (bytes: Bytes): string => Buffer.from(bytes).toString('hex')
const spkiOf = (key: KeyObject): Bytes => new Uint8Array(key.export({ type: 'spki', format: 'der' }))

/** A port's function, its text and bytes, and its answer; bytes in hex. */
export type Asked = [name: string, text: string, bytes: string[], answer: string | null]

export interface Scripts {
  /** What every engine is given first: the device's script as flashed, and the notice receiver's. */
  bundles: string
  story: string
}

export interface Recorded extends Scripts {
  given: Given
  transcript: Asked[]
}

/** What a story said. */
export function linesOf(transcript: Asked[]): string[] {
  return transcript.filter(([name]) => name === 'say').map(([, line]) => line)
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

/** `fallback`: notices are verified by the engine itself, as where it has BigInt and no cryptography. */
export async function deviceScripts(fallback = false): Promise<Scripts> {
  const verifier = 'packages/device-sdk/src/ports/p256-verify.ts'
  const bundles = [
    await deviceScript(),
    'globalThis.lent = { createAgent: birthmark.createAgent };',
    await minifiedBundle({ [entries.receiver]: ['createDeviceReceiver'] }),
    'lent.createDeviceReceiver = birthmark.createDeviceReceiver;',
  ]
  if (fallback) bundles.push(await flashBundle({ [verifier]: ['p256Verify'] }), 'lent.p256Verify = birthmark.p256Verify;')
  return { bundles: bundles.join('\n'), story: await storyScript() }
}

export async function recordStory(scripts: Scripts): Promise<Recorded> {
  const now = Date.UTC(2026, 10, 22) / 1000
  const est = await startTestEst({ now: () => now })
  est.fail('simpleenroll', { fault: 'wrong-ca' }, { fault: 'lost-reply' })
  const born = { keys: memoryKeys(), store: memoryStore() }
  await est.bear('unit-7', born)
  const noticeKey = createTestNoticeKey()
  const history = createTestHistory(noticeKey)
  await history.add([{ kind: 'group', gid: 7, bound: 10 }])
  await history.add([{ kind: 'group', gid: 9, bound: 11 }])
  const given: Given = { now, algorithms: defaultAlgorithms, noticeAlgorithm: noticeKey.algorithm, notices: history.notices.length }
  const furnished = new Map<string, Bytes>([
    ['birthAnchor', est.authorities.birth.certificate],
    ['keyId', noticeKey.keyId],
    ['spki', noticeKey.signer.spki],
    ...history.notices.map(({ notice }, at): [string, Bytes] => [`notice-${at}`, notice]),
  ])

  const keys = new Map<string, { privateKey: KeyObject; publicKey: KeyObject }>()
  let birthSpki: Bytes | null = null
  born.keys.publicKey('birth', (_, spki) => {
    birthSpki = spki
  })
  const nothing = new Uint8Array(0)
  const hosts: Record<string, (text: string, one: Bytes, two: Bytes, three: Bytes) => Bytes | null> = {
    say: () => null,
    given: name => furnished.get(name) ?? null,
    sha256: (_, bytes) => nodeHash.sha256(bytes),
    verify(algorithm, spki, message, signature) {
      let verdict: Bytes | null = null
      nodeVerify.verify(spki, algorithm, message, signature, good => {
        verdict = good ? nothing : null
      })
      return verdict
    },
    generate(slot) {
      const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      keys.set(slot, pair)
      return spkiOf(pair.publicKey)
    },
    publicKey(slot) {
      const pair = keys.get(slot)
      return slot === 'birth' ? birthSpki : pair ? spkiOf(pair.publicKey) : null
    },
    sign: (slot, message) => new Uint8Array(sign('sha256', message, keys.get(slot)?.privateKey as KeyObject)),
    random: length => nodeRng.random(Number(length)),
    get: name => born.store.get(name),
    put(name, value) {
      born.store.put(name, value)
      return null
    },
    remove(name) {
      born.store.remove(name)
      return null
    },
  }
  const transcript: Asked[] = []
  const record = (name: string, text: string, bytes: Bytes[], answer: Bytes | null) =>
    transcript.push([name, text, bytes.map(hexOf), answer && hexOf(answer)])
  // Another realm, whose arrays are its own.
  const engine = {} as { lent: Bundles; startStory: typeof startStory; Uint8Array: typeof Uint8Array }
  const lend: Lend = (name, text, one, two, three) => {
    const bytes = [one, two, three].filter(part => part !== undefined).map(part => new Uint8Array(part))
    const answer = hosts[name](text, bytes[0], bytes[1], bytes[2])
    record(name, text, bytes, answer)
    return answer && new engine.Uint8Array(answer)
  }
  const ask = ({ text, body, chain }: Waiting) => {
    const [method, path, slot] = text.split(' ')
    return new Promise<Bytes | null>(resolve => {
      est
        .direct()
        .request(
          { method, path, headers: {}, body: body.length ? body : null, bodyBytesMax: 65536, timeoutSeconds: 60 },
          { slot: slot === '-' ? null : slot, chain: certificatesOf(new Uint8Array(chain)) },
          (_, response) =>
            resolve(response && concatBytes([utf8Bytes(`${response.status}|${response.headers['content-type']}|`), response.body])),
        )
    })
  }

  runInNewContext(`${scripts.bundles}\n${scripts.story}\nglobalThis.Uint8Array = Uint8Array`, engine)
  for (let life = 0; life < lives; life++) {
    const waiting = engine.startStory(engine.lent, given, lend, life)
    for (let request = waiting.shift(); request; request = waiting.shift()) {
      const answer = request.text ? await ask(request) : null
      if (request.text) record('http', request.text, [request.body, request.chain], answer)
      else record('turn', '', [], null)
      request.answer(answer && new engine.Uint8Array(answer))
    }
  }
  await est.close()
  return { ...scripts, given, transcript }
}

/** DER certificates, one after the other. */
export function certificatesOf(bytes: Bytes): Bytes[] {
  const out: Bytes[] = []
  for (let at = 0; at < bytes.length; ) {
    // Every certificate is longer than 255 bytes and shorter than 64 KB: 30 82, two bytes of length.
    const end = at + 4 + bytes[at + 2] * 256 + bytes[at + 3]
    out.push(bytes.slice(at, end))
    at = end
  }
  return out
}

/** One life, for every engine. */
export const lifeScript = (given: Given, life: number): string => `
var waiting = startStory(lent, ${JSON.stringify(given)}, lend, ${life})
while (waiting.length) {
  var request = waiting.shift()
  request.answer(request.text ? lend('http', request.text, request.body, request.chain) : lend('turn', ''))
}`

/**
 * Plays the recording to an engine that has nothing but JavaScript. Leaves its lines, joined, in the global `told`; throws where the engine asks
 * for anything else.
 */
export function replayScript({ story, given, transcript }: Recorded): string {
  return `${story}
var transcript = ${JSON.stringify(transcript)}, at = 0, lines = []
function hex(bytes) {
  var out = ''
  for (var i = 0; i < bytes.length; i++) out += '0123456789abcdef'.charAt(bytes[i] >> 4) + '0123456789abcdef'.charAt(bytes[i] & 15)
  return out
}
function unhex(text) {
  var out = new Uint8Array(text.length / 2)
  for (var i = 0; i < out.length; i++) out[i] = parseInt(text.substr(2 * i, 2), 16)
  return out
}
function lend(name, text) {
  var asked = transcript[at++] || ['nothing', '', [], null], bytes = []
  for (var i = 2; i < arguments.length; i++) bytes.push(hex(arguments[i]))
  if (asked[0] !== name || asked[1] !== text || asked[2].join() !== bytes.join())
    throw new Error('asked for ' + name + ' ' + text + ' ' + bytes + ' at ' + at + ' instead of ' + asked)
  if (name === 'say') lines.push(text)
  return asked[3] === null ? null : unhex(asked[3])
}
${Array.from({ length: lives }, (_, life) => lifeScript(given, life)).join('')}
if (at !== transcript.length) throw new Error('asked for less')
globalThis.told = lines.join('\\n')`
}
