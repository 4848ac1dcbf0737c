// `birthmark serve` that can be told where to die: the same configuration and the same composition, and SIGKILL at the first call of the step that
// its parent has named, by argument (argv[3]) or later over IPC. Says `serving` over IPC once it serves.

import { randomBytes } from 'node:crypto'
import { flushCompileCache } from 'node:module'
import { systemClock } from '@birthmark/fleet-revocation'
import { compose } from '../../packages/birthmark/src/compose.ts'
import { readConfiguration } from '../../packages/birthmark/src/configuration.ts'
import { fromDisk } from '../../packages/birthmark/src/configuration-files.ts'
import { logTo } from '../../packages/birthmark/src/log.ts'

let dieAt = process.argv[3] ?? ''
process.on('message', step => {
  dieAt = String(step)
})
await compose(readConfiguration(process.argv[2], fromDisk), {
  ...{ clock: systemClock, random: randomBytes, log: logTo(2, 'warn') },
  onFatal: error => {
    throw error
  },
  failpoint(step) {
    if (step === dieAt) process.kill(process.pid, 'SIGKILL')
  },
})
// Whoever is killed leaves the next process what was compiled, where NODE_COMPILE_CACHE says.
flushCompileCache()
process.send?.('serving')
