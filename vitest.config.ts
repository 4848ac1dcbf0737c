import { defineConfig } from 'vitest/config'

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
