// Keeps the import arrows of the house: which floor may import which. A line per broken arrow, exit 1 if there is one.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

// Ours that a package may name, by specifier. Third-party and node: specifiers are judged by `bare` below.
const mayImport = {
  'device-sdk': [],
  'fleet-revocation': ['@birthmark/device-sdk/core', '@birthmark/device-sdk/agent'],
  'factory-line': ['@birthmark/device-sdk/core'],
  'est-server': ['@birthmark/device-sdk/core'],
  pkcs11: ['@birthmark/device-sdk/core', '@birthmark/est-server', '@birthmark/est-server/secret-source'],
  birthmark: [
    '@birthmark/device-sdk/core',
    '@birthmark/device-sdk/node',
    '@birthmark/device-sdk/agent',
    '@birthmark/est-server',
    '@birthmark/factory-line',
    '@birthmark/fleet-revocation',
    '@birthmark/fleet-revocation/broker',
    '@birthmark/fleet-revocation/device',
    '@birthmark/pkcs11',
  ],
}

// Folders inside a package that may not see each other: [importer, imported, why].
const walls = [
  ...['wire', 'registrar', 'ca', 'store'].flatMap(a =>
    ['wire', 'registrar', 'ca', 'store', 'http'].filter(b => b !== a).map(b => [`est-server/src/${a}/`, `est-server/src/${b}/`]),
  ),
  ['est-server/src/fleet/', 'est-server/src/http/'],
  ['est-server/src/http/', 'est-server/src/ca/'],
  ['est-server/src/http/', 'est-server/src/store/'],
  ['device-sdk/src/core/', 'device-sdk/src/agent/'],
  ['device-sdk/src/core/', 'device-sdk/src/ports/'],
  ['device-sdk/src/core/', 'device-sdk/src/testing/'],
  ['device-sdk/src/agent/', 'device-sdk/src/ports/'],
  ['device-sdk/src/agent/', 'device-sdk/src/testing/'],
  ['device-sdk/src/ports/', 'device-sdk/src/testing/'],
]

const pureFolders = ['device-sdk/src/core/', 'device-sdk/src/agent/']

function sources(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap(entry => {
    if (entry.name === 'node_modules' || entry.name === 'dist') return []
    const path = join(folder, entry.name)
    return entry.isDirectory() ? sources(path) : /(?<!\.test)\.ts$/.test(entry.name) ? [path] : []
  })
}

const importLine =
  /(?:^|\n)\s*(?:import|export)\s+(?:type\s+)?(?:[^'";]*?\sfrom\s+)?['"]([^'"]+)['"]|import\(\s*['"]([^'"]+)['"]\s*\)/g

const broken = []
const packages = join(root, 'packages')
for (const file of sources(packages)) {
  const at = relative(packages, file)
  const owner = at.split('/')[0]
  const text = readFileSync(file, 'utf8')
  for (const match of text.matchAll(importLine)) {
    const specifier = match[1] ?? match[2]
    const isType = /^\s*(?:import|export)\s+type\s/.test(match[0])
    const say = why => broken.push(`packages/${at}: '${specifier}' ${why}`)
    if (specifier.startsWith('.')) {
      const target = relative(packages, resolve(dirname(file), specifier))
      if (target.split('/')[0] !== owner) say('reaches into another package by path')
      for (const [from, to] of walls)
        if (at.startsWith(from) && target.startsWith(to) && !(isType && typeOnly.has(`${from} ${to}`)))
          say(`crosses the wall ${from} → ${to}`)
      if (/\/core\/index\.ts$/.test(target) && at.startsWith('device-sdk/')) say('imports a barrel from inside its own package')
      continue
    }
    if (specifier.startsWith('@birthmark/') || specifier === 'birthmark') {
      // A test kit may build on the device SDK's.
      const kit = at.includes('/src/testing/') && specifier === '@birthmark/device-sdk/testing'
      if (!kit && !(mayImport[owner] ?? []).includes(specifier)) say(`is not a floor that ${owner} stands on`)
      continue
    }
    if (pureFolders.some(folder => at.startsWith(folder))) say('is outside the device core: nothing but the package itself')
    if (owner === 'device-sdk' && !specifier.startsWith('node:')) say('is a runtime dependency: the device SDK has none')
  }
}

for (const line of broken) process.stdout.write(`${line}\n`)
process.stdout.write(broken.length ? `${broken.length} broken import arrows\n` : 'import arrows: kept\n')
process.exit(broken.length ? 1 : 0)
