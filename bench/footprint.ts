// What the device side weighs in flash, crypto injected: createAgent and all of core and agent that it reaches, in the one script that
// tools/device-bundle.ts makes and a test enrolls with, and what gzip -9 leaves of it for an update over the air. The other rows say where
// the bytes are; they overlap, and their names are not tried out for gzip as those of the flashed script are (tools/tried-names.ts). Rows
// "all exports" keep what only servers and tools call. In the flashed script an error says its code without the detail that the sources add
// (tools/shrink.ts); every check is in it. Beside it, the same work with the libraries of the field: cryptography is the engine's there too,
// but for those that bring their own.
import { existsSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { deviceEntry, deviceScript, entries, everything, flashBundle, minifiedBundle, root } from '../tools/device-bundle.ts'
import { otherBundles, remarks } from './footprint-others.ts'

const fallback = 'packages/device-sdk/src/ports/p256-verify.ts'
const nodePort = 'packages/device-sdk/src/ports/node/index.ts'

/** What the product promises. */
export const limits = {
  coreAgentMinBytes: 16384,
  coreAgentGzipBytes: 6656,
  verifyFallbackMinBytes: 4096,
  verifyFallbackGzipBytes: 1843,
}

interface Weight {
  min: number
  gzip: number
}

function weigh(text: string): Weight {
  return { min: Buffer.byteLength(text), gzip: gzipSync(text, { level: 9 }).length }
}

async function nodePortBundle(): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [join(root, nodePort)],
    bundle: true,
    format: 'esm',
    target: 'es2023',
    platform: 'node',
    minify: true,
    legalComments: 'none',
    write: false,
  })
  return outputFiles[0].text
}

/** P-256 and SHA-256 of @noble behind our adapter, as a user hands them in. */
async function nobleBundle(): Promise<string> {
  const { outputFiles } = await build({
    stdin: {
      contents: `import { p256 } from '@noble/curves/nist.js'
        import { sha256 } from '@noble/hashes/sha2.js'
        import { nobleHash, nobleVerify } from '@birthmark/device-sdk/noble'
        globalThis.birthmark = { hash: nobleHash({ sha256 }), verify: nobleVerify({ sha256, p256 }) }`,
      resolveDir: join(root, 'test'),
    },
    bundle: true,
    format: 'iife',
    target: 'es2020',
    conditions: ['source'],
    minify: true,
    legalComments: 'none',
    write: false,
  })
  return outputFiles[0].text
}

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const flashed = await deviceScript()
  // A built-in would have failed to resolve already; this is the claim itself.
  const foreign = ['node:', ...builtinModules.map(name => `require("${name}`)].filter(name => flashed.includes(name))
  if (foreign.length) throw new Error(`the device bundle reaches for ${foreign.join(', ')}`)

  const coreAgent = weigh(flashed)
  const verifyFallback = weigh(await flashBundle({ [fallback]: ['p256Verify'] }))
  const node = weigh(await nodePortBundle())
  const everyExport = weigh(await flashBundle(await everything(entries.core, entries.agent)))
  const rows: [string, Weight][] = [
    ['core + agent, as flashed', coreAgent],
    ['  by esbuild alone', weigh(await minifiedBundle(deviceEntry))],
    ['core, all exports', weigh(await flashBundle(await everything(entries.core)))],
    ['core + agent, all exports', everyExport],
    ['P-256 verify fallback alone', verifyFallback],
    ['P-256 and SHA-256 by @noble and our adapter', weigh(await nobleBundle())],
  ]
  const figures: Record<string, number> = {
    coreAgentMinBytes: coreAgent.min,
    coreAgentGzipBytes: coreAgent.gzip,
    coreAgentAllExportsMinBytes: everyExport.min,
    coreAgentAllExportsGzipBytes: everyExport.gzip,
    verifyFallbackMinBytes: verifyFallback.min,
    verifyFallbackGzipBytes: verifyFallback.gzip,
    nodePortMinBytes: node.min,
    nodePortGzipBytes: node.gzip,
  }
  if (existsSync(join(root, entries.receiver))) {
    const receiver = weigh(await flashBundle({ [entries.receiver]: ['createDeviceReceiver'] }))
    rows.push(
      ['device notice receiver alone', receiver],
      [
        'core + agent + receiver, as flashed',
        weigh(await flashBundle({ ...deviceEntry, [entries.receiver]: ['createDeviceReceiver'] })),
      ],
    )
    figures.receiverMinBytes = receiver.min
  }
  rows.push(['Node port, core and agent inside', node])
  for (const [name, script] of Object.entries(await otherBundles()))
    rows.push([`the same with ${name}${remarks[name] ? ` (${remarks[name]})` : ''}`, weigh(script)])

  const line = (name: string, min: string, gzip: string) => `${name.padEnd(68)}${min.padStart(9)}${gzip.padStart(9)}`
  const table = [
    line('bytes', 'minified', 'gzip -9'),
    ...rows.map(([name, { min, gzip }]) => line(name, String(min), String(gzip))),
    line('limit for core + agent', String(limits.coreAgentMinBytes), String(limits.coreAgentGzipBytes)),
    line('limit for the fallback', String(limits.verifyFallbackMinBytes), String(limits.verifyFallbackGzipBytes)),
  ].join('\n')
  return { table, figures }
}
