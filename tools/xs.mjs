// Compiles XS, Moddable's engine, with a small host of ours, for 32 bits as on a microcontroller. Its C sources come with the registry's
// @agoric/xsnap, which is installed for them alone. What is made lies under .work and is kept until a source or the host changes.
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, renameSync, rmSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const hostSource = join(root, 'test/engines/xs/host.c')

const flags = [
  '-m32 -O1 -w -fno-common -ffunction-sections -fdata-sections -DINCLUDE_XSPLATFORM -DXSPLATFORM="xsnapPlatform.h" -DmxMetering=1',
  '-DmxNoConsole=1 -DmxParse=1 -DmxRun=1 -DmxSloppy=1 -DmxInstrument -DmxSnapshot=1 -DmxRegExpUnicodePropertyEscapes=1',
  '-DmxStringNormalize=1 -DmxMinusZero=1 -DmxStress=1',
].flatMap(line => line.split(' '))

function sourcesOf(xsnap) {
  const folder = join(xsnap, 'moddable/xs/sources')
  return [
    ...readdirSync(folder)
      .filter(name => name.endsWith('.c'))
      .map(name => join(folder, name)),
    hostSource,
  ]
}

function digestOf(sources) {
  const hash = createHash('sha256').update(flags.join(' '))
  for (const source of sources) hash.update(readFileSync(source))
  return hash.digest('hex').slice(0, 16)
}

/** Runs `cc`; '' or what it said. */
function cc(args) {
  return new Promise(resolve => {
    const child = spawn(process.env.CC ?? 'gcc', args, { stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.on('data', chunk => {
      said += chunk
    })
    child.on('error', error => resolve(`${error.message}; install a C compiler for 32 bits (Debian: apt-get install gcc-multilib)`))
    child.on('close', status => resolve(status === 0 ? '' : said.slice(0, 2000) || `gcc exited ${status}`))
  })
}

async function compile(xsnap, sources, folder) {
  const includes = ['moddable/xs/includes', 'moddable/xs/platforms', 'moddable/xs/sources', 'xsnap-native/xsnap/sources']
  const options = [...flags, ...includes.map(path => `-I${join(xsnap, path)}`)]
  const objects = sources.map(source => join(folder, `${basename(source, '.c')}.o`))
  // The longest first.
  const waiting = sources
    .map((source, at) => ({ source, object: objects[at], length: readFileSync(source).length }))
    .sort((a, b) => b.length - a.length)
  const wrong = []
  const work = async () => {
    for (let one = waiting.shift(); one && wrong.length === 0; one = waiting.shift()) {
      const said = await cc([...options, '-c', one.source, '-o', one.object])
      if (said) wrong.push(said)
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, work))
  return wrong[0] ?? cc(['-m32', '-Wl,--gc-sections', ...objects, '-ldl', '-lm', '-lpthread', '-o', join(folder, 'host')])
}

/** Where the host is, made if need be. Throws with what is wrong. */
export async function ensureXsHost() {
  const xsnap = realpathSync(join(root, 'test/node_modules/@agoric/xsnap'))
  const sources = sourcesOf(xsnap)
  const made = join(root, '.work', `xs-${digestOf(sources)}`)
  const host = join(made, 'host')
  if (existsSync(host)) return host
  // In a folder of its own first: a compiler that was interrupted leaves no half of a host.
  const folder = `${made}.${process.pid}`
  mkdirSync(folder, { recursive: true })
  const wrong = await compile(xsnap, sources, folder)
  if (wrong) throw new Error(`XS: ${wrong}`)
  try {
    renameSync(folder, made)
  } catch (error) {
    // Another process was quicker.
    if (!existsSync(host)) throw error
    rmSync(folder, { recursive: true })
  }
  if (spawnSync(host).status !== 2) throw new Error(`XS: ${host} does not start; is it a machine that runs 32-bit programs?`)
  return host
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    process.stdout.write(`XS: ${await ensureXsHost()}\n`)
  } catch (error) {
    process.stdout.write(`${error.message}\n`)
    process.exit(1)
  }
}
