// The mains of examples/esp32-js, with simulated peripherals: Moddable's on XS, Espruino's on Duktape.
import { spawnSync } from 'node:child_process'
import { createHash, createPublicKey, generateKeyPairSync, randomBytes, sign, verify } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runInNewContext } from 'node:vm'
import type { KeyStore } from '@birthmark/device-sdk/agent'
import { type Bytes, decodeBase64, ecdsaRawOfDer, parseCsr } from '@birthmark/device-sdk/core'
import { type ModdableCrypto, moddableKeys, preferenceStore } from '@birthmark/device-sdk/moddable'
import { memoryKeys, memoryStore } from '@birthmark/device-sdk/node'
import { startTestEst } from '@birthmark/device-sdk/testing'
import { p256 } from '@noble/curves/nist.js'
import { build, type Plugin } from 'esbuild'
import { expect, it } from 'vitest'
import { root } from '../../tools/device-bundle.ts'
import { es5 } from '../../tools/es5.ts'
import { certificatesOf } from './recorded.ts'
import { runOnXs } from './xs.ts'

const example = join(root, 'examples/esp32-js')

/** Moddable's modules as they behave towards the port; what needs a chip is lent. */
const simulated: Record<string, string> = {
  crypt: `export function Digest() { this.parts = [] }
    Digest.prototype.write = function (data) { this.parts.push(new Uint8Array(data)) }
    Digest.prototype.close = function () { return lend('sha256', '', this.parts[0]).buffer }`,
  curve: `export default function Curve() {}
    Curve.prototype.dh = function (key) { return lend('dh', '', new Uint8Array(key)).buffer }`,
  ecdsa: `export default function ECDSA(key, curve) { this.key = key; this.k = curve.k }
    ECDSA.prototype.sign = function (hash, der) { return lend('sign', [this.key.toString(16), this.k.toString(16), der].join(' '), new Uint8Array(hash)).buffer }`,
  entropy: `export default function (length) { return lend('entropy', '' + length).buffer }`,
  'mc/config': `export default { host: 'est', port: 8443, builtAt: 1790000000 }`,
  preference: `const kept = {}
    const name = (domain, key) => domain + '/' + key
    export default {
      get: (domain, key) => { const found = kept[name(domain, key)] || lend('factory', name(domain, key)); return found ? found.buffer || found : undefined },
      set: (domain, key, value) => { if (!(value instanceof ArrayBuffer) || domain.length > 15 || key.length > 15) throw new Error('preference'); kept[name(domain, key)] = value },
      delete: (domain, key) => { delete kept[name(domain, key)] },
    }`,
  timer: `globalThis.tasks = []
    export default { set: (callback, milliseconds) => { const task = { callback, milliseconds }; tasks.push(task); return task }, clear: task => { if (task) task.callback = null } }`,
  'secure-client': `export default (host, port, tls) => ({
      close() {},
      request(options) {
        let body = new Uint8Array(0)
        const request = { write: data => { body = new Uint8Array(data) }, read: count => answer.subarray(0, count).slice().buffer }
        const length = +(options.headers.get('content-length') || 0)
        if (length) options.onWritable.call(request, length)
        const joined = [].concat.apply([], tls.chain.map(one => [].slice.call(one)))
        let answer = lend('http', options.method + ' ' + options.path + ' ' + tls.slot, body, new Uint8Array(joined))
        const status = answer[0] * 256 + answer[1]
        answer = answer.subarray(2)
        options.onHeaders.call(request, status, new Map([['content-type', 'application/pkcs7-mime']]))
        options.onReadable.call(request, answer.length)
        options.onDone.call(request, null)
      },
    })`,
}

const simulation: Plugin = {
  name: 'simulated-peripherals',
  setup(bundler) {
    bundler.onResolve({ filter: /.*/ }, ({ path }) => (simulated[path] ? { path, namespace: 'simulated' } : undefined))
    bundler.onLoad({ filter: /.*/, namespace: 'simulated' }, ({ path }) => ({ contents: simulated[path], loader: 'js' }))
  },
}

async function bundled(contents: string, plugins: Plugin[] = []): Promise<string> {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: example, loader: 'js' },
    bundle: true,
    format: 'iife',
    target: 'es2020',
    conditions: ['source'],
    plugins,
    write: false,
    logLevel: 'silent',
  })
  return outputFiles[0].text
}

const rawPublicKey = (spki: Uint8Array): Buffer => Buffer.from(spki.subarray(-65))

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

