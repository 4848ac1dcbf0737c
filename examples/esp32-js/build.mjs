// Makes what a board flashes, into build/: `node build.mjs moddable DEVICE_FOLDER` or `node build.mjs espruino`. DEVICE_FOLDER is what the server writes
// for its devices: whom to trust and where to go. What the board brings stays an import (Moddable) or a parameter (Espruino).
import { createHash, createPublicKey, X509Certificate } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const here = dirname(fileURLToPath(import.meta.url))

/** Every PEM block of a file, as `read` makes DER of it. */
function pemBlocks(file, read) {
  return (readFileSync(file, 'utf8').match(/-----BEGIN [^-]+-----[^-]+-----END [^-]+-----/g) ?? []).map(read)
}

/** The server's device folder as a module of constants: byte strings in hex. */
export function fleetModule(folder, builtAt) {
  const { fleet, est, mqtt } = JSON.parse(readFileSync(join(folder, 'fleet.json'), 'utf8'))
  const address = url => ({ host: new URL(url).hostname, port: Number(new URL(url).port) })
  const certificates = name => pemBlocks(join(folder, name), pem => new X509Certificate(pem).raw.toString('hex'))
  const noticeSigners = pemBlocks(join(folder, 'notice-key.pem'), pem => {
    const key = createPublicKey(pem)
    const spki = key.export({ type: 'spki', format: 'der' })
    const keyId = createHash('sha256').update(spki).digest('hex').slice(0, 16)
    // ES256 or EdDSA, by COSE.
    return { keyId, algorithm: key.asymmetricKeyType === 'ec' ? -7 : -8, spki: spki.toString('hex') }
  })
  const constants = {
    fleet,
    est: address(est),
    mqtt: address(mqtt),
    builtAt,
    serverAnchors: certificates('server-ca.pem'),
    birthAnchors: certificates('birth-ca.pem'),
    operationalAnchors: certificates('operational-ca.pem'),
    noticeSigners,
  }
  return `export default ${JSON.stringify(constants, null, 2)}\n`
}

const bundles = {
  moddable: { file: 'birthmark.js', contents: "export * from './moddable/birthmark.js'", format: 'esm', supported: {} },
  espruino: {
    file: 'main.js',
    // esbuild's own CommonJS would bring getters and for…of with it.
    contents: "import { main } from './espruino/main.js'; give(main)",
    format: 'iife',
    banner: { js: '(function(give){' },
    footer: { js: '})(function(main){exports.main=main})' },
    // Espruino has neither template literals' tags nor these.
    supported: { 'optional-chain': false, 'nullish-coalescing': false, 'template-literal': false },
  },
}

/** `conditions`: `['source']` takes the workspace's sources in place of what was built of them. */
export async function buildBoard(board, folder, out, conditions = []) {
  const { file, contents, ...form } = bundles[board]
  mkdirSync(out, { recursive: true })
  if (folder) writeFileSync(join(out, 'fleet.js'), fleetModule(folder, Math.floor(Date.now() / 1000)))
  await build({
    stdin: { contents, resolveDir: here },
    outfile: join(out, file),
    bundle: true,
    minify: true,
    target: 'es2020',
    conditions,
    ...form,
  })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [board, folder] = process.argv.slice(2)
  if (!Object.hasOwn(bundles, board ?? '') || (board === 'moddable' && !folder)) {
    process.stderr.write('node build.mjs moddable DEVICE_FOLDER\nnode build.mjs espruino\n')
    process.exit(2)
  }
  await buildBoard(board, folder, join(here, 'build'))
}
