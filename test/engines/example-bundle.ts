// examples/esp32-js as one script, of the workspace's sources.
import { join } from 'node:path'
import { build, type Plugin } from 'esbuild'
import { root } from '../../tools/device-bundle.ts'

export const example = join(root, 'examples/esp32-js')

/** Puts Espruino's `main` where a board's script finds it. */
export const espruinoEntry = "import { main } from './espruino/main.js'\nglobalThis.main = main"

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