it('Moddable’s main enrolls on XS: keys and records in preferences, ECDSA with a secret number of the chip’s, HTTP by ECMA-419', async () => {
  const est = await startTestEst()
  const store = memoryStore()
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const birthKeys: KeyStore = {
    ...memoryKeys(),
    generate: (_, done) => done(null, new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))),
    publicKey: (_, done) => done(null, new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))),
    sign: (_, message, done) => done(null, new Uint8Array(sign('sha256', message, privateKey))),
  }
  await est.bear('board-1', { keys: birthKeys, store })
  const factory: Record<string, Uint8Array> = {
    'birthmark/birth.chain': store.get('birth.chain') as Bytes,
    'birthmark.key/birth': Buffer.from(privateKey.export({ format: 'jwk' }).d as string, 'base64url'),
  }
  const said: string[] = []
  const asked: string[] = []
  const secrets = new Set<string>()
  const script = `
    function trace(line) { lend('say', line.trim()) }
    ${await bundled("import './moddable/main.js'", [simulation])}
    for (var turns = 0; tasks.length && turns < 60; turns++) { var task = tasks.shift(); if (task.callback && task.milliseconds < 30000) task.callback() }`
  await runOnXs(script, async ({ name, text, bytes }) => {
    if (name === 'say') said.push(text)
    if (name === 'sha256') return createHash('sha256').update(bytes[0]).digest()
    if (name === 'entropy') return randomBytes(Number(text))
    if (name === 'dh') return Buffer.from(p256.getPublicKey(bytes[0], false))
    if (name === 'factory') return factory[text] ?? null
    if (name === 'sign') {
      const [key, secret, der] = text.split(' ')
      expect(der).toBe('true')
      expect(BigInt(`0x${secret}`)).toBeGreaterThan(0n)
      secrets.add(secret)
      return Buffer.from(p256.sign(bytes[0], Buffer.from(key.padStart(64, '0'), 'hex'), { prehash: false, format: 'der' }))
    }
    if (name !== 'http') return null
    const [method, path, slot] = text.split(' ')
    asked.push(`${method} ${path.split('/').pop()} ${slot}`)
    const [body, chain] = bytes
    return new Promise(resolve =>
      est
        .direct()
        .request(
          { method, path, headers: {}, body: body.length ? body : null, bodyBytesMax: 65536, timeoutSeconds: 60 },
          { slot, chain: certificatesOf(new Uint8Array(chain)) },
          (_, response) =>
            resolve(response && Buffer.concat([Buffer.of(response.status >> 8, response.status & 255), response.body])),
        ),
    )
  })
  await est.close()
  expect(said).toEqual(['active 1'])
  expect(asked).toEqual(['GET cacerts birth', 'POST simpleenroll birth', 'GET cacerts op-1'])
  expect(secrets.size).toBe(1)
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

