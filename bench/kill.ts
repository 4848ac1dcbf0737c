// `kill`: at least a hundred kill −9 of the server under enrollment load for each store, half of them at a named failpoint. Nothing that was
// acknowledged may be lost, no request may have two certificates, nothing may be signed without a record.

import { type KillReport, killLoop } from '../test/support/kill-loop.ts'

const kills = 100

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const reports: [string, KillReport][] = []
  for (const kind of ['sqlite', 'postgres'] as const)
    reports.push([kind, await killLoop(kind, kills, line => process.stderr.write(`${line}\n`))])
  for (const [kind, { broken }] of reports) if (broken.length > 0) throw new Error(`${kind}: ${broken.slice(0, 5).join('; ')}`)
  const sum = (of: (report: KillReport) => number) => reports.reduce((total, [, report]) => total + of(report), 0)
  const columns = [
    'kills',
    'databaseKills',
    'acknowledged',
    'signed',
    'lost',
    'duplicated',
    'unrecorded',
    'failpointsCovered',
  ] as const
  const table = [
    `${''.padEnd(12)}${columns.map(c => c.padStart(18)).join('')}`,
    ...reports.map(([kind, report]) => `${kind.padEnd(12)}${columns.map(c => String(report[c]).padStart(18)).join('')}`),
  ].join('\n')
  return {
    table,
    figures: {
      kills: Math.min(...reports.map(([, report]) => report.kills)),
      lost: sum(report => report.lost),
      duplicated: sum(report => report.duplicated),
      unrecorded: sum(report => report.unrecorded),
      failpointsCovered: Math.min(...reports.map(([, report]) => report.failpointsCovered)),
    },
  }
}
