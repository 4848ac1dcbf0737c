import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { encodePem } from '@birthmark/device-sdk/core'
import { generateSigningKey, makeAuthority } from '@birthmark/factory-line'
import { afterEach, expect, it } from 'vitest'
import { prepareServing, type Serving } from '../../../test/support/serving.ts'
import { readConfiguration } from './configuration.ts'
import { openConfiguredIssuers, openConfiguredRollOver } from './configured-issuers.ts'
import { withStore } from './open-store.ts'

const now = 1_800_000_000
const hour = 3600
let s: Serving
afterEach(() => s.remove())

async function authority(name: string, notAfter: number): Promise<void> {
  const { key, pem } = generateSigningKey()
  const made = await makeAuthority({ name: { commonName: name }, pathLength: 0, notAfter }, key, null, { now: () => now })
  const folder = join(s.folder, name)
  mkdirSync(folder)
  writeFileSync(join(folder, 'ca.pem'), encodePem('CERTIFICATE', made.certificate))
  writeFileSync(join(folder, 'ca.key'), pem, { mode: 0o600 })
}

it('a former issuer keeps its key for its lists as long as what it signed may live, and does not stop the start once it has ended', async () => {
  const issuer =
    'issuer:\n  certificate: a/ca.pem\n  key: a/ca.key\n  next: { certificate: b/ca.pem, key: b/ca.key }\nstatus:\n  url: http://status.example\n'
  s = await prepareServing(yaml => yaml.replace(/^issuer: [\s\S]*?\n {4}file: .*\n/m, issuer))
  await authority('a', now + hour)
  await authority('b', now + 100 * hour)
  const settings = readConfiguration(s.config)
  mkdirSync(settings.state, { mode: 0o700 })
  await withStore(settings, async store => {
    const clock = { at: now, now: () => clock.at, setTimer: () => () => {} }
    const ports = { store, clock, log: { info() {}, warn() {}, error() {} } }
    const rollOver = await openConfiguredRollOver(settings, ports)
    await rollOver.move('prepare', 'test')
    await rollOver.move('switch', 'test')
    const opened = async () => {
      const issuers = await openConfiguredIssuers(settings, ports)
      const names = issuers.opened.map(({ certificate }) => certificate.notAfter)
      expect(issuers.unready()).toBeNull()
      await issuers.close()
      return names
    }
    expect(await opened()).toEqual([now + hour, now + 100 * hour])
    clock.at = now + hour
    expect(await opened()).toEqual([now + 100 * hour])
  })
})
