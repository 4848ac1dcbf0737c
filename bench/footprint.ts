// What the device side weighs in flash, crypto injected: every export of core and agent in one minified bundle, and what gzip -9 makes of
// it on the wire. Rows for the parts say where the bytes are; they overlap (the agent alone carries the part of the core that it needs).
import { existsSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { deviceBundle, root } from '../tools/device-bundle.ts'

const core = 'packages/device-sdk/src/core/index.ts'
const agent = 'packages/device-sdk/src/agent/index.ts'
const receiver = 'packages/fleet-revocation/src/device.ts'
const nodePort = 'packages/device-sdk/src/ports/node/index.ts'

/** The bounds of the product: a third of the ESP32's smallest free OTA slot slack goes to scripts, and 6.5 KiB pass in one TLS flight or two. */
export const limits = { coreAgentMinBytes: 16384, coreAgentGzipBytes: 6656 }

function weigh(text: string): { min: number; gzip: number } {
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

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const both = await deviceBundle([core, agent], true)
  // A bare built-in would have failed to resolve already; this is the claim itself.
  const foreign = ['node:', ...builtinModules.map(name => `require("${name}`)].filter(name => both.includes(name))
  if (foreign.length) throw new Error(`the device bundle reaches for ${foreign.join(', ')}`)

  const rows: [string, { min: number; gzip: number }][] = [
    ['core + agent', weigh(both)],
    ['  core alone', weigh(await deviceBundle([core], true))],
    ['  agent alone, with what it needs', weigh(await deviceBundle([agent], true))],
  ]
  if (existsSync(join(root, receiver))) {
    rows.push(['  notice receiver alone', weigh(await deviceBundle([receiver], true))])
    rows.push(['core + agent + notice receiver', weigh(await deviceBundle([core, agent, receiver], true))])
  }
  const node = weigh(await nodePortBundle())
  rows.push(['Node port, core and agent inside', node])

  const line = (name: string, min: string, gzip: string) => `${name.padEnd(36)}${min.padStart(10)}${gzip.padStart(10)}`
  const table = [
    line('bytes', 'minified', 'gzip -9'),
    ...rows.map(([name, { min, gzip }]) => line(name, String(min), String(gzip))),
    line('limit for core + agent', String(limits.coreAgentMinBytes), String(limits.coreAgentGzipBytes)),
  ].join('\n')
  return {
    table,
    figures: {
      coreAgentMinBytes: rows[0][1].min,
      coreAgentGzipBytes: rows[0][1].gzip,
      nodePortMinBytes: node.min,
      nodePortGzipBytes: node.gzip,
    },
  }
}
