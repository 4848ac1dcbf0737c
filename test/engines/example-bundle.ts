// examples/esp32-js as one script, of the workspace's sources.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { build, type Plugin } from 'esbuild'
import { root } from '../../tools/device-bundle.ts'

export const example = join(root, 'examples/esp32-js')

export const { buildBoard } = (await import(pathToFileURL(join(example, 'build.mjs')).href)) as {
  buildBoard(board: string, folder: string | null, out: string, conditions: string[]): Promise<void>
}

/** The module that is uploaded to an Espruino, and its `main` where a board's script finds it. */
export async function espruinoScript(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'espruino-'))
  await buildBoard('espruino', null, folder, ['source'])
  const module = readFileSync(join(folder, 'main.js'), 'utf8')
  rmSync(folder, { recursive: true })
  return `var module = { exports: {} }, exports = module.exports;\n${module};\nvar main = module.exports.main`
}

/** `contents`: a module in the example's folder. `plugins` say where what the board brings comes from. */
export async function exampleBundle(contents: string, plugins: Plugin[] = []): Promise<string> {
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
