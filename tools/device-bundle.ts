// The device side as one script, as a firmware team would flash it. The subset lint reads it, the footprint benchmark weighs it and a test
// enrolls with it, so that all three speak of the same bytes. Nothing from outside goes in: no `node:`, no package but ours.
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type FunctionDeclaration, type Node, parse } from 'acorn'
import { build, type Plugin, transform } from 'esbuild'

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

async function bundle(contents: string, minifySyntax: boolean): Promise<string> {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: root, sourcefile: 'entry.js', loader: 'js' },
    absWorkingDir: root,
    bundle: true,
    format: 'iife',
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
 * sees keeps its name: ports, settings, status, requests, Identity, and `der` and `notAfter` of its certificates.
 */
const inner =
  /^(bytes|tag|oid|critical|tbs|issuer|notBefore|spki|keyAlgorithm|keyBits|signatureAlgorithm|signature|extensions|isCa|pathLength|keyUsage|extendedKeyUsage|subjectAltNames|subjectKeyId|authorityKeyId|purpose|understoodCritical|depthMax|signaturesMax|nameConstraints|sameName|serialNumber|hardwareModuleName|certificates|reenroll|basic|pending)$/

/** `function f(a) { … }` as `const f = a => { … }`: the same in this subset (no `this`, no `arguments`, no hoisting), and shorter. */
function asArrows(code: string): string {
  const edits: { at: number; to: number; text: string }[] = []
  const walk = (node: Node) => {
    if (node.type === 'FunctionDeclaration') {
      const { id, params, body, start, end } = node as FunctionDeclaration
      const names = params.map(one => code.slice(one.start, one.end)).join(', ')
      edits.push({ at: start, to: body.start, text: `var ${id.name} = (${names}) => ` }, { at: end, to: end, text: ';' })
    }
    for (const value of Object.values(node).flat())
      if (value && typeof value === 'object' && typeof value.type === 'string') walk(value as Node)
  }
  walk(parse(code, { ecmaVersion: 2020 }))
  let out = code
  for (const { at, to, text } of edits.sort((a, b) => b.at - a.at)) out = out.slice(0, at) + text + out.slice(to)
  return out
}

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
  return bundle(entryOf(exported), false)
}

/** The script as esbuild alone minifies it. */
export async function minifiedBundle(exported: Exported): Promise<string> {
  return (await transform(await bundle(entryOf(exported), true), { target: 'es2020', minify: true, supported: avoided })).code
}

/** The script as flashed: minified, functions as arrows, inner properties shortened. */
export async function flashBundle(exported: Exported): Promise<string> {
  const plain = asArrows(await bundle(entryOf(exported), true))
  return (await transform(plain, { target: 'es2020', minify: true, supported: avoided, mangleProps: inner })).code
}
