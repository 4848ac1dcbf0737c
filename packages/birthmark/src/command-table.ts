// Every command by name. A command's module is loaded when it is called for, so that help and completion of the rest stay instant.

import type { Command } from 'commander'
import type { Terminal } from './terminal.ts'

export interface CommandModule {
  /** Adds options, arguments, help text and actions to `command`, which has its name and summary already. */
  define(command: Command, terminal: Terminal): void
}

export interface CommandEntry {
  name: string
  summary: string
  load(): Promise<CommandModule>
}

export const commandTable: CommandEntry[] = [
  { name: 'dev', summary: 'everything on this machine, for development', load: () => import('./commands/dev.ts') },
  { name: 'init', summary: 'write a configuration and keys for serve', load: () => import('./commands/init.ts') },
  {
    name: 'serve',
    summary: 'the enrollment server and its broker, from a configuration',
    load: () => import('./commands/serve.ts'),
  },
  { name: 'line', summary: 'the factory line: birth certificates and manifests', load: () => import('./commands/line.ts') },
  { name: 'manifest', summary: 'tell the server which units were born', load: () => import('./commands/manifest.ts') },
  { name: 'secret', summary: 'mint a one-time secret for a device', load: () => import('./commands/secret.ts') },
  { name: 'challenge', summary: 'mint SCEP challenges, one by one or by CSV', load: () => import('./commands/challenge.ts') },
  { name: 'enroll', summary: 'enroll this machine as a device', load: () => import('./commands/enroll.ts') },
  { name: 'sim', summary: 'simulated devices that run the real SDK', load: () => import('./commands/sim.ts') },
  { name: 'devices', summary: 'what is out there', load: () => import('./commands/devices.ts') },
  { name: 'revoke', summary: 'take a group back, live sessions included', load: () => import('./commands/revoke.ts') },
  { name: 'readmit', summary: 'let a revoked device enroll again', load: () => import('./commands/readmit.ts') },
  { name: 'trust', summary: 'lift the suspicion that a device is two', load: () => import('./commands/trust.ts') },
  { name: 'clock', summary: 'the clock against the records', load: () => import('./commands/clock.ts') },
  { name: 'ca', summary: 'which issuing CA signs, and the roll-over to the next', load: () => import('./commands/ca.ts') },
  { name: 'profile', summary: 'who may enroll, and what they get', load: () => import('./commands/profile.ts') },
  { name: 'approvals', summary: 'requests that wait for a person', load: () => import('./commands/approvals.ts') },
  {
    name: 'status',
    summary: 'revocation lists and OCSP, as standard consumers see them',
    load: () => import('./commands/status.ts'),
  },
  { name: 'doctor', summary: 'check clock, chain, key usage, name and reachability', load: () => import('./commands/doctor.ts') },
  {
    name: 'audit',
    summary: 'the audit record as a signed file, and its check',
    load: () => import('./commands/audit.ts'),
  },
  { name: 'backup', summary: 'copy the store beside the running server', load: () => import('./commands/backup.ts') },
  { name: 'restore', summary: 'put a backup in the place of the store', load: () => import('./commands/restore.ts') },
  { name: 'fsck', summary: 'prove the whole store again', load: () => import('./commands/fsck.ts') },
  { name: 'completion', summary: 'shell completion for bash, zsh or fish', load: () => import('./commands/completion.ts') },
]
