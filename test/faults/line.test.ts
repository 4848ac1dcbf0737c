import { expect, test } from 'vitest'
import { lineFailpoints, lineKillLoop } from '../support/line-kill-loop.ts'

test('[F36] a station killed at every step leaves no unit unaccounted for and no serial with two certificates', async () => {
  const report = await lineKillLoop(2 * lineFailpoints.length)
  expect(report).toMatchObject({ unaccounted: 0, duplicateSerials: 0, steps: [...lineFailpoints].sort() })
}, 120_000)
