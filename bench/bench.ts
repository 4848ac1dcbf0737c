// `npm run bench -- NAME [--json]`: one benchmark, its table for people, and with --json one last line for programs.
// A benchmark is a module beside this one whose run() measures and checks; it is loaded only when asked for. Further arguments are its own.

import { UsageError } from './usage-error.ts'

interface Bench {
  /** Throws UsageError for arguments that it does not know. */
  run(args: string[]): Promise<{ table: string; figures: Record<string, number> }>
}

const benches: Record<string, { about: string; load: () => Promise<Bench> }> = {
  deny: {
    about: '5,000 sessions cut, CONNECTs refused, and from a commit in SQLite to a device’s last word at an edge',
    load: () => import('./deny.ts'),
  },
  enroll: { about: 'durable enrollments over TLS against the raw limit of their cryptography', load: () => import('./enroll.ts') },
  'enroll-bun': { about: 'the same server on Bun and on Node, enrollments a second of CPU', load: () => import('./enroll-bun.ts') },
  campaign: {
    about: 'a quarter of a million devices planned, denied and revoked beside the serving',
    load: () => import('./campaign.ts'),
  },
  crl: { about: 'revocation lists: a shard, a million entries, and 100,000 revoked at once', load: () => import('./crl.ts') },
  fanout: {
    about: 'one notice to 10,000 subscribers, against mosquitto and aedes',
    load: () => import('./fanout.ts'),
  },
  footprint: { about: "bytes of the device's core and agent", load: () => import('./footprint.ts') },
  import: { about: 'a manifest of a million births against parsing it', load: () => import('./import.ts') },
  kill: { about: 'the server killed under load, a hundred times on each store', load: () => import('./kill.ts') },
  line: {
    about: 'birth certificates against the raw limit, a million units, and a hundred kills',
    load: () => import('./line.ts'),
  },
  notice: { about: 'bytes of notices, rules and proofs against a delta CRL', load: () => import('./notice.ts') },
  ocsp: { about: 'OCSP answers against a raw signature', load: () => import('./ocsp.ts') },
  revoke: { about: 'one notice against 1,000 live MQTT sessions', load: () => import('./revoke.ts') },
  scep: { about: 'SCEP enrollments against raw RSA, scepserver, kills, and EST beside them', load: () => import('./scep.ts') },
  slow: { about: 'honest devices beside a thousand slow ones', load: () => import('./slow-clients.ts') },
  snapshot: {
    about: 'bytes of revoked sets against their entropy, CRL, status list and filter',
    load: () => import('./snapshot.ts'),
  },
  xs: { about: 'memory, stack and steps of the device script on XS for 32 bits', load: () => import('./xs.ts') },
}

const usage = `Usage: npm run bench -- NAME [--json] [OPTIONS]

${Object.entries(benches)
  .map(([name, { about }]) => `  ${name.padEnd(12)}${about}`)
  .join('\n')}

enroll --store postgres: kept-alive enrollments on PostgreSQL against SQLite.
enroll --workers 2: two server processes on one SQLite file against one.

With --json the last line is {"bench": NAME, "figures": {…}}.
`

async function main(args: string[]): Promise<number> {
  const json = args.includes('--json')
  const names = args.filter(arg => arg !== '--json')
  if (names.length === 0 || names.includes('--help') || names.includes('-h')) {
    process.stdout.write(usage)
    return 0
  }
  const [name, ...further] = names
  if (!Object.hasOwn(benches, name)) {
    process.stderr.write(`Unknown benchmark '${name}'.\n\n${usage}`)
    return 2
  }
  const { run } = await benches[name].load()
  // Most take none, and then nothing is ignored.
  if (further.length > 0 && run.length === 0) {
    process.stderr.write(`'${name}' takes no further arguments.\n\n${usage}`)
    return 2
  }
  try {
    const { table, figures } = await run(further)
    process.stdout.write(`${table}\n`)
    if (json) process.stdout.write(`${JSON.stringify({ bench: name, figures })}\n`)
    return 0
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    process.stderr.write(`${error.message}\n\n${usage}`)
    return 2
  }
}

process.exitCode = await main(process.argv.slice(2))
