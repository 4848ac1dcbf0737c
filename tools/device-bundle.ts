// The device side as one script, as a firmware team would flash it. The subset lint reads it, the footprint benchmark weighs it and a test
// enrolls with it, so that all three speak of the same bytes. Nothing from outside goes in: no `node:`, no package but ours.
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, type Plugin, transform } from 'esbuild'
import { withArrows, withCallsInPlace, withConstantsInPlace, withoutDetails, withoutUnset } from './shrink.ts'
import { withTriedNames } from './tried-names.ts'

export const root = dirname(dirname(fileURLToPath(import.meta.url)))

const core = 'packages/device-sdk/src/core/index.ts'
const agent = 'packages/device-sdk/src/agent/index.ts'
const receiver = 'packages/fleet-revocation/src/device.ts'
export const entries = { core, agent, receiver }

/** A workspace import from the device side resolves to the sources. */
const sources: Plugin = {
  name: 'device-sources',
  setup(bundler) {
    bundler.onResolve({ filter: /^@birthmark\/device-sdk\/(core|agent)$/ }, ({ path }) => ({
      path: join(root, 'packages/device-sdk/src', path.slice(path.lastIndexOf('/') + 1), 'index.ts'),
    }))
  },
}

/** Names that an entry (relative to the repository) exports as values. */
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

/** An entry that puts every named export into one global object. esbuild's own export helpers would close over a loop's `let`. */
function entryOf(exported: Exported): string {
  const names = Object.values(exported).flat()
  const imports = Object.entries(exported).map(([file, names]) => `import { ${names.join(', ')} } from './${file}'\n`)
  return `${imports.join('')}globalThis.birthmark = { ${names.join(', ')} }\n`
}

async function bundle(contents: string, format: 'iife' | 'esm', minifySyntax: boolean): Promise<string> {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: root, sourcefile: 'entry.js', loader: 'js' },
    absWorkingDir: root,
    bundle: true,
    format,
    target: 'es2020',
    platform: 'neutral',
    minifySyntax,
    supported: minifySyntax ? avoided : {},
    legalComments: 'none',
    write: false,
    logLevel: 'silent',
    plugins: [sources],
  })
  return outputFiles[0].text
}

// es2020 knows these, the smallest engines do not: the minifier must not write what the sources avoid.
const avoided = { 'optional-chain': false, 'nullish-coalescing': false, 'template-literal': false }

/**
 * Properties of values that are made and read inside the bundle alone, shortened as local names are. What a port, a caller or a listener
 * sees keeps its name: ports, settings, status, requests, of Identity `generation`, `state` and `chain`, of its certificates `der` and
 * `notAfter`.
 */
const inner =
  /^(bytes|tag|head|content|end|value|text|first|type|serial|bits|kind|detail|anchors|time|certificate|subject|since|csr|oid|critical|tbs|issuer|notBefore|spki|keyAlgorithm|keyBits|signatureAlgorithm|signature|extensions|isCa|pathLength|keyUsage|extendedKeyUsage|subjectAltNames|subjectKeyId|authorityKeyId|purpose|understoodCritical|depthMax|signaturesMax|nameConstraints|foldName|serialNumber|hardwareModuleName|certificates|reenroll|basic|pending)$/

/** What to put into a bundle: names by file, relative to the repository. */
export type Exported = Record<string, string[]>

/** Every export of `files`, each name once. */
export async function everything(...files: string[]): Promise<Exported> {
  const out: Exported = {}
  const seen = new Set<string>()
  for (const file of files) {
    out[file] = (await exportsOf(file)).filter(name => !seen.has(name))
    for (const name of out[file]) seen.add(name)
  }
  return out
}

/** What a device calls. The rest of core and agent comes along as far as it is reached. */
export const deviceEntry: Exported = { [agent]: ['createAgent'] }

/** One script in the sources' own constructs, with esbuild's `// path` comments. */
export async function plainBundle(exported: Exported): Promise<string> {
  return bundle(entryOf(exported), 'iife', false)
}

/** The script as esbuild alone minifies it. */
export async function minifiedBundle(exported: Exported): Promise<string> {
  return (await transform(await bundle(entryOf(exported), 'iife', true), { target: 'es2020', minify: true, supported: avoided }))
    .code
}

/** Options of a path search that servers set and the agent does not. */
const unsetOnDevices = ['nameConstraints', 'foldName']

async function shrunk(exported: Exported, unset: string[] = []): Promise<{ code: string; properties: string[] }> {
  // A module until the last step, so that constants and functions whose places were taken fall away.
  const whole = withoutUnset(withoutDetails(await bundle(entryOf(exported), 'esm', true)), unset)
  const { code, mangleCache = {} } = await transform(withArrows(withCallsInPlace(withConstantsInPlace(whole))), {
    target: 'es2020',
    format: 'iife',
    minify: true,
    treeShaking: true,
    supported: avoided,
    mangleProps: inner,
    mangleCache: {},
  })
  return { code, properties: Object.values(mangleCache).filter(name => name !== false) }
}

/** The script as flashed but for its last step, which takes seconds: what shrink.ts does, inner properties shortened, minified. */
export async function flashBundle(exported: Exported): Promise<string> {
  return (await shrunk(exported)).code
}

let flashed: Promise<string> | undefined

/** The script that a device flashes: `deviceEntry`, its names tried out for gzip. */
export function deviceScript(): Promise<string> {
  flashed ??= shrunk(deviceEntry, unsetOnDevices).then(({ code, properties }) => withTriedNames(code, properties))
  return flashed
}
