// Compiles pkcs11js, the one native dependency, on demand: no package may run code while it installs, and most machines need no token. Takes a
// C++ compiler and the headers that the project's own Node package carries; downloads nothing.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, realpathSync, renameSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** Makes the binding if it is not there and loads. Returns null, or what is wrong. */
export function ensurePkcs11Binding() {
  const folder = realpathSync(join(root, 'packages/pkcs11/node_modules/pkcs11js'))
  const binding = join(folder, 'build/Release/pkcs11.node')
  const loads = () => {
    try {
      createRequire(import.meta.url)(binding)
      return null
    } catch (error) {
      return error.message.split('\n')[0]
    }
  }
  if (existsSync(binding) && loads() === null) return null
  const headers = [
    join(root, 'node_modules', `node-${process.platform}-${process.arch}`, 'include/node'),
    join(dirname(dirname(process.execPath)), 'include/node'),
  ].find(path => existsSync(join(path, 'node_api.h')))
  if (!headers) return 'no Node headers: run this with the project’s own Node (npm run pkcs11)'
  mkdirSync(dirname(binding), { recursive: true })
  // Under another name first, so that a compiler that was interrupted leaves no half of a file.
  const made = `${binding}.${process.pid}`
  const args = ['-shared', '-fPIC', '-O2', '-std=c++17', '-w', '-DNAPI_DISABLE_CPP_EXCEPTIONS', `-I${headers}`, '-Iincludes']
  if (process.platform === 'darwin') args.push('-undefined', 'dynamic_lookup')
  const sources = ['src/dl.cpp', 'src/common.cpp', 'src/main.cpp']
  const compiler = process.env.CXX ?? 'c++'
  const { error, status, stderr } = spawnSync(compiler, [...args, ...sources, '-ldl', '-o', made], {
    cwd: folder,
    encoding: 'utf8',
  })
  if (error) return `${compiler}: ${error.message}; install a C++ compiler (Debian: apt-get install g++), or set CXX`
  if (status !== 0) return `${compiler} exited ${status}\n${stderr.slice(0, 2000)}`
  renameSync(made, binding)
  return loads()
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const wrong = ensurePkcs11Binding()
  process.stdout.write(wrong === null ? 'pkcs11js: compiled, and it loads\n' : `pkcs11js: ${wrong}\n`)
  process.exit(wrong === null ? 0 : 1)
}
