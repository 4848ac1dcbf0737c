// The door to every task, for any Node ≥ 18: installs what the lock file names, then runs the task on the project's own Node 24.
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const pnpmVersion = '12.21.0'

const tasks = {
  demo: ['packages/birthmark/src/demo.ts'],
  birthmark: ['packages/birthmark/src/birthmark.ts'],
  bench: ['bench/bench.ts'],
  test: ['tools/test.mjs'],
  pkcs11: ['tools/pkcs11.mjs'],
  build: ['tools/build.mjs'],
  lint: ['tools/lint.mjs'],
  format: ['node_modules/@biomejs/biome/bin/biome', 'check', '--write', '.'],
  typecheck: ['tools/typecheck.mjs'],
  vitest: ['node_modules/vitest/vitest.mjs', 'run'],
}

function lockDigest() {
  const hash = createHash('sha256')
  for (const file of ['pnpm-lock.yaml', 'pnpm-workspace.yaml', 'package.json']) hash.update(readFileSync(join(root, file)))
  for (const name of readdirSync(join(root, 'packages')).sort()) {
    const file = join(root, 'packages', name, 'package.json')
    if (existsSync(file)) hash.update(readFileSync(file))
  }
  return hash.digest('hex')
}

function install() {
  const stamp = join(root, 'node_modules', '.birthmark-install')
  const digest = lockDigest()
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === digest) return
  process.stderr.write('Installing what pnpm-lock.yaml names (once; about a minute)\n')
  // CI=true keeps pnpm from asking a question nobody is there to answer.
  const options = { cwd: root, stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, CI: 'true' } }
  const npm = spawnSync('npm', ['exec', '--yes', `pnpm@${pnpmVersion}`, '--', 'install', '--frozen-lockfile'], options)
  if (npm.status !== 0) {
    process.stderr.write(
      `${npm.stdout ?? ''}\nThe install failed. Is the package registry reachable, and is npm on PATH? Try: npm ping\n`,
    )
    process.exit(npm.status ?? 1)
  }
  writeFileSync(stamp, digest)
}

function projectNode() {
  const own = join(root, 'node_modules', `node-${process.platform}-${process.arch}`, 'bin', 'node')
  if (existsSync(own)) return own
  if (Number(process.versions.node.split('.')[0]) >= 24) return process.execPath
  process.stderr.write(
    `No Node 24 package for ${process.platform}-${process.arch}: install Node ≥ 24 and run this again with it.\n`,
  )
  process.exit(1)
}

const [name, ...args] = process.argv.slice(2)
const task = tasks[name]
if (!task) {
  process.stderr.write(`Unknown task '${name ?? ''}'. Tasks: ${Object.keys(tasks).join(', ')}\n`)
  process.exit(2)
}
install()
const node = projectNode()
const [script, ...fixed] = task
const child = spawn(node, ['--conditions=source', '--disable-warning=ExperimentalWarning', join(root, script), ...fixed, ...args], {
  cwd: name === 'birthmark' ? process.cwd() : root,
  stdio: 'inherit',
  env: { ...process.env, PATH: `${dirname(node)}:${process.env.PATH}`, BIRTHMARK_NODE: node },
})
// Ctrl-C reaches the task as well, and the task says when it is over: a server first closes what it has open.
process.on('SIGINT', () => {})
// Sent to one process, as by kill or timeout: a server left behind would keep its ports and its state.
for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
child.on('error', error => {
  process.stderr.write(`${node}: ${error.message}\n`)
  process.exit(1)
})
child.on('exit', (code, signal) => process.exit(code ?? 128 + constants.signals[signal]))
