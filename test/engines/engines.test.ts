// The same bytes that a device flashes, on engines that nobody here wrote. QuickJS comes from the registry as WebAssembly, Duktape from Debian.
import { spawnSync } from 'node:child_process'
import { createHash, generateKeyPairSync, sign } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runInNewContext } from 'node:vm'
import { newQuickJSWASMModuleFromVariant } from 'quickjs-emscripten-core'
import { beforeAll, expect, it } from 'vitest'
import { flashBundle } from '../../tools/device-bundle.ts'
import { es5 } from '../../tools/es5.ts'
import { type Recorded, recordStory } from './recorded.ts'

let recorded: Recorded
// Most of the time goes into trying names for the flashed script.
beforeAll(async () => {
  recorded = await recordStory()
}, 180_000)

it('the story is birth check, two refusals, enrollment, reboot, renewal, notice and the end', () => {
  expect(recorded.lines.filter(line => !line.startsWith('event scheduled'))).toMatchInlineSnapshot(`
    [
      "boot unenrolled  0 0 0 false",
      "event birth unit-7",
      "event request 1",
      "event failed path_no_anchor",
      "ended path_no_anchor unenrolled 0",
      "boot unenrolled  0 0 0 false",
      "event birth unit-7",
      "event request 1",
      "event failed network",
      "ended network unenrolled 0",
      "boot unenrolled  0 0 0 false",
      "event birth unit-7",
      "event request 1",
      "event issued 1",
      "event active 1",
      "ended well active 1",
      "event request 2",
      "event issued 2",
      "event active 2",
      "ended well active 2",
      "notice taken false",
      "notice taken true",
      "event revoked notice",
      "boot revoked unit-7 2 1797897600 1797350936 true",
      "ended revoked revoked 2",
    ]
  `)
})

it('Node plays the recording as it ran', () => {
  const engine = {} as { told: string }
  runInNewContext(`${recorded.bundles}\n${recorded.replay}`, engine)
  expect(engine.told.split('\n')).toEqual(recorded.lines)
})

it('QuickJS tells the same story, in 1 MB', async () => {
  const runtime = (await newQuickJSWASMModuleFromVariant(import('@jitl/quickjs-wasmfile-release-sync'))).newRuntime()
  runtime.setMemoryLimit(1 << 20)
  const context = runtime.newContext()
  context.unwrapResult(context.evalCode(`${recorded.bundles}\n${recorded.replay}`)).dispose()
  expect(context.getProp(context.global, 'told').consume(context.getString).split('\n')).toEqual(recorded.lines)
  context.dispose()
  runtime.dispose()
})

it('Duktape tells the same story, lowered to ES5', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'duktape-'))
  const file = join(folder, 'story.js')
  writeFileSync(file, `${await es5(recorded.bundles)}\n${await es5(recorded.replay)}\nprint(told)\n`)
  const { status, stdout, stderr } = spawnSync('duk', [file], { encoding: 'utf8', timeout: 60_000 })
  rmSync(folder, { recursive: true })
  expect(stderr).toBe('')
  expect(stdout.trimEnd().split('\n')).toEqual(recorded.lines)
  expect(status).toBe(0)
}, 90_000)

it('the P-256 fallback believes a signature and no changed one on QuickJS, which has BigInt and nothing else', async () => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const signature = sign('sha256', Buffer.from('notice'), privateKey)
  const changed = Buffer.from(signature)
  changed[changed.length - 1] ^= 1
  const bytes = (given: Buffer) => `new Uint8Array([${given.join()}])`
  const runtime = (await newQuickJSWASMModuleFromVariant(import('@jitl/quickjs-wasmfile-release-sync'))).newRuntime()
  const context = runtime.newContext()
  const told = context.unwrapResult(
    context.evalCode(`${await flashBundle({ 'packages/device-sdk/src/ports/p256-verify.ts': ['p256Verify'] })}
      const digest = ${bytes(createHash('sha256').update('notice').digest())}, told = []
      const { verify } = birthmark.p256Verify({ sha256: () => digest })
      for (const signature of [${bytes(signature)}, ${bytes(changed)}])
        verify(${bytes(publicKey.export({ type: 'spki', format: 'der' }))}, 'ecdsa-sha256', digest, signature, good => told.push(good))
      told.join()`),
  )
  expect(told.consume(context.getString)).toBe('true,false')
  context.dispose()
  runtime.dispose()
})
