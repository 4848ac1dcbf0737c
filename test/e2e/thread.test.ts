// One unit's life through the commands alone: born on a line, known by its manifest, enrolled, connected, revoked, refused everywhere.

import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { birthmark, birthmarkProgram, development, type Program } from '../support/command.ts'

let folder: string
const file = (...names: string[]): string => join(folder, ...names)

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'bm-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Runs a command that must succeed; its JSON objects. */
async function done(...args: string[]): Promise<Record<string, unknown>[]> {
  const { code, json, stderr } = await birthmark(...args, '--json')
  expect({ code, stderr: code ? stderr : '' }).toEqual({ code: 0, stderr: '' })
  return json
}

/** Runs a command that must be refused; the code of its error. */
async function refusedBy(...args: string[]): Promise<string> {
  const { code, stderr } = await birthmark(...args)
  expect({ code, stderr }).toMatchObject({ code: 3 })
  expect(stderr).toMatch(/error: [a-z_]+: .+\nnext: .+\n$/)
  return /error: ([a-z_]+):/.exec(stderr)?.[1] ?? ''
}

describe('against birthmark dev', () => {
  let dev: Program & { est: string; mqtt: string }
  let state: string

  beforeAll(async () => {
    state = file('state')
    dev = await development(state)
  })
  afterAll(async () => {
    expect((await dev.stop()).code).toBe(0)
  })

  test('line → manifest → sim device → devices → revoke', async () => {
    const factory = join(state, 'factory')
    // One unit made its key itself (openssl here), the other has it from the line.
    execFileSync('openssl', ['ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', file('SN-1.key.pem')])
    execFileSync('openssl', ['req', '-new', '-key', file('SN-1.key.pem'), '-subj', '/CN=whatever', '-out', file('SN-1.csr')])
    await done('line', 'issue', 'SN-1', '--csr', file('SN-1.csr'), '--group', 'batch=41', '--dir', factory, '--out', folder)
    const [host] = await done('line', 'issue', 'SN-2', '--make-key', '--group', 'batch=41', '--dir', factory, '--out', folder)
    expect(host).toMatchObject({ serial: 'SN-2', again: false, key: file('SN-2.key.pem') })
    expect(statSync(file('SN-2.key.pem')).mode & 0o777).toBe(0o600)
    const [again] = await done('line', 'issue', 'SN-2', '--make-key', '--group', 'batch=41', '--dir', factory, '--out', folder)
    expect(again).toMatchObject({ again: true })
    expect(await refusedBy('line', 'issue', 'SN-3', '--csr', file('SN-1.csr'), '--dir', factory, '--out', folder)).toBe('key_taken')
    const verify = ['verify', '-CAfile', join(factory, 'root.pem'), '-untrusted', file('SN-1.pem'), file('SN-1.pem')]
    expect(execFileSync('openssl', verify, { encoding: 'utf8' })).toContain('OK')

    // Before its manifest is in, a unit is a stranger, however good its birth certificate.
    const anchors = join(state, 'device', 'server-ca.pem')
    const enroll = [
      'enroll',
      '--server',
      dev.est,
      '--anchors',
      anchors,
      '--birth',
      file('SN-2.pem'),
      '--birth-key',
      file('SN-2.key.pem'),
    ]
    expect(await refusedBy(...enroll, '--out', file('early'))).toMatch(/^est_/)

    const manifest = file('manifest.jsonl')
    await done('line', 'manifest', '--out', manifest, '--dir', factory)
    expect(await done('manifest', 'import', manifest, '--dir', state)).toMatchObject([{ units: 2, added: 2, refused: [] }])
    expect(await done('manifest', 'import', manifest, '--dir', state)).toMatchObject([{ units: 2, unchanged: 2 }])
    const forged = file('forged.jsonl')
    writeFileSync(forged, readFileSync(manifest, 'utf8').replace('"keyOrigin":"host"', '"keyOrigin":"devi"'))
    expect(await refusedBy('manifest', 'import', forged, '--dir', state)).toBe('manifest_signature')

    const unit = birthmarkProgram(
      'sim',
      'device',
      '--birth',
      file('SN-1.pem'),
      '--birth-key',
      file('SN-1.key.pem'),
      '--dir',
      state,
      '--json',
    )
    await unit.said(line => line.event === 'ready' && line.connected === 1)
    expect(await done('devices', '--dir', state)).toMatchObject([
      { id: 'SN-1', state: 'enrolled', groups: ['batch=41'], keyOrigin: 'device' },
      { id: 'SN-2', state: 'known', groups: ['batch=41'], keyOrigin: 'host' },
    ])

    const revoke = ['revoke', 'batch=41', '--reason', 'keys leaked', '--dir', state]
    expect(await refusedBy(...revoke)).toBe('confirmation_needed')
    const [{ plan }] = (await done(...revoke, '--dry-run')) as unknown as [{ plan: { digest: string; devices: number } }]
    expect(plan).toMatchObject({ devices: 2, closed: false })
    expect(await refusedBy(...revoke, '--yes', '--plan', '0'.repeat(64))).toBe('plan_changed')
    expect(await done('devices', 'revoked', '--dir', state)).toEqual([])
    const [receipt] = await done(...revoke, '--yes', '--plan', plan.digest)
    // The first notice is the server's own: it revokes nothing and carries the first heartbeats.
    expect(receipt).toMatchObject({ group: 'batch=41', seq: 2, devices: 2, sessionsCut: 1 })
    expect(receipt.noticeBytes).toBeLessThanOrEqual(200)

    await unit.said(line => line.event === 'cut')
    await unit.said(line => line.event === 'revoked')
    await unit.stop()
    expect((await done('devices', 'revoked', '--dir', state)).map(device => device.id)).toEqual(['SN-1', 'SN-2'])
    // It is refused with its birth certificate too, and so is the unit that had never enrolled.
    expect(await refusedBy(...enroll, '--out', file('late'))).toMatch(/^(revoked|est_refused)$/)
    // A revocation that is repeated is answered, and changes nothing.
    expect(await done(...revoke, '--yes')).toMatchObject([{ seq: 2, sessionsCut: 0 }])
    expect(await refusedBy('revoke', 'batch=none', '--reason', 'x', '--yes', '--dir', state)).toBe('group_unknown')
  })

  test('a one-time secret enrolls one device once', async () => {
    const [minted] = await done('secret', 'mint', 'gw-7', '--group', 'site=berlin', '--dir', state)
    const secret = file('secret.txt')
    writeFileSync(secret, `${minted.secret}\n`, { mode: 0o600 })
    const anchors = join(state, 'device', 'server-ca.pem')
    const by = (out: string, device = 'gw-7'): string[] => [
      'enroll',
      '--server',
      dev.est,
      '--anchors',
      anchors,
      '--device',
      device,
      '--secret-file',
      secret,
      '--out',
      file(out),
    ]
    expect(await refusedBy(...by('other', 'gw-8'))).toBe('est_unauthorized')
    const [enrolled] = await done(...by('gw-7'))
    expect(enrolled).toMatchObject({ device: 'gw-7', generation: 1 })
    for (const name of ['device.pem', 'device.key.pem']) expect(statSync(file('gw-7', name)).mode & 0o777).toBe(0o600)
    // The certificate and key are a pair that other programs take.
    const modulus = (kind: string, name: string): string =>
      execFileSync('openssl', [kind, '-in', file('gw-7', name), ...(kind === 'x509' ? ['-noout', '-pubkey'] : ['-pubout'])], {
        encoding: 'utf8',
        stdio: 'pipe',
      })
    expect(modulus('x509', 'device.pem')).toBe(modulus('pkey', 'device.key.pem'))
    expect(await refusedBy(...by('clone'))).toBe('est_unauthorized')
    // Once enrolled it renews by itself.
    const [renewed] = await done('enroll', '--server', dev.est, '--anchors', anchors, '--out', file('gw-7'), '--renew')
    expect(renewed).toMatchObject({ device: 'gw-7', generation: 2 })
    expect(await done('devices', 'site=berlin', '--dir', state)).toMatchObject([{ id: 'gw-7', state: 'enrolled' }])

    const doctor = await birthmark(
      'doctor',
      '--dir',
      state,
      '--certificate',
      file('gw-7', 'device.pem'),
      '--key',
      file('gw-7', 'device.key.pem'),
    )
    expect(doctor.code, doctor.stdout).toBe(0)
    for (const check of [
      'clock',
      'EST name',
      'EST chain',
      'EST key usage',
      'EST cacerts',
      'EST csrattrs',
      'MQTT reachable',
      'identity chain',
      'identity key',
    ])
      expect(doctor.stdout).toContain(`✔ ${check} — `)
  })

  test('the doctor names what is wrong and what to do', async () => {
    const wrongAnchors = await birthmark('doctor', '--server', dev.est, '--anchors', join(state, 'device', 'birth-ca.pem'))
    expect(wrongAnchors.code).toBe(1)
    expect(wrongAnchors.stdout).toMatch(/✘ EST chain — .*path_no_anchor.*\n {2}next: /)
    const nobody = await birthmark(
      'doctor',
      '--server',
      'https://127.0.0.1:9',
      '--anchors',
      join(state, 'device', 'server-ca.pem'),
      '--json',
    )
    expect(nobody.code).toBe(1)
    expect(nobody.json).toContainEqual(expect.objectContaining({ check: 'EST reachable', ok: false, next: expect.any(String) }))
    const stranger = await birthmark('doctor', '--dir', state, '--certificate', file('SN-1.pem'))
    expect(stranger.stdout).toMatch(/✘ identity (chain|key usage) — /)
  })

  test('a client that trusts another CA does not send anything to this server', async () => {
    const anchors = join(state, 'device', 'birth-ca.pem')
    const { code, stderr } = await birthmark(
      'enroll',
      '--server',
      dev.est,
      '--anchors',
      anchors,
      '--birth',
      file('SN-2.pem'),
      '--birth-key',
      file('SN-2.key.pem'),
      '--out',
      file('misled'),
    )
    expect(code).not.toBe(0)
    expect(stderr).toMatch(/^error: server_untrusted: /m)
  })
})

