import { randomBytes } from 'node:crypto'
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { CommandError } from './command-error.ts'
import { runCommandLine } from './command-line.ts'
import { readConfiguration } from './configuration.ts'
import { fromDisk, playedBack, recording } from './configuration-files.ts'
import { ensureTwoTier } from './server-certificate.ts'
import { createTerminal } from './terminal.ts'

let folder: string
let plain: string
const file = (...names: string[]): string => join(folder, ...names)
const silent = { write: () => true }

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bm-'))
  const terminal = createTerminal({ stdout: silent, stderr: silent, env: {}, now: () => 0 })
  expect(await runCommandLine(['init', folder, '--fleet', 'acme', '--host', 'est.acme.test'], terminal)).toBe(0)
  for (const name of ['maker', 'other']) {
    await ensureTwoTier(file(name), name, 'device', randomBytes)
    copyFileSync(file(name, 'root.pem'), file(name === 'maker' ? 'birth-anchors.pem' : 'gateway-root.pem'))
  }
  writeFileSync(file('webhook.secret'), 'x'.repeat(40))
  chmodSync(file('webhook.secret'), 0o600)
  mkdirSync(file('profiles'))
  plain = readFileSync(file('birthmark.yaml'), 'utf8')
})
afterAll(() => rmSync(folder, { recursive: true }))

/** The configuration with these profiles; the number of the line that `profiles:` is on. */
function write(profiles: string): number {
  const text = `${plain}profiles:\n${profiles}`
  writeFileSync(file('birthmark.yaml'), text)
  return plain.split('\n').length
}
const read = () => readConfiguration(file('birthmark.yaml'))

function complaint(): string {
  try {
    read()
  } catch (error) {
    if (error instanceof CommandError) return error.message.replaceAll(`${folder}/`, '')
    throw error
  }
  throw new Error('no complaint')
}