it.each([true, false])('Espruino’s main on Duktape, with a secure element: %s', async element => {
  const est = await startTestEst()
  const born = { keys: memoryKeys(), store: memoryStore() }
  await est.bear('board-2', born)
  await est.close()
  const chain = born.store.get('birth.chain') as Bytes
  let birthSpki = new Uint8Array(0) as Bytes
  born.keys.publicKey('birth', (_, spki) => {
    birthSpki = spki as Bytes
  })
  const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = pair.publicKey.export({ type: 'spki', format: 'der' })
  const secret = Buffer.from(pair.privateKey.export({ format: 'jwk' }).d as string, 'base64url')
  const script = `${await bundled("import { main } from './espruino/main.js'\nglobalThis.main = main")}
    var files = {}, tasks = [], now = ${Math.floor(Date.now() / 1000)}
    var bytesOf = function (buffer) { return buffer && new Uint8Array(buffer) }
    files['bm.birth.chain'] = lend('chain', '').buffer
    main({
      element: ${element} ? {
        generate: function (slot) { return lend('generate', '' + slot) },
        publicKey: function (slot) { return lend('publicKey', '' + slot) },
        sign: function (slot, digest) { return lend('sign', '' + slot, digest) },
        verify: function (point, digest, signature) { return lend('verify', '', point, digest, signature) !== null },
        random: function () { return new Uint8Array(32) },
      } : null,
      sha256: function (data) { return lend('sha256', '', data).buffer },
      storage: {
        readArrayBuffer: function (name) { return files[name] },
        write: function (name, data) { files[name] = data; return true },
        erase: function (name) { delete files[name] },
      },
      timers: { setTimeout: function (callback, milliseconds) { if (milliseconds < 9000) tasks.push(callback); return callback }, clearTimeout: function () {} },
      http: { request: function (request, tls, done) { lend('http', request.method + ' ' + request.path + ' ' + tls.slot, request.body || new Uint8Array(0)); return function () {} } },
      now: function () { return now },
      config: { builtAt: now - 86400, birthAnchors: [lend('anchor', '')], operationalAnchors: [lend('anchor', '')] },
      print: function (line) { lend('say', line) },
    })
    while (tasks.length) tasks.shift()()`
  const transcript: [string, string, string | null][] = []
  const answers: Record<string, (text: string, one: Bytes, two: Bytes, three: Bytes) => Uint8Array | null> = {
    chain: () => chain,
    anchor: () => est.authorities.birth.certificate,
    generate: () => spki.subarray(-64),
    publicKey: slot => (slot === '0' ? birthSpki.subarray(-64) : null),
    sign: (_, digest) => p256.sign(new Uint8Array(digest), secret, { prehash: false }),
    verify: (_, point, digest, signature) =>
      p256.verify(new Uint8Array(signature), new Uint8Array(digest), Buffer.concat([Buffer.of(4), point]), {
        prehash: false,
        lowS: false,
      })
        ? new Uint8Array(0)
        : null,
    sha256: (_, bytes) => createHash('sha256').update(bytes).digest(),
    http: () => null,
    say: () => null,
  }
  const engine = {} as { lend: unknown; Uint8Array: typeof Uint8Array }
  runInNewContext('globalThis.Uint8Array = Uint8Array', engine)
  engine.lend = (name: string, text: string, ...bytes: Bytes[]): Bytes | null => {
    const answer = answers[name](text, bytes[0], bytes[1], bytes[2])
    transcript.push([name, [text, ...bytes.map(hex)].join(' '), answer && hex(answer)])
    return answer && new engine.Uint8Array(answer)
  }
  runInNewContext(script, engine)
  const said = transcript.filter(([name]) => name === 'say').map(([, line]) => line)
  if (element) {
    const [, asked] = transcript.find(([name]) => name === 'http') as [string, string, string]
    const [method, path, slot, body] = asked.split(' ')
    expect([method, path, slot]).toEqual(['POST', '/.well-known/est/simpleenroll', 'birth'])
    const csr = parseCsr(decodeBase64(Buffer.from(body, 'hex'), 65536))
    expect(rawPublicKey(csr.spki)).toEqual(rawPublicKey(spki))
    const key = createPublicKey({ key: Buffer.from(csr.spki), format: 'der', type: 'spki' })
    expect(verify('sha256', csr.info, key, csr.signature)).toBe(true)
    expect(ecdsaRawOfDer(csr.signature, 32)).toHaveLength(64)
    expect(said).toEqual([])
  } else {
    expect(transcript.some(([name]) => name === 'http')).toBe(false)
    expect(said).toEqual(['random_unavailable'].map(code => `failed ${code}`))
  }

  const folder = mkdtempSync(join(tmpdir(), 'duktape-'))
  const file = join(folder, 'board.js')
  const replay = `
    var transcript = ${JSON.stringify(transcript)}, at = 0
    function hex(bytes) { var out = ''; for (var i = 0; i < bytes.length; i++) out += ('0' + bytes[i].toString(16)).slice(-2); return out }
    function unhex(text) { var out = new Uint8Array(text.length / 2); for (var i = 0; i < out.length; i++) out[i] = parseInt(text.substr(2 * i, 2), 16); return out }
    function lend(name, text) {
      var line = transcript[at++] || [], asked = [text]
      for (var i = 2; i < arguments.length; i++) asked.push(hex(arguments[i]))
      if (line[0] !== name || line[1] !== asked.join(' ')) throw new Error(name + ' ' + asked.join(' ') + ' instead of ' + line)
      return line[2] === null ? null : unhex(line[2])
    }`
  writeFileSync(file, `${replay}\n${await es5(script)}\nprint(at === transcript.length)\n`)
  const { stdout, stderr } = spawnSync('duk', [file], { encoding: 'utf8', timeout: 60_000 })
  rmSync(folder, { recursive: true })
  expect(stderr).toBe('')
  expect(stdout.trim()).toBe('true')
})