test('the real thing: init → line → serve → enroll → revoke', async () => {
  const home = file('server')
  await done('init', home, '--fleet', 'acme', '--host', '127.0.0.1')
  const configuration = join(home, 'birthmark.yaml')
  const missing = await birthmark('serve', '--config', configuration)
  expect(missing).toMatchObject({ code: 2, stderr: expect.stringMatching(/birthmark\.yaml:\d+: birth\.anchors\.0: cannot read/) })

  await done('line', 'init', '--organization', 'Acme Gateways', '--dir', file('line'))
  copyFileSync(file('line', 'root.pem'), join(home, 'birth-anchors.pem'))
  // Free ports are the system's to choose, and a configuration names one: those of a moment ago.
  const ports = execFileSync(process.execPath, ['-e', freePorts], { encoding: 'utf8' }).trim().split(' ')
  const text = readFileSync(configuration, 'utf8')
  writeFileSync(
    configuration,
    text.replaceAll('0.0.0.0', '127.0.0.1').replace('port: 8443', `port: ${ports[0]}`).replace('port: 8883', `port: ${ports[1]}`),
  )
  expect(await done('serve', '--config', configuration, '--check')).toMatchObject([{ fleet: 'acme' }])

  const server = birthmarkProgram('serve', '--config', configuration, '--json')
  const { est, state } = await server.said(line => line.serving === true)
  try {
    await done('line', 'issue', 'GW-1', '--make-key', '--group', 'lot=1', '--dir', file('line'), '--out', file('units'))
    await done('line', 'manifest', '--out', file('acme.jsonl'), '--dir', file('line'))
    await done('manifest', 'import', file('acme.jsonl'), '--dir', String(state))
    const anchors = join(String(state), 'device', 'server-ca.pem')
    const unit = ['--birth', file('units', 'GW-1.pem'), '--birth-key', file('units', 'GW-1.key.pem')]
    await done('enroll', '--server', String(est), '--anchors', anchors, ...unit, '--out', file('gw-1'))
    const issuer = execFileSync('openssl', ['x509', '-in', file('gw-1', 'device.pem'), '-noout', '-issuer'], { encoding: 'utf8' })
    expect(issuer).not.toContain('not for production')
    const fleet = await birthmark('sim', 'fleet', '--units', file('units'), '--seconds', '1', '--dir', String(state), '--json')
    expect(fleet.json.at(-1)).toMatchObject({ event: 'done', devices: 1, enrolled: 1 })
    // A lot, as people on a line say it: the group of that name.
    await done('revoke', 'lot', '1', '--reason', 'end of the test', '--yes', '--dir', String(state))
    expect(await done('devices', 'revoked', '--dir', String(state))).toMatchObject([{ id: 'GW-1' }])
    expect((await birthmark('doctor', '--dir', String(state))).code).toBe(0)
  } finally {
    expect((await server.stop('SIGTERM')).code).toBe(0)
  }
})

const freePorts = `
const { createServer } = require('node:net')
const a = createServer().listen(0, '127.0.0.1', () => {
  const b = createServer().listen(0, '127.0.0.1', () => {
    console.log(a.address().port, b.address().port)
    a.close()
    b.close()
  })
})`
