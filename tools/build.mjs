// Builds what is published: each package's public entries, read from its own `exports` and `bin`, to ESM in dist/ with declarations.
//
//   build.mjs [PACKAGE [FOLDER]]     one package alone, its dist/ in another folder
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'tsup'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** `{ 'core/index': './src/core/index.ts' }`: dist path without ending → source. */
function entriesOf(manifest) {
  const entries = {}
  for (const target of Object.values(manifest.exports ?? {}))
    if (target.source) entries[target.default.replace(/^\.\/dist\/|\.js$/g, '')] = target.source
  return entries
}

/** A relative `.ts` import means nothing beside a `.d.ts`: say `.js`, which every resolver maps back to the declaration. */
function rewriteDeclarations(folder) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) rewriteDeclarations(path)
    else if (entry.name.endsWith('.d.ts'))
      writeFileSync(path, readFileSync(path, 'utf8').replace(/((?:from|import\()\s*['"]\.[^'"]*)\.ts(['"])/g, '$1.js$2'))
  }
}

const [only, elsewhere] = process.argv.slice(2)
for (const name of only ? [only] : ['device-sdk', 'fleet-revocation', 'est-server', 'pkcs11', 'factory-line', 'birthmark']) {
  const folder = join(root, 'packages', name)
  const dist = join(elsewhere ?? folder, 'dist')
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  const entry = entriesOf(manifest)
  rmSync(dist, { recursive: true, force: true })
  process.chdir(folder)
  await build({
    // Whole paths: esbuild resolves relative ones against the folder that this program was started in.
    entry: Object.fromEntries(Object.entries(entry).map(([path, source]) => [path, join(folder, source)])),
    format: 'esm',
    target: 'es2022',
    platform: 'neutral',
    splitting: true,
    sourcemap: true,
    dts: false,
    silent: true,
    config: false,
    outDir: dist,
    external: [/^node:/],
    // node:sqlite has no name without the prefix.
    removeNodeProtocol: false,
  })
  const config = join(dist, 'tsconfig.json')
  writeFileSync(
    config,
    JSON.stringify({
      extends: join(root, 'tsconfig.json'),
      compilerOptions: {
        noEmit: false,
        declaration: true,
        emitDeclarationOnly: true,
        outDir: dist,
        typeRoots: [join(root, 'node_modules/@types')],
        rootDir: join(folder, 'src'),
        customConditions: [],
      },
      // The whole repository's otherwise, by inheritance.
      include: [],
      files: Object.values(entry).map(source => join(folder, source)),
    }),
  )
  const { status } = spawnSync(join(root, 'node_modules/.bin/tsc'), ['-p', config], { stdio: 'inherit' })
  rmSync(config)
  if (status !== 0) process.exit(1)
  rewriteDeclarations(dist)
  const missing = Object.keys(entry).filter(
    path => !existsSync(join(dist, `${path}.js`)) || (manifest.name !== 'birthmark' && !existsSync(join(dist, `${path}.d.ts`))),
  )
  if (missing.length) {
    process.stderr.write(`${manifest.name}: the build lacks ${missing.join(', ')}\n`)
    process.exit(1)
  }
  process.stdout.write(`✔ ${manifest.name}: ${Object.keys(entry).join(', ')}\n`)
}
