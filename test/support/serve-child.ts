// `birthmark serve` that can be told where to die: the same configuration and the same composition, and SIGKILL at the first call of the step that
// its parent has named. Over IPC: it is told once what to serve (a Beginning), and after that, at any time, where to die; it says `serving`.
// Until it is told it has loaded its modules and has looked at nothing: whoever ends is succeeded at once.

import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { flushCompileCache } from 'node:module'
import { systemClock } from '@birthmark/fleet-revocation'
import { compose } from '../../packages/birthmark/src/compose.ts'
import { readConfiguration } from '../../packages/birthmark/src/configuration.ts'
import { fromDisk } from '../../packages/birthmark/src/configuration-files.ts'
import { logTo } from '../../packages/birthmark/src/log.ts'

export interface Beginning {
  /** Of the configuration file. */
  path: string
  dieAt: string
}

let [{ path, dieAt }] = (await once(process, 'message')) as [Beginning]
process.on('message', step => {
  dieAt = String(step)
})
await compose(readConfiguration(path, fromDisk), {
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
