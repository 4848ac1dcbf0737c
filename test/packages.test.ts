// The device SDK as it is published: packed, judged by publint and by "are the types wrong", imported by its names alone, and each entry carrying nothing of
// another's.
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core'
import { build } from 'esbuild'
import { publint } from 'publint'
import { afterAll, beforeAll, expect, test } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const source = join(root, 'packages/device-sdk')
let folder: string
let tarball: string
let installed: string

/** Built beside the source, so that a build that somebody works with stays as it is. */
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'birthmark-packed-'))
  const copy = join(folder, 'package')
  mkdirSync(copy)
  execFileSync(process.execPath, [join(root, 'tools/build.mjs'), 'device-sdk', copy], { stdio: 'pipe' })
  for (const name of ['package.json', 'README.md']) if (existsSync(join(source, name))) cpSync(join(source, name), join(copy, name))
  // What `pnpm pack` writes into the manifest is this already: the SDK depends on nothing.
  tarball = join(folder, 'package.tgz')
  execFileSync('tar', ['-czf', tarball, '-C', folder, 'package'])
  installed = join(folder, 'app/node_modules/@birthmark/device-sdk')
  cpSync(copy, installed, { recursive: true })
}, 60_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const manifest = JSON.parse(readFileSync(join(source, 'package.json'), 'utf8'))
const entries = Object.keys(manifest.exports).map(name => name.slice(2))

test('publint has nothing to say', async () => {
  const { messages } = await publint({ pkgDir: join(folder, 'package'), strict: true, pack: false })
  // The condition is the repository's own; its files are left out on purpose.
  expect(messages.filter(({ path, code }) => !(code === 'FILE_DOES_NOT_EXIST' && path.includes('source')))).toEqual([])
})

test('the types are right for every entry, wherever modules are resolved as packages say', async () => {
  const analysis = await checkPackage(createPackageFromTarballData(new Uint8Array(readFileSync(tarball))))
  if (!analysis.types) throw new Error('no types')
  // ESM only: what an old resolver or a CommonJS caller without require(esm) makes of it is known.
  const problems = analysis.problems.filter(
    problem => !('resolutionKind' in problem && problem.resolutionKind === 'node10') && problem.kind !== 'CJSResolvesToESM',
  )
  expect(problems).toEqual([])
})

test('depends on nothing, and each entry is imported by its name from an installed package', () => {
  expect([manifest.dependencies, manifest.peerDependencies, manifest.scripts, manifest.sideEffects]).toEqual([
    undefined,
    undefined,
    undefined,
    false,
  ])
  const app = join(folder, 'app')
  for (const entry of entries.filter(name => !/moddable|espruino/.test(name))) {
    const text = `import * as all from '@birthmark/device-sdk/${entry}'; if (Object.keys(all).length === 0) throw new Error('empty')`
    execFileSync(process.execPath, ['--input-type=module', '-e', text], { cwd: app, stdio: 'pipe' })
  }
})

/** The files of the built package that a bundle of this text is made of, and its size. */
async function bundled(text: string) {
  const { metafile, outputFiles } = await build({
    stdin: { contents: text, resolveDir: join(folder, 'app'), loader: 'js' },
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'neutral',
    external: ['node:*', ...builtinModules],
    write: false,
    metafile: true,
  })
  return { code: outputFiles[0].text, bytes: outputFiles[0].contents.length, inputs: Object.keys(metafile.inputs) }
}

test('tree-shakes: one function is a fraction of its entry, an unused entry is nothing, and core and agent reach no built-in module', async () => {
  const whole = await bundled(`import * as all from '@birthmark/device-sdk/core'; globalThis.all = all`)
  const one = await bundled(`import { encodeBase64 } from '@birthmark/device-sdk/core'; globalThis.f = encodeBase64`)
  expect(one.bytes).toBeLessThan(whole.bytes / 10)
  for (const entry of entries) {
    const unused = await bundled(`import '@birthmark/device-sdk/${entry}'`)
    expect({ entry, bytes: unused.bytes }).toEqual({ entry, bytes: 0 })
  }
  for (const entry of ['core', 'agent', 'p256-verify']) {
    const { code } = await bundled(`import * as all from '@birthmark/device-sdk/${entry}'; globalThis.all = all`)
    expect(code).not.toMatch(/from ?"node:|require\(/)
  }
  // An agent does not drag what a firmware composes in, nor a device the test kit or a token's keys.
  const agent = await bundled(`import { createAgent } from '@birthmark/device-sdk/agent'; globalThis.f = createAgent`)
  for (const optional of ['birthmark/1 time', 'another nonce']) expect(agent.code).not.toContain(optional)
  const device = await bundled(`import { createIdentity } from '@birthmark/device-sdk/node'; globalThis.f = createIdentity`)
  for (const foreign of ['C_GenerateKeyPair', 'Test Manufacturer', 'MODULE_PATH']) expect(device.code).not.toContain(foreign)
})

test('no test and no configuration is packed', () => {
  const files = readdirSync(join(folder, 'package/dist'), { recursive: true, encoding: 'utf8' })
  expect(files.filter(name => /\.test\.|\.tsbuildinfo$|tsconfig/.test(name))).toEqual([])
})
