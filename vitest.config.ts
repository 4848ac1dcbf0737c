import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

// Threads and programs under test run TypeScript sources. Node strips their types with WebAssembly, compiled anew in every thread: half of what it
// costs to open a store and close it, and code of the kind that V8, which registers the compiled pages of all threads in one place, is known to lose
// and to end the process of (nodejs/node#64500). Node's compile cache keeps the stripped text: the threads then run plain JavaScript, as they do in
// the built packages.
process.env.NODE_COMPILE_CACHE ??= fileURLToPath(new URL('.work/compile-cache', import.meta.url))

// Tests run the sources: the same `source` export condition that the programs under test are started with.
export default defineConfig({
  resolve: { conditions: ['source'] },
  ssr: { resolve: { conditions: ['source'], externalConditions: ['source'] } },
  test: {
    include: ['packages/*/src/**/*.test.ts', 'test/**/*.test.ts', 'examples/**/*.test.ts', 'bench/**/*.test.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // A test file opens and ends dozens of threads, each of which would compile at once what it hardly runs: V8 13.6 now and then loses one of their
    // pages ("Check failed: jit_page.has_value()") and ends the process.
    execArgv: ['--conditions=source', '--disable-warning=ExperimentalWarning', '--no-sparkplug'],
  },
})
