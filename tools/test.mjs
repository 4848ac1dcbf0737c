// The whole judgement, in the order in which a failure is cheapest: packages, style, types, build, tests, and the built command once.
// In CI nothing may be left out: a missing package or a skipped test is a failure there.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ensureDebianPackages } from './debian.mjs'
import { ensurePkcs11Binding } from './pkcs11.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const ci = Boolean(process.env.CI)
const report = join(root, '.work', 'vitest.json')
const started = Date.now()

function step(title, args) {
  process.stdout.write(`\n── ${title} ${'─'.repeat(Math.max(0, 70 - title.length))}\n`)
  const { status, signal } = spawnSync(process.execPath, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
  if (status !== 0) process.stdout.write(`✘ ${title} ${signal ? `ended by ${signal}` : `exited ${status}`}\n`)
  return status === 0
}

const missing = ensureDebianPackages()
const failures = []
const must = (title, good) => good || failures.push(title)
must('Debian packages', missing.length === 0 || !ci)
const binding = ensurePkcs11Binding()
if (binding !== null) process.stdout.write(`pkcs11js: ${binding}\n`)
must('PKCS #11 binding', binding === null)
must('XS', step('XS', ['tools/xs.mjs']))
must('lint', step('lint', ['tools/lint.mjs']))
must('types', step('types', ['tools/typecheck.mjs']))
must('build', step('build', ['tools/build.mjs']))
must('built command', step('the built command', ['packages/birthmark/dist/birthmark.js', '--help']))

mkdirSync(dirname(report), { recursive: true })
rmSync(report, { force: true })
const vitest = [
  'node_modules/vitest/vitest.mjs',
  'run',
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${report}`,
  ...process.argv.slice(2),
]
must('tests', step('tests', vitest))

let counts = { numPassedTests: 0, numFailedTests: 1, numPendingTests: 0, numTodoTests: 0 }
try {
  counts = JSON.parse(readFileSync(report, 'utf8'))
} catch (error) {
  process.stdout.write(`no test report: ${error.message}\n`)
}
const skipped = counts.numPendingTests + counts.numTodoTests
must('skipped tests', !(ci && skipped > 0))
must('no test ran', counts.numPassedTests > 0)
const failed = counts.numFailedTests + failures.filter(name => name !== 'tests' || counts.numFailedTests === 0).length

process.stdout.write(`\n${Math.round((Date.now() - started) / 1000)} s`)
process.stdout.write(failures.length ? `; failed: ${failures.join(', ')}\n` : '\n')
process.stdout.write(`tests: ${counts.numPassedTests} passed, ${failed} failed, ${skipped} skipped\n`)
process.exit(failures.length ? 1 : 0)
