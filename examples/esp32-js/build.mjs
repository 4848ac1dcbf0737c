// Bundles a board's main: `node build.mjs moddable` or `node build.mjs espruino`, into build/. What the board brings stays an import (Moddable) or
// a parameter (Espruino).
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const here = dirname(fileURLToPath(import.meta.url))
const [board] = process.argv.slice(2)
if (board !== 'moddable' && board !== 'espruino') {
  process.stderr.write('node build.mjs moddable|espruino\n')
  process.exit(2)
}
const moddable = board === 'moddable'
await build({
  entryPoints: [join(here, board, 'main.js')],
  outfile: join(here, 'build', 'main.js'),
  bundle: true,
  minify: true,
  target: 'es2020',
  // Espruino has neither template literals' tags nor these.
  supported: moddable ? {} : { 'optional-chain': false, 'nullish-coalescing': false, 'template-literal': false },
  format: moddable ? 'esm' : 'cjs',
  external: moddable ? ['crypt', 'curve', 'ecdsa', 'entropy', 'mc/config', 'preference', 'secure-client', 'timer'] : [],
})
