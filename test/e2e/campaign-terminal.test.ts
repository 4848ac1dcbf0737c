// `birthmark revoke watch` in a real terminal: what stays on the screen, in which width and colours, and what Ctrl-C does.

import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { available } from '../interop/debian.ts'
import { until } from '../support/broker.ts'
import { atTerminal, escapeCharacter, screenOf, type TerminalProgram } from '../support/pseudo-terminal.ts'
import { freePort, prepareServing, type Serving } from '../support/serving.ts'

const program = fileURLToPath(new URL('../../packages/birthmark/src/birthmark.ts', import.meta.url))

describe.skipIf(!available({ script: 'bsdutils' }))('revoke watch in a terminal', () => {
  let serving: Serving
  const watching: TerminalProgram[] = []

  beforeAll(async () => {
    const port = await freePort()
    serving = await prepareServing(yaml => `${yaml}\nstatus: { url: "http://127.0.0.1:${port}", host: 127.0.0.1, port: ${port} }\n`)
    await serving.start()
    for (const device of ['gw-1', 'gw-2']) await serving.enroll(device)
  }, 120_000)
  afterAll(async () => {
    for (const { child } of watching) child.kill('SIGKILL')
    await serving?.remove()
  })

  async function campaign(device: string, windowSeconds: number): Promise<string> {
    const { administration } = serving
    // Wide characters and a mark take the cells that they take.
    const reason = `キー漏洩 ${'keys leaked '.repeat(6)}`
    const asked = { select: `id=${device}`, reason, windowSeconds, by: 'alice' }
    const { id, planSha256 } = await administration.planCampaign(asked)
    await administration.submitCampaign({ id, planSha256, by: 'alice', signature: null })
    return id
  }

  function watch(id: string, columns: number, env: Record<string, string | undefined>): TerminalProgram {
    const command = [process.execPath, '--conditions=source', '--disable-warning=ExperimentalWarning', program]
    const one = atTerminal(columns, [...command, 'revoke', 'watch', id, '--dir', serving.state], env)
    watching.push(one)
    return one
  }

  test('Ctrl-C ends the watching, says so, and leaves the campaign as it is', async () => {
    const id = await campaign('gw-2', 3600)
    const { written, type, ended } = watch(id, 100, { NO_COLOR: '1' })
    await until(() => written().includes('until then: undo'), 'the stages are shown', 60)
    type('\u0003')
    expect(await ended).toBe(130)
    const screen = screenOf(written(), 100)
    // What to type says how this command was called: by itself, or by npm.
    expect(screen.join('\n')).toMatch(
      new RegExp(
        `Campaign ${id} goes on\\. To see how far it is:\\n  (npm run --silent birthmark -- |birthmark )revoke watch ${id} --dir `,
      ),
    )
    expect((await serving.administration.campaign({ id })).state).toBe('quarantined')
  }, 120_000)

  test('the lines stay where they are and change, cut to the width, in colours and without', async () => {
    const id = await campaign('gw-1', 6)
    const coloured = watch(id, 60, { NO_COLOR: undefined })
    const plain = watch(id, 120, { NO_COLOR: '1' })
    expect(await Promise.all([coloured.ended, plain.ended])).toEqual([0, 0])
    expect(coloured.written()).toContain(`${escapeCharacter}[32m✔${escapeCharacter}[0m revoked`)
    expect(plain.written()).not.toContain(`${escapeCharacter}[3`)
    for (const [{ written }, columns] of [
      [coloured, 60],
      [plain, 120],
    ] as const) {
      const screen = screenOf(written(), columns)
      expect(screen[0]).toMatch(new RegExp(`^campaign ${id}: committed, キー漏洩 keys`))
      const stages = ['planned', 'agreed', 'broker blocked', 'session cut', 'revoked', 'notified', 'CRL and OCSP'].map(
        name => `✔ ${name}`,
      )
      // Its device has not come back to be told.
      expect(screen.slice(1, 9).map(line => line.slice(0, 17).trim())).toEqual([...stages.slice(0, 6), '· acked', stages[6]])
      expect(screen.slice(9).join('').trim()).toBe('')
    }
    const last = screenOf(plain.written(), 120)[8]
    expect(last).toMatch(/^✔ CRL and OCSP {4}1 certificate on 1 CRL, acme\/0 number \d+ of 20.*OCSP says revoked/)
  }, 120_000)
})
