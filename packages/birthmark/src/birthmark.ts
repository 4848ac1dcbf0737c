#!/usr/bin/env node
// The `birthmark` command. Everything it needs from the process is handed over here.

import { runCommandLine } from './command-line.ts'
import { becomeServer, flagsFor } from './server-process.ts'
import { createTerminal } from './terminal.ts'

becomeServer(process, flagsFor(process.argv[2], process.argv[3]))

// A reader that went away (`birthmark devices | head`) is not a failure of ours.
process.stdout.on('error', error => {
  if ((error as NodeJS.ErrnoException).code === 'EPIPE') process.exit(0)
})

const terminal = createTerminal({ stdout: process.stdout, stderr: process.stderr, env: process.env, now: Date.now })
process.exitCode = await runCommandLine(process.argv.slice(2), terminal)
