import { execFileSync } from 'node:child_process'
import { createHash, generateKeyPairSync, sign, X509Certificate } from 'node:crypto'
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { anchorOf, type Bytes, checkBirthCertificate, encodePem, hexOf, parseCertificate } from '@birthmark/device-sdk/core'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type Authority, createManufacturer, type Manufacturer, openManufacturer } from './authority.ts'
import { birthForm, encodeBirthForm, UNASSIGNED_HARDWARE } from './birth-form.ts'
import { birthRequest, type DeviceKey } from './birth-request.ts'
import { verifyManifest } from './manifest.ts'
import { generateSigningKey, sha256Hex, signatureVerifier } from './signing-key.ts'
import { openStation, type Station } from './station.ts'

const clock = { now: () => 1_790_000_000 }
const profile = { organization: 'Example', commonName: true, hardwareType: UNASSIGNED_HARDWARE }

let folder: string
let maker: Manufacturer
let station: Station

function open(overrides: Partial<Parameters<typeof openStation>[0]> = {}): Station {
  return openStation({ folder, issuing: maker.issuing, manifestSigner: maker.manifest, profile, clock, ...overrides })
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'line-'))
  maker = await createManufacturer(folder, 'Example', clock)
  station = open()
})

afterEach(() => {
  station.close()
  rmSync(folder, { recursive: true })
})

async function request(serial: string, key: DeviceKey = generateSigningKey().key): Promise<Bytes> {
  return birthRequest(serial, key)
}

/** The issuing CA, with somebody watching each message before it is signed. */
function spied(see: (message: Bytes) => void): Authority {
  const { key } = maker.issuing
  const sign = async (message: Bytes): Promise<Bytes> => {
    see(message)
    return key.sign(message)
  }
  return { ...maker.issuing, key: { ...key, sign } }
}

function openssl(...args: string[]): string {
  return execFileSync('openssl', args, { cwd: folder, encoding: 'utf8', stdio: 'pipe' })
}

describe('the hierarchy on disk', () => {
  test('openssl verifies root, issuing CA, manifest signer and a birth certificate', async () => {
    const birth = await station.issue({ serial: 'A-1', csr: await request('A-1') })
    writeFileSync(join(folder, 'birth.pem'), encodePem('CERTIFICATE', birth.certificate))
    const check = ['verify', '-x509_strict', '-CAfile', 'root.pem', '-attime', String(clock.now() + 60)]
    expect(openssl(...check, 'issuing.pem')).toContain('issuing.pem: OK')
    expect(openssl(...check, '-untrusted', 'issuing.pem', 'manifest.pem', 'birth.pem')).toBe('manifest.pem: OK\nbirth.pem: OK\n')
    const text = openssl('x509', '-in', 'birth.pem', '-noout', '-text', '-nameopt', 'RFC2253')
    expect(text).toContain('Subject: serialNumber=A-1,CN=A-1,O=Example')
    expect(text).toContain('Not After : Dec 31 23:59:59 9999 GMT')
    expect(text).toContain('Digital Signature')
    expect(text).toContain('othername')
  })

  test('private keys are readable by their owner alone, and one that others may read is not used', () => {
    for (const name of ['root', 'issuing', 'manifest']) expect(statSync(join(folder, `${name}.key.pem`)).mode & 0o777).toBe(0o600)
    execFileSync('chmod', ['0644', join(folder, 'issuing.key.pem')])
    expect(() => openManufacturer(folder)).toThrow(expect.objectContaining({ code: 'authority_mismatch' }))
  })

  test('a second manufacturer in the same folder is refused', async () => {
    await expect(createManufacturer(folder, 'Other', clock)).rejects.toMatchObject({ code: 'authority_exists' })
  })

  test('a certificate and a key that do not belong together are refused', () => {
    writeFileSync(join(folder, 'issuing.key.pem'), readFileSync(join(folder, 'manifest.key.pem')))
    expect(() => openManufacturer(folder)).toThrow(expect.objectContaining({ code: 'authority_mismatch' }))
  })
})