describe('profiles of a configuration', () => {
  beforeEach(() => writeFileSync(file('profiles', 'sensors.yaml'), '- label: sensors\n- label: meters\n  approval: every\n'))

  it('the commented example of init is sound once it is uncommented', () => {
    const [head, example] = plain.split(/(?=^# profiles:$)/m)
    writeFileSync(file('birthmark.yaml'), head + example.replace(/^# /gm, ''))
    const [first, gateways, sensors, meters] = read().profiles
    expect(first).toMatchObject({ label: null, admitSecrets: true, approval: 'none', lifetimeSeconds: 90 * 86_400 })
    expect(gateways).toMatchObject({
      ...{ label: 'gateways', lifetimeSeconds: 30 * 86_400, approval: 'first', keys: ['P-256', 'Ed25519'] },
      renewal: { windowFraction: 0.5, graceSeconds: 30 * 86_400, labels: ['gateways'] },
    })
    expect(gateways.serialPattern?.test('GW-2026-7')).toBe(true)
    expect(gateways.birthAnchors[0].subject).not.toEqual(first.birthAnchors[0].subject)
    expect([sensors.label, meters.label, meters.approval]).toEqual(['sensors', 'meters', 'every'])
    // Manifests of every manufacturer are taken.
    expect(read().birthAnchors).toHaveLength(2)
  })

  it('everything that a profile can say', () => {
    write(`  - label: all
    admit:
      birth: { manifest: false, serial: "A*", uri: ["urn:a:*", "urn:b:*"] }
      tokens: { keys: jwks.json, issuer: i, audience: a, algorithms: [ES256], deviceClaim: device, lifetime: 1h, oneUse: false }
      webhook: { url: "https://owner.example/ask", secret: { file: webhook.secret }, timeout: 3s }
    groups: [model=x]
    certificate: { subject: device, spiffe: acme.example, backdate: 1m, keys: [ML-DSA-44], purposes: [1.3.6.1.5.5.7.3.17] }
    renewal: { nameMayChange: true, labels: [all, null], issuers: [issuer/chain.pem], byEnrolling: never }
    possession: channel
    serverKeys: true
    supersede: { times: 3, within: 1d }
  - label: ~
`)
    const [profile] = read().profiles
    expect(profile).toMatchObject({
      ...{ requireManifest: false, admitSecrets: false, groups: ['model=x'], trustDomain: 'acme.example', backdateSeconds: 60 },
      ...{ keys: ['ML-DSA-44'], possession: 'channel', serverKeys: true, supersedesMax: 3, supersedeWindowSeconds: 86_400 },
      tokens: { issuer: 'i', deviceClaim: 'device', lifetimeSecondsMax: 3600, oneUse: false },
      webhook: { timeoutSeconds: 3 },
      renewal: { nameMayChange: true, labels: ['all', null], byEnrolling: 'never' },
    })
    expect(profile.tokens?.keys.href).toBe(`file://${file('jwks.json')}`)
    expect(profile.renewal.issuers?.[0]).toMatch(/^[0-9a-f]{40}$/)
  })

  it('a worker gets the same profiles without the disk', () => {
    write('  - profiles/sensors.yaml\n')
    const { read: record, files } = recording(fromDisk)
    readConfiguration(file('birthmark.yaml'), record)
    writeFileSync(file('profiles', 'sensors.yaml'), 'label: changed\n')
    const again = readConfiguration(file('birthmark.yaml'), playedBack(files))
    expect(again.profiles.map(({ label }) => label)).toEqual(['sensors', 'meters'])
  })

  it.each([
    ['- lable: x', 0, 'profiles.0.lable is not known'],
    ['- label: simpleenroll', 0, 'profiles.0.label is 1 to 64 of'],
    ['- label: a\n  - label: a', 1, 'profiles.1.label: the label a is taken (birthmark.yaml:'],
    ['- approval: first\n  - approval: every', 1, 'profiles.1.label: a second profile without a label'],
    ['- label: a\n    approval: maybe', 1, 'profiles.0.approval'],
    [
      '- label: a\n    admit: { birth: { anchors: [nowhere.pem] } }',
      1,
      'profiles.0.admit.birth.anchors.0: cannot read nowhere.pem',
    ],
    ['- label: a\n    admit: { birth: { serial: "GW-[" } }', 1, 'profiles.0.admit.birth.serial "GW-[": [ without ]'],
    ['- label: a\n    admit: { secrets: false }', 1, 'profiles.0.admit: nobody could enroll'],
    [
      '- label: a\n    certificate:\n      names:\n        - "dns:{id}"\n        - "dns:*.x"',
      4,
      'profiles.0.certificate.names.1 dns:*.x: no host name',
    ],
    ['- label: a\n    certificate:\n      subject: [O=Acme]', 2, 'profiles.0.certificate.subject CN={id} has to be there'],
    ['- label: a\n    certificate:\n      subject: other', 2, 'profiles.0.certificate.subject is "device" or a list'],
    [
      '- label: a\n    certificate:\n      purposes: [OCSPSigning]',
      2,
      "profiles.0.certificate.purposes.0 OCSPSigning is not a device's to have",
    ],
    ['- label: a\n    certificate:\n      keys: [DSA]', 2, 'profiles.0.certificate.keys.0 is one of P-256'],
    ['- label: a\n    certificate:\n      lifetime: 5m', 2, 'profiles.0.certificate.lifetime: 10 minutes to 30 years'],
    ['- label: a\n    certificate:\n      spiffe: ACME', 2, 'profiles.0.certificate.spiffe: a SPIFFE trust domain name'],
    ['- label: a\n    renewal: { window: 95% }', 1, 'profiles.0.renewal.window is like 50%, at most 90%'],
    ['- label: a\n    renewal: { labels: [b] }', 1, 'profiles.0.renewal.labels.0: no profile has the label b'],
    ['- label: a\n    renewal: { issuers: [server/server.pem] }', 1, 'profiles.0.renewal.issuers.0: server/server.pem'],
    [
      '- label: a\n    admit:\n      tokens: { keys: "http://x", issuer: i, audience: a }',
      2,
      'profiles.0.admit.tokens: keys: a file: or https: URL',
    ],
    [
      '- label: a\n    admit: { birth: {}, webhook: { url: "https://x", secret: { file: nowhere } } }',
      1,
      'profiles.0.admit.webhook.secret: ',
    ],
    // One for all is development's, and nothing that a file can say (FAULTS 29).
    ['- label: a\n    scep: { staticChallenge: password123 }', 1, 'profiles.0.scep'],
    ['- nowhere.yaml', 0, 'profiles.0: cannot read nowhere.yaml'],
  ])('%j is refused at its line', (text, line, expected) => {
    const first = write(`  ${text}\n`) + 1
    const said = complaint()
    expect(said).toContain(expected)
    expect(said.startsWith(`birthmark.yaml:${first + line}: `), said).toBe(true)
  })

  it('in a file of its own, its own lines are named', () => {
    write('  - profiles/sensors.yaml\n')
    writeFileSync(file('profiles', 'sensors.yaml'), 'label: sensors\nrenewal:\n  grace: never\n')
    expect(complaint()).toBe('profiles/sensors.yaml:3: renewal.grace is like 90d, 12h, 10m or 0')
    writeFileSync(file('profiles', 'sensors.yaml'), '- label: a\n- label: b\n  groups: [a b]\n')
    expect(complaint()).toContain('profiles/sensors.yaml:3: 1.groups.0 is 1 to 128 printable ASCII')
  })
})
