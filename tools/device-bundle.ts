// One bundle of the device core, the agent and whatever else is named, as a firmware team would flash it: every export kept, one global
// object, nothing from outside. The subset lint reads it and the footprint benchmark weighs it, so that both speak of the same bytes.
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, type Plugin } from 'esbuild'

export const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** `source` conditions would reach into dist/; a workspace import of the device side resolves to the sources instead. */
const sources: Plugin = {
  name: 'device-sources',
  setup(bundler) {
    bundler.onResolve({ filter: /^@birthmark\/device-sdk\/(core|agent)$/ }, ({ path }) => ({
      path: join(root, 'packages/device-sdk/src', path.slice(path.lastIndexOf('/') + 1), 'index.ts'),
    }))
  },
}

/** Names that `entry` (relative to the repository) exports as values. */
async function exportsOf(entry: string): Promise<string[]> {
  const { metafile } = await build({
    entryPoints: [join(root, entry)],
    absWorkingDir: root,
    bundle: true,
    format: 'esm',
    target: 'es2020',
    write: false,
    metafile: true,
    logLevel: 'silent',
    outdir: 'out',
    plugins: [sources],
  })
  return Object.values(metafile.outputs)[0].exports
}

/**
 * The bundle's text. `minify` false keeps the source's own constructs and esbuild's `// path` comments. Fails on an import of `node:` or of
 * anything that is not a file of ours. esbuild's own export helpers are avoided (they close over a loop's `let`): the entry is one object.
 */
export async function deviceBundle(entries: string[], minify: boolean): Promise<string> {
  const seen = new Set<string>()
  let text = ''
  for (const entry of entries) {
    const names = (await exportsOf(entry)).filter(name => !seen.has(name))
    for (const name of names) seen.add(name)
    text += `import { ${names.join(', ')} } from './${entry}'\n`
  }
  text += `globalThis.birthmark = { ${[...seen].join(', ')} }\n`
  const { outputFiles } = await build({
    stdin: { contents: text, resolveDir: root, sourcefile: 'entry.js', loader: 'js' },
    absWorkingDir: root,
    bundle: true,
    format: 'iife',
    target: 'es2020',
    platform: 'neutral',
    minify,
    treeShaking: true,
    legalComments: 'none',
    // es2020 knows these, the smallest engines do not: the minifier must not write what the source avoids.
    supported: minify ? { 'optional-chain': false, 'nullish-coalescing': false, 'template-literal': false } : {},
    write: false,
    logLevel: 'silent',
    plugins: [sources],
  })
  return outputFiles[0].text
}
