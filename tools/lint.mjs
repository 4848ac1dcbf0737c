// Style, import arrows and the device subset, in that order; all run, and one failure fails the whole.
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const checks = [
  ['node_modules/@biomejs/biome/bin/biome', 'ci', '--max-diagnostics=50', ...(process.stdout.isTTY ? [] : ['--colors=off']), '.'],
  ['tools/lint-arrows.mjs'],
  ['tools/lint-subset.mjs'],
]
const failed = checks.filter(
  ([script, ...args]) => spawnSync(process.execPath, [join(root, script), ...args], { cwd: root, stdio: 'inherit' }).status !== 0,
)
process.exit(failed.length ? 1 : 0)
