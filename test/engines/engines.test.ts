// The same bytes that a device flashes, on engines that nobody here wrote.
import { createHash, generateKeyPairSync, sign } from 'node:crypto'
import { newQuickJSWASMModuleFromVariant } from 'quickjs-emscripten-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { flashBundle } from '../../tools/device-bundle.ts'
import { type Asked, deviceScripts, linesOf, type Recorded, recordStory } from './recorded.ts'
import { engines } from './runners.ts'
import { playOnXs } from './xs.ts'
import { xsFigures, xsLimits } from './xs-figures.ts'

let recorded: Recorded
// Most of the time goes into trying names for the flashed script.
beforeAll(async () => {
  recorded = await recordStory(await deviceScripts())
}, 180_000)

it('the story is birth check, two refusals, enrollment, reboot, renewal, notice and the end', () => {
  expect(linesOf(recorded.transcript).filter(line => !line.startsWith('event scheduled'))).toMatchInlineSnapshot(`
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

const table: string[] = []

describe('the same story, byte for byte', () => {
  for (const { name, from, play } of engines)
    it(`on ${name}`, async () => {
      const { version, lines } = await play(recorded)
      expect(lines).toEqual(linesOf(recorded.transcript))
      table.push(`${name.padEnd(9)} ${version.padEnd(32)} ${String(lines.length).padStart(3)} lines  ${from}`)
    }, 120_000)
})

afterAll(() => {
  process.stdout.write(`${table.join('\n')}\n`)
})

it('a step on XS stays within its budgets of memory, stack and steps', async () => {
  const { steps, meterEstResponse, meterNotice } = await xsFigures(recorded, await recordStory(await deviceScripts(true)))
  expect(new Set(steps.map(({ name }) => name)).size).toBe(6)
  for (const { name, peakBytes, stackSlots } of steps) {
    expect(peakBytes, name).toBeLessThanOrEqual(xsLimits.peakStepBytes)
    expect(stackSlots, name).toBeLessThanOrEqual(xsLimits.stackSlots)
  }
  expect(meterEstResponse).toBeLessThanOrEqual(xsLimits.meterEstResponse)
  expect(meterNotice).toBeLessThanOrEqual(xsLimits.meterNotice)
}, 180_000)

it('XS is refused what is beyond its heap, and says so', async () => {
  await expect(playOnXs(recorded, 16_384)).rejects.toThrow('not enough memory')
})

it('XS that asks for anything else than what was recorded fails', async () => {
  const transcript = recorded.transcript.map((asked, at) => (at === 9 ? (['say', 'nothing', [], null] as Asked) : asked))
  await expect(playOnXs({ ...recorded, transcript })).rejects.toThrow('instead of say,nothing')
})

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
