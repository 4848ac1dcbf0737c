// kill −9 at any instant, on both stores: what was acknowledged is there, once, and what was signed has its record.

import { expect, it } from 'vitest'
import { killLoop } from '../support/kill-loop.ts'

it.each(['sqlite', 'postgres'] as const)(
  '[F36] [F67] %s: a server that is killed at each failpoint and in between, and PostgreSQL with it, loses nothing and issues nothing twice',
  async kind => {
    expect(await killLoop(kind, 15, () => {})).toMatchObject({
      ...{ lost: 0, duplicated: 0, unrecorded: 0, failpointsCovered: 1, broken: [] },
      ...(kind === 'postgres' ? { databaseKills: expect.any(Number) } : { databaseKills: 0 }),
    })
  },
  300_000,
)
