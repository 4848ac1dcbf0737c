// The first thing a stranger runs, judged as the stranger's script would.

import { expect, test } from 'vitest'
import { runDemo } from '../support/command.ts'

test('npm run demo -- --once checks every claim, ends with exit 0 and one JSON object', async () => {
  const { code, stdout, stderr } = await runDemo('--once')
  const lines = stdout.trimEnd().split('\n')
  const last = JSON.parse(lines[lines.length - 1])
  expect({ code, last, stderr }).toMatchObject({ code: 0, stderr: '', last: { demo: 'ok', devices: 100 } })
  expect(last.claims).toEqual({
    allWorking: true,
    oneNotice: true,
    revokedSessionsCut: true,
    revokedSilent: true,
    reconnectRefused: true,
    reenrollRefused: true,
    birthEnrollRefused: true,
    controlAdmitted: true,
    resumptionRefused: true,
    neighboursConnected: true,
    neighboursUninterrupted: true,
  })
  for (const figure of ['enrollmentsPerSecond', 'cutP50Ms', 'cutP99Ms', 'cutMaxMs', 'noticeBytes', 'telemetryReceived'])
    expect(last[figure], figure).toBeGreaterThan(0)
  // A group of fifty costs what a group of one does.
  expect(last.noticeBytes).toBeLessThanOrEqual(200)
}, 180_000)

test.each([[['--devices', '1']], [['--devices', 'many']], [['--nonsense']]])(
  'wrong options %j are told with exit 2',
  async args => {
    const { code, stderr } = await runDemo(...args)
    expect(code).toBe(2)
    expect(stderr).toMatch(/^error: usage: .+\nnext: .+\n$/)
  },
)
