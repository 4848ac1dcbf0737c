// When `birthmark revoke watch` ends: once the relying parties that the configuration names have a campaign's notice in force, or with the names of
// those that have not said so.

import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CampaignView } from '../../packages/birthmark/src/campaign-administration.ts'
import type { TestAuthority } from '../../packages/fleet-revocation/src/testing/authority.ts'
import { birthmark, birthmarkProgram } from '../support/command.ts'
import { joinRelyingParty, serviceAuthority } from '../support/relying-party.ts'
import { prepareServing, type Serving } from '../support/serving.ts'

let serving: Serving
let services: TestAuthority
const leaving: (() => Promise<void>)[] = []

beforeAll(async () => {
  serving = await prepareServing(yaml =>
    yaml.replace('  services: ', '  services:\n    orders: relying-party\n    billing: relying-party '),
  )
  services = serviceAuthority(serving)
  await serving.start()
  for (const device of ['gw-1', 'gw-2']) await serving.enroll(device)
}, 120_000)
afterAll(async () => {
  for (const leave of leaving) await leave()
  await serving?.remove()
})

async function join(name: string): Promise<void> {
  leaving.push((await joinRelyingParty(serving, services, name)).leave)
}

async function carriedOut(device: string): Promise<string> {
  const { administration } = serving
  const { id, planSha256 } = await administration.planCampaign({
    ...{ select: `id=${device}`, reason: 'lost in a bus', windowSeconds: 0, by: 'alice' },
  })
  await administration.submitCampaign({ id, planSha256, by: 'alice', signature: null })
  return id
}

const watch = (id: string, ...args: string[]) => ['revoke', 'watch', id, '--dir', serving.state, ...args]

test('watch names the relying parties that have not confirmed when it has waited for long enough, and ends otherwise than after success', async () => {
  const id = await carriedOut('gw-1')
  const nobody = await birthmark(...watch(id, '--wait', '1'))
  expect(nobody).toMatchObject({ code: 4 })
  expect(nobody.stderr).toContain(
    `not_confirmed: campaign ${id} is carried out, and not confirmed: 0 of 2 relying parties, without billing, orders`,
  )
  expect(nobody.stderr).toContain(`birthmark revoke watch ${id} --wait 600 --dir `)
  expect(nobody.stdout).toContain('✔ revoked')
  // Those are not forgotten by a command.
  expect(nobody.stderr).toContain(
    'if a relying party is retired: take it (billing, orders) out of mqtt.services in the configuration, and start the server again\n',
  )
  expect(nobody.stderr).not.toContain('--forget')
  const configured = await birthmark('revoke', 'parties', '--forget', 'billing', '--dir', serving.state)
  expect(configured).toMatchObject({ code: 3, stderr: expect.stringContaining('take it out of mqtt.services') })
  // As it is now, and no judgement.
  expect(await birthmark(...watch(id, '--once'))).toMatchObject({ code: 0 })

  await join('orders')
  const waits = birthmarkProgram(...watch(id, '--wait', '60', '--json'))
  const confirmed = (count: number) => (line: unknown) => (line as CampaignView).stages.relyingParties?.confirmed === count
  await waits.said(confirmed(1))
  await join('billing')
  const outcome = await waits.ended
  expect(outcome.code).toBe(0)
  expect((outcome.json.at(-1) as unknown as CampaignView).stages.relyingParties).toEqual({ confirmed: 2, of: 2, missing: [] })
}, 120_000)

test('watch ends as soon as all have confirmed', async () => {
  const watched = await birthmark(...watch(await carriedOut('gw-2'), '--wait', '3600'))
  expect(watched).toMatchObject({ code: 0 })
  expect(watched.stdout).toContain('2 of 2 relying parties')
}, 120_000)