describe('a birth certificate', () => {
  test.each(['A-1', 'x'.repeat(64), 'a:b_c.9'])(
    'of %s has the same octets from the line’s template as from the general encoder',
    serial => {
      const random = (n: number): Bytes => new Uint8Array(n).fill(0x81)
      const { spki } = generateSigningKey().key
      for (const each of [profile, { organization: null, commonName: false, hardwareType: null }]) {
        const slow = encodeBirthForm({ serial, spki }, each, maker.issuing, clock.now(), random)
        expect(hexOf(birthForm(each, maker.issuing)({ serial, spki, spkiSha256: sha256Hex(spki) }, clock.now(), random))).toBe(
          hexOf(slow),
        )
      }
    },
  )

  test('[802.1AR 8] passes the SDK’s own check and names the unit and its hardware', async () => {
    const birth = await station.issue({ serial: 'A-1', csr: await request('A-1') })
    const rules = {
      anchors: [anchorOf(parseCertificate(maker.root.certificate))],
      time: clock.now() + 60,
      algorithms: ['ecdsa-sha256'],
      purpose: null,
      understoodCritical: [],
      depthMax: 4,
      signaturesMax: 8,
    }
    let seen: unknown
    checkBirthCertificate(
      parseCertificate(birth.certificate),
      birth.chain.map(parseCertificate),
      rules,
      signatureVerifier,
      (error, identity) => {
        seen = error ?? { serial: identity?.serialNumber, module: identity?.hardwareModuleName }
      },
    )
    expect(seen).toEqual({ serial: 'A-1', module: { type: UNASSIGNED_HARDWARE, serial: Uint8Array.from(Buffer.from('A-1')) } })
  })

  test('takes an RSA and a P-384 key that openssl made', async () => {
    openssl(
      'req',
      '-new',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-keyout',
      'k.pem',
      '-subj',
      '/CN=x',
      '-outform',
      'DER',
      '-out',
      'r.der',
    )
    openssl(
      'req',
      '-new',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-384',
      '-nodes',
      '-keyout',
      'k.pem',
      '-subj',
      '/CN=x',
      '-outform',
      'DER',
      '-out',
      'e.der',
    )
    for (const [serial, file] of [
      ['R-1', 'r.der'],
      ['E-1', 'e.der'],
    ]) {
      const { certificate } = await station.issue({ serial, csr: readFileSync(join(folder, file)) })
      expect(new X509Certificate(certificate).verify(new X509Certificate(maker.issuing.certificate).publicKey)).toBe(true)
    }
  })

  test('[F16] copies nothing from the CSR but the key', async () => {
    openssl(
      'req',
      '-new',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-keyout',
      'k.pem',
      '-subj',
      '/serialNumber=OTHER/CN=evil',
      '-addext',
      'basicConstraints=critical,CA:TRUE',
      '-outform',
      'DER',
      '-out',
      'c.der',
    )
    const { certificate } = await station.issue({ serial: 'A-1', csr: readFileSync(join(folder, 'c.der')) })
    const seen = new X509Certificate(certificate)
    expect(seen.ca).toBe(false)
    expect(seen.subject).not.toMatch(/OTHER|evil/)
  })

  test('[F20] a CSR that its key did not sign gets nothing, and the signer is not asked', async () => {
    const key = generateSigningKey().key
    const forged = await request('A-1', { ...key, sign: generateSigningKey().key.sign })
    let asked = 0
    station.close()
    station = open({
      issuing: spied(() => asked++),
    })
    await expect(station.issue({ serial: 'A-1', csr: forged })).rejects.toMatchObject({ code: 'csr_signature' })
    expect(asked).toBe(0)
    expect(station.count()).toEqual({ issued: 0, reserved: 0 })
  })

  test('[F23] [F73] weak keys and the line’s own keys are refused', async () => {
    const weak = generateKeyPairSync('rsa', { modulusLength: 1024 })
    const rsa: DeviceKey = {
      spki: weak.publicKey.export({ type: 'spki', format: 'der' }),
      algorithm: 'rsa-pkcs1-sha256',
      sign: async message => sign('sha256', message, weak.privateKey),
    }
    await expect(station.issue({ serial: 'A-1', csr: await request('A-1', rsa) })).rejects.toMatchObject({ code: 'key_refused' })
    await expect(station.issue({ serial: 'A-1', csr: await request('A-1', maker.issuing.key) })).rejects.toMatchObject({
      code: 'key_refused',
    })
  })

  test.each(['', 'a b', 'a/b', '../x', 'x'.repeat(65), 'a\n', 'é'])('serial number %j is refused', async serial => {
    await expect(station.issue({ serial, csr: await request('A-1') })).rejects.toMatchObject({ code: 'serial_malformed' })
  })

  test('nine groups, or one that is not name=value, are refused', async () => {
    const csr = await request('A-1')
    const many = Array.from({ length: 9 }, (_, i) => `g=${i}`)
    await expect(station.issue({ serial: 'A-1', csr, groups: many })).rejects.toMatchObject({ code: 'group_malformed' })
    await expect(station.issue({ serial: 'A-1', csr, groups: ['plain'] })).rejects.toMatchObject({ code: 'group_malformed' })
  })

  test('[F1] garbage for a CSR is refused by name', async () => {
    for (const csr of [new Uint8Array(0), Uint8Array.of(0x30, 0x84, 0xff, 0xff, 0xff, 0xff), new Uint8Array(20_000)])
      await expect(station.issue({ serial: 'A-1', csr })).rejects.toMatchObject({ code: expect.stringMatching(/^csr_malformed$/) })
  })
})

