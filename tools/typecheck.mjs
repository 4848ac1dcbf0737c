// Types twice: everything with Node's types, then the device core and agent with none, as an engine without Node would see them.
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
let failed = false
for (const project of ['tsconfig.json', 'tsconfig.device.json']) {
  const { status } = spawnSync(join(root, 'node_modules/.bin/tsc'), ['-p', project], { cwd: root, stdio: 'inherit' })
  failed ||= status !== 0
}
process.stdout.write(failed ? 'types: broken\n' : 'types: good\n')
process.exit(failed ? 1 : 0)
