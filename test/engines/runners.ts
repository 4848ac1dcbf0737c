// Every engine that the device's script runs on here, and how it is given a recorded story. Each returns what the engine says it is called and
// the lines it told; it throws where the engine asks for anything that the recording did not.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { newQuickJSWASMModuleFromVariant } from 'quickjs-emscripten-core'
import { root } from '../../tools/device-bundle.ts'
import { es5 } from '../../tools/es5.ts'
import { linesOf, type Recorded, replayScript } from './recorded.ts'
import { playOnXs } from './xs.ts'

export interface Told {
  version: string
  lines: string[]
}

export interface Engine {
  name: string
  from: string
  play(recorded: Recorded): Promise<Told>
}

/** Runs `program` with the replay as a file; it prints its version and then what it was told. */
function playInProgram(program: string, script: string): Told {
  const folder = mkdtempSync(join(tmpdir(), 'engine-'))
  const file = join(folder, 'story.cjs')
  writeFileSync(file, script)
  const { error, status, stdout, stderr } = spawnSync(program, [file], { encoding: 'utf8', timeout: 60_000 })
  rmSync(folder, { recursive: true })
  if (error || status !== 0 || stderr) throw error ?? new Error(`${program} exited ${status}: ${stderr}`)
  const [version, ...lines] = stdout.trimEnd().split('\n')
  return { version, lines }
}

/** A program that a package brings, to the workspace or to its tests. */
function packaged(path: string): string {
  const program = [join(root, 'node_modules', path), join(root, 'test/node_modules', path)].find(existsSync)
  if (!program) throw new Error(`no package brings ${path} to ${process.platform}-${process.arch}, or it is not installed`)
  return program
}

const onNodeLike = (version: string, recorded: Recorded): string =>
  `${recorded.bundles}\n${replayScript(recorded)}\nconsole.log(${version} + '\\n' + told)`

export const xsVersion = (): string => {
  const { version } = JSON.parse(readFileSync(join(root, 'test/node_modules/@agoric/xsnap/package.json'), 'utf8')) as {
    version: string
  }
  const header = readFileSync(join(root, 'test/node_modules/@agoric/xsnap/moddable/xs/sources/xsCommon.h'), 'utf8')
  const number = (name: string) => new RegExp(`#define XS_${name}_VERSION (\\d+)`).exec(header)?.[1]
  return `XS ${number('MAJOR')}.${number('MINOR')} (@agoric/xsnap ${version})`
}

export const engines: Engine[] = [
  {
    name: 'Node 24',
    from: 'the registry',
    play: async recorded =>
      playInProgram(
        packaged(`node-${process.platform}-${process.arch}/bin/node`),
        onNodeLike("'Node ' + process.versions.node", recorded),
      ),
  },
  {
    name: 'Node 26',
    from: 'the registry',
    play: async recorded =>
      playInProgram(
        packaged(`node26-${process.platform}-${process.arch}/bin/node`),
        onNodeLike("'Node ' + process.versions.node", recorded),
      ),
  },
  {
    name: 'Bun',
    from: 'the registry',
    play: async recorded => {
      const name = process.arch === 'x64' ? 'x64' : 'aarch64'
      return playInProgram(packaged(`@oven/bun-${process.platform}-${name}/bin/bun`), onNodeLike("'Bun ' + Bun.version", recorded))
    },
  },
  {
    name: 'XS',
    from: 'C sources in the registry, compiled for 32 bits, in a heap of 64 KB',
    play: async recorded => ({
      version: xsVersion(),
      lines: linesOf((await playOnXs(recorded, 65_536)).flat().map(({ asked }) => asked)),
    }),
  },
  {
    name: 'QuickJS',
    from: 'the registry, WebAssembly, in 1 MB that holds the recording too',
    async play(recorded) {
      const runtime = (await newQuickJSWASMModuleFromVariant(import('@jitl/quickjs-wasmfile-release-sync'))).newRuntime()
      runtime.setMemoryLimit(1 << 20)
      const context = runtime.newContext()
      context.unwrapResult(context.evalCode(`${recorded.bundles}\n${replayScript(recorded)}`)).dispose()
      const lines = context.getProp(context.global, 'told').consume(context.getString).split('\n')
      context.dispose()
      runtime.dispose()
      return { version: 'QuickJS (quickjs-emscripten 0.32)', lines }
    },
  },
  {
    name: 'Duktape',
    from: 'Debian, lowered to ES5',
    play: async recorded =>
      playInProgram(
        'duk',
        `${await es5(recorded.bundles)}\n${await es5(replayScript(recorded))}\nprint('Duktape ' + [Duktape.version / 10000 | 0, Duktape.version / 100 % 100 | 0, Duktape.version % 100].join('.'))\nprint(told)\n`,
      ),
  },
]