describe('one unit, one serial, one key', () => {
  test('[F24] the same request twice, also in parallel and after a restart, gives the same certificate', async () => {
    const csr = await request('A-1')
    const answers = await Promise.all([1, 2, 3].map(() => station.issue({ serial: 'A-1', csr })))
    station.close()
    station = open()
    answers.push(await station.issue({ serial: 'A-1', csr }))
    for (const answer of answers) expect(Buffer.from(answer.certificate)).toEqual(Buffer.from(answers[0].certificate))
    expect(station.count()).toEqual({ issued: 1, reserved: 0 })
  })

  test('a known serial with another key, and a known key with another serial, are refused', async () => {
    const key = generateSigningKey().key
    await station.issue({ serial: 'A-1', csr: await request('A-1', key) })
    await expect(station.issue({ serial: 'A-1', csr: await request('A-1') })).rejects.toMatchObject({ code: 'serial_taken' })
    await expect(station.issue({ serial: 'A-2', csr: await request('A-2', key) })).rejects.toMatchObject({ code: 'key_taken' })
  })
})

describe('the journal', () => {
  test('[F36] a signer that dies leaves a reservation, and the retry signs the very same bytes', async () => {
    const csr = await request('A-1')
    const signed: string[] = []
    const power = (message: Bytes): never => {
      signed.push(hexOf(message))
      throw new Error('power')
    }
    station.close()
    station = open({ issuing: spied(power) })
    await expect(station.issue({ serial: 'A-1', csr })).rejects.toThrow('power')
    expect(station.count()).toEqual({ issued: 0, reserved: 1 })
    station.close()
    station = open({
      issuing: spied(message => signed.push(hexOf(message))),
    })
    expect((await station.issue({ serial: 'A-1', csr })).again).toBe(false)
    expect(signed[1]).toBe(signed[0])
  })

  test('[F41] a signature that does not verify is not released and not recorded', async () => {
    station.close()
    station = open({ issuing: { ...maker.issuing, key: { ...maker.issuing.key, sign: async () => new Uint8Array(70) } } })
    await expect(station.issue({ serial: 'A-1', csr: await request('A-1') })).rejects.toMatchObject({ code: 'signature_bad' })
    expect(station.count()).toEqual({ issued: 0, reserved: 1 })
  })

  test('[F56] every prefix of the journal that a power cut may leave opens, and loses at most what was not sealed', async () => {
    for (const serial of ['A-1', 'A-2']) await station.issue({ serial, csr: await request(serial) })
    station.close()
    const file = join(folder, 'journal.jsonl')
    const whole = readFileSync(file)
    // What is known once each seal is on the medium.
    const seals: { end: number; issued: number; reserved: number }[] = [{ end: 0, issued: 0, reserved: 0 }]
    let end = 0
    let seen = { issued: 0, reserved: 0 }
    for (const text of whole.toString('utf8').split('\n').slice(0, -1)) {
      end += text.length + 1
      const { kind } = JSON.parse(text)
      if (kind === 'reserved') seen = { ...seen, reserved: seen.reserved + 1 }
      if (kind === 'issued') seen = { issued: seen.issued + 1, reserved: seen.reserved - 1 }
      if (kind === 'seal') seals.push({ end, ...seen })
    }
    expect(seals).toHaveLength(5)
    const lengths = [...Array(Math.ceil(whole.length / 97)).keys()].map(i => i * 97).concat(seals.map(seal => seal.end))
    // Cut off, or with blocks that never reached the medium.
    for (const length of lengths)
      for (const torn of [
        whole.subarray(0, length),
        Buffer.concat([whole.subarray(0, length), Buffer.alloc(512), whole.subarray(length + 512)]),
      ]) {
        if (torn.length > whole.length) continue
        writeFileSync(file, torn)
        station = open()
        const last = seals.findLast(seal => seal.end <= length)
        expect(station.count()).toEqual({ issued: last?.issued, reserved: last?.reserved })
        station.close()
      }
    station = open()
  })

  test('[F70] a changed, removed or invented line stops the station', async () => {
    for (const serial of ['A-1', 'A-2']) await station.issue({ serial, csr: await request(serial) })
    station.close()
    const file = join(folder, 'journal.jsonl')
    const lines = readFileSync(file, 'utf8').split('\n')
    const last = lines.length - 2
    const forgedSeal = lines[last].replace(/"signature":"[^"]+"/, `"signature":"${Buffer.alloc(70).toString('base64')}"`)
    for (const damaged of [
      lines.slice(1),
      lines.map(line => line.replace('A-1', 'A-9')),
      lines.with(last - 1, lines[last - 1].replace('A-2', 'A-9')),
      ['{}', ...lines],
      lines.with(last, forgedSeal),
    ]) {
      writeFileSync(file, damaged.join('\n'))
      expect(() => open()).toThrow(expect.objectContaining({ code: 'journal_corrupt' }))
    }
    writeFileSync(file, lines.join('\n'))
    station = open()
    expect(station.count().issued).toBe(2)
  })

  test('a journal is sealed by its station: another signer cannot open it', async () => {
    await station.issue({ serial: 'A-1', csr: await request('A-1') })
    station.close()
    const other = { ...maker.manifest, key: generateSigningKey().key }
    expect(() => open({ manifestSigner: other })).toThrow(expect.objectContaining({ code: 'journal_corrupt' }))
    station = open()
  })

  test('one process at a time; the lock of a process that is gone is taken over', () => {
    expect(() => open()).toThrow(expect.objectContaining({ code: 'journal_busy' }))
    station.close()
    // The highest process id that Linux hands out is 2^22.
    writeFileSync(join(folder, 'journal.lock'), '4194303\n')
    station = open()
  })
})

describe('the manifest', () => {
  async function manifest(): Promise<Bytes> {
    await station.issue({ serial: 'A-1', csr: await request('A-1'), groups: ['batch=1', 'model=gw'] })
    await station.issue({ serial: 'A-2', csr: await request('A-2'), groups: ['batch=1'], keyOrigin: 'host' })
    return station.manifest()
  }
  const rules = () => ({ anchors: [anchorOf(parseCertificate(maker.root.certificate))], now: clock.now() + 60 })

  test('lists each unit with key, groups and who made the key', async () => {
    const { entries } = verifyManifest(await manifest(), rules())
    expect(entries.map(({ serial, groups, keyOrigin }) => ({ serial, groups, keyOrigin }))).toEqual([
      { serial: 'A-1', groups: ['batch=1', 'model=gw'], keyOrigin: 'device' },
      { serial: 'A-2', groups: ['batch=1'], keyOrigin: 'host' },
    ])
    expect(verifyManifest(await station.manifest(['A-2']), rules()).entries).toHaveLength(1)
  })

  test('openssl verifies its signature, and every seal of the journal, from what the pages say is signed', async () => {
    const text = Buffer.from(await manifest()).toString()
    const { certificates } = JSON.parse(text.split('\n')[0])
    writeFileSync(join(folder, 'signer.der'), Buffer.from(certificates[0], 'base64'))
    writeFileSync(
      join(folder, 'signer.pub'),
      openssl('x509', '-inform', 'DER', '-in', join(folder, 'signer.der'), '-noout', '-pubkey'),
    )
    const verified = (message: Bytes, signature: string): string => {
      writeFileSync(join(folder, 'message'), message)
      writeFileSync(join(folder, 'signature'), Buffer.from(signature, 'base64'))
      const names = ['-verify', 'signer.pub', '-signature', 'signature', 'message'].map(name =>
        name.startsWith('-') ? name : join(folder, name),
      )
      return openssl('dgst', '-sha256', ...names)
    }
    const foot = text.lastIndexOf('\n', text.length - 2) + 1
    const digest = createHash('sha256').update(text.slice(0, foot)).digest()
    const { signature } = JSON.parse(text.slice(foot))
    expect(verified(Buffer.concat([Buffer.from('birthmark-manifest/1\n'), digest]), signature)).toBe('Verified OK\n')

    let previous = '0'.repeat(64)
    let seals = 0
    for (const line of readFileSync(join(folder, 'journal.jsonl'), 'utf8').trim().split('\n')) {
      const said = JSON.parse(line)
      expect(said.prev).toBe(previous)
      if (said.kind === 'seal') {
        expect(verified(Buffer.from(`birthmark-journal/1\n${said.n}\n${previous}\n`), said.signature)).toBe('Verified OK\n')
        seals++
      }
      previous = createHash('sha256').update(line).digest('hex')
    }
    expect(seals).toBe(4)
  })

  test('one changed byte anywhere among the units breaks it', async () => {
    const file = Buffer.from(await manifest())
    appendFileSync(join(folder, 'm'), file)
    const changed = Buffer.from(file.toString().replace('"keyOrigin":"host"', '"keyOrigin":"devi"'))
    expect(() => verifyManifest(changed, rules())).toThrow(expect.objectContaining({ code: 'manifest_signature' }))
    const lines = file.toString().split('\n')
    const shortened = Buffer.from([lines[0], lines[1], ...lines.slice(3)].join('\n'))
    expect(() => verifyManifest(shortened, rules())).toThrow(expect.objectContaining({ code: 'manifest_signature' }))
    expect(() => verifyManifest(file.subarray(0, file.length - 1), rules())).toThrow(
      expect.objectContaining({ code: 'manifest_malformed' }),
    )
  })

  test('another manufacturer’s manifest, and one signed with a birth key, are not trusted', async () => {
    const file = await manifest()
    const other = await createManufacturer(join(folder, 'other'), 'Other', clock)
    expect(() => verifyManifest(file, { ...rules(), anchors: [anchorOf(parseCertificate(other.root.certificate))] })).toThrow(
      expect.objectContaining({ code: 'manifest_untrusted' }),
    )
    const key = generateSigningKey().key
    const birth = await station.issue({ serial: 'A-3', csr: await request('A-3', key) })
    const posing = { certificate: birth.certificate, chain: [...birth.chain, maker.root.certificate], key }
    station.close()
    rmSync(join(folder, 'journal.jsonl'))
    station = open({ manifestSigner: posing })
    await station.issue({ serial: 'A-1', csr: await request('A-1') })
    const forged = await station.manifest()
    expect(() => verifyManifest(forged, rules())).toThrow(expect.objectContaining({ code: 'manifest_untrusted' }))
  })

  test('[F8] [F7] bytes that are no manifest are refused by name', () => {
    for (const text of [
      '',
      '\n',
      '{}\n',
      '{}\n{}\n',
      '[]\n[]\n',
      '{"format":"birthmark-manifest/1","made":1,"certificates":[]}\n{}\n',
      '\u0000\n\u0000\n',
    ])
      expect(() => verifyManifest(Buffer.from(text), rules())).toThrow(expect.objectContaining({ code: 'manifest_malformed' }))
  })
})
