import { execFileSync } from 'node:child_process'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { duplexPair } from 'node:stream'
import { crc32 } from 'node:zlib'
import { anchorOf, type Bytes, checkBirthCertificate, decodePem, encodePem, parseCertificate } from '@birthmark/device-sdk/core'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Manufacturer } from './authority.ts'
import { UNASSIGNED_HARDWARE } from './birth-form.ts'
import { birthRequest, type DeviceKey } from './birth-request.ts'
import { collectJournals } from './collector.ts'
import { encodeFrame, frameReader, openDeviceLink, simulateDevice } from './device-link.ts'
import { espCsv, espPartition } from './esp-secure-cert.ts'
import espVectors from './esp-secure-cert.vectors.json' with { type: 'json' }
import { verifyManifest } from './manifest.ts'
import { openOrder } from './order.ts'
import { acceptIssuing, createRoot, readGrant, requestIssuing, signIssuing, trialManufacturer } from './root-desk.ts'
import { generateSigningKey, type KeyType, keyTypes, sha256, sha256Hex, signatureVerifier } from './signing-key.ts'
import { openStation, type Station } from './station.ts'
import { labelRow, type UnitFormat, unitFile } from './unit-files.ts'
import { yieldHtml } from './yield-page.ts'
import { yieldReport } from './yield-report.ts'

let now = 1_790_000_000
const clock = { now: () => now }
const profile = { organization: 'Example', commonName: true, hardwareType: UNASSIGNED_HARDWARE }
const permission = { quota: 3, from: 1_789_000_000, until: 1_791_000_000 }

let folder: string
let maker: Manufacturer
let station: Station
const opened: Station[] = []

function open(where: string, from: Manufacturer): Station {
  mkdirSync(where, { recursive: true })
  const made = openStation({ folder: where, issuing: from.issuing, manifestSigner: from.manifest, profile, clock })
  opened.push(made)
  return made
}

beforeEach(async () => {
  now = 1_790_000_000
  folder = mkdtempSync(join(tmpdir(), 'line-'))
  maker = await trialManufacturer({ organization: 'Example', sku: 'gw-2', station: 'A3' }, permission, clock)
  station = open(join(folder, 'a3'), maker)
})

afterEach(() => {
  for (const each of opened.splice(0)) each.close()
  rmSync(folder, { recursive: true })
})

const request = (serial: string, key: DeviceKey = generateSigningKey().key): Promise<Bytes> => birthRequest(serial, key)
const anchors = (of = maker) => [anchorOf(parseCertificate(of.root.certificate))]

/** The serial number in a birth certificate that the path validator takes; its error otherwise. */
function judged(certificate: Bytes, issuers: Bytes[], from = maker): unknown {
  let seen: unknown
  const rules = {
    anchors: anchors(from),
    time: now + 60,
    algorithms: [from.root.key.algorithm],
    purpose: null,
    understoodCritical: [],
    depthMax: 4,
    signaturesMax: 8,
  }
  checkBirthCertificate(parseCertificate(certificate), issuers.map(parseCertificate), rules, signatureVerifier, (error, birth) => {
    seen = error ?? birth?.serialNumber
  })
  return seen
}

async function make(serial: string, at = station): Promise<Bytes> {
  const { certificate } = await at.issue({ serial, csr: await request(serial) })
  return certificate
}

describe('a mandate', () => {
  test('wrong SKU, spent quota and closed window are refused with the reason, and a known unit is still answered', async () => {
    const key = generateSigningKey().key
    const csr = await request('A-1', key)
    await expect(station.issue({ serial: 'A-1', csr, sku: 'gw-9' })).rejects.toMatchObject({ code: 'wrong_sku' })
    for (const serial of ['A-1', 'A-2', 'A-3'])
      await station.issue({ serial, csr: serial === 'A-1' ? csr : await request(serial), sku: 'gw-2' })
    await expect(make('A-4')).rejects.toMatchObject({ code: 'quota_spent' })
    now = permission.until + 1
    await expect(make('A-4')).rejects.toMatchObject({ code: 'window_closed' })
    now = permission.until - 500_000
    expect((await station.issue({ serial: 'A-1', csr })).again).toBe(true)
  })

  test('[F39] a clock that went back by a day stops the line', async () => {
    await make('A-1')
    now -= 86_400
    await expect(make('A-2')).rejects.toMatchObject({ code: 'clock_back' })
  })

  test('a station that the mandate does not name cannot begin', async () => {
    const other = await trialManufacturer({ organization: 'Example', sku: 'gw-2', station: 'B1' }, permission, clock)
    expect(() => open(join(folder, 'b1'), { ...maker, manifest: other.manifest })).toThrow(
      expect.objectContaining({ code: 'wrong_station' }),
    )
  })

  test('comes from a root’s desk by file, and openssl and the path validator agree with the outcome', async () => {
    const root = await createRoot(join(folder, 'desk'), 'Example', 'P-384', clock)
    const token = generateSigningKey('P-256').key
    const asked = await requestIssuing(join(folder, 'l'), { organization: 'Example', sku: 'gw-2', station: 'A3' }, { token })
    const certificate = await signIssuing(root, [JSON.parse(JSON.stringify(asked))], permission, clock)
    const pem = [certificate, root.certificate].map(der => encodePem('CERTIFICATE', der)).join('')
    const wrongKey = { ...readGrant(pem), issuingKey: generateSigningKey().key, stationKey: token }
    await expect(acceptIssuing(join(folder, 'l'), wrongKey, clock)).rejects.toMatchObject({ code: 'authority_mismatch' })
    const forged = { ...asked, stationCsr: asked.issuingCsr.slice(0, -8) + 'AAAAAAA=' }
    await expect(signIssuing(root, [forged], permission, clock)).rejects.toMatchObject({ code: expect.stringMatching(/^csr_/) })
    writeFileSync(join(folder, 'root.pem'), encodePem('CERTIFICATE', root.certificate))
    writeFileSync(join(folder, 'issuing.pem'), encodePem('CERTIFICATE', certificate))
    const check = ['verify', '-x509_strict', '-attime', String(now + 60), '-CAfile', 'root.pem', 'issuing.pem']
    expect(execFileSync('openssl', check, { cwd: folder, encoding: 'utf8' })).toBe('issuing.pem: OK\n')
  })
})

test.each<[KeyType, KeyType]>(keyTypes.flatMap(type => [[type, 'P-256'] as [KeyType, KeyType], ['P-256', type]]))(
  'a device key of %s under a CA of %s has a birth certificate that the path validator and OpenSSL take',
  async (device, ca) => {
    const from = await trialManufacturer({ organization: 'Example', sku: 'gw-2', station: 'A3' }, permission, clock, ca)
    const at = open(join(folder, 'keys'), from)
    const { certificate, chain } = await at.issue({ serial: 'A-1', csr: await request('A-1', generateSigningKey(device).key) })
    expect(judged(certificate, chain, from)).toBe('A-1')
    // Node's OpenSSL knows every kind of key; Debian's, which has no ML-DSA, checks the whole path where it can.
    const [issuing] = chain
    expect(new X509Certificate(certificate).verify(new X509Certificate(issuing).publicKey)).toBe(true)
    if (device.startsWith('ML') || ca.startsWith('ML')) return
    const path = { 'root.pem': from.root.certificate, 'issuing.pem': issuing, 'unit.pem': certificate }
    for (const [name, der] of Object.entries(path)) writeFileSync(join(folder, name), encodePem('CERTIFICATE', der))
    const check = [
      'verify',
      '-x509_strict',
      '-attime',
      String(now + 60),
      '-CAfile',
      'root.pem',
      '-untrusted',
      'issuing.pem',
      'unit.pem',
    ]
    expect(execFileSync('openssl', check, { cwd: folder, encoding: 'utf8' })).toBe('unit.pem: OK\n')
  },
)

/** Written from the facts of the format, not from the writer: walks TLVs by their lengths and checks each sum. */
function readPartition(image: Buffer): { type: number; subtype: number; flags: number; data: Buffer }[] {
  const found = []
  let at = 0
  while (at < image.length) {
    expect(image.readUInt32LE(at)).toBe(0xba5eba11)
    const length = image.readUInt16LE(at + 10)
    const end = at + 12 + length + ((16 - (length % 16)) % 16)
    // zlib's own continuation of a sum: what the vendor's tools and the chip's ROM compute.
    expect(image.readUInt32LE(end)).toBe(crc32(image.subarray(at, end), 0xffffffff))
    const type = image[at + 8]
    const data = image.subarray(at + 12, at + 12 + length)
    if (type === 9) expect(data).toEqual(Buffer.from(sha256(image.subarray(0, at))))
    found.push({ type, subtype: image[at + 9], flags: image[at + 4], data })
    at = end + 4
  }
  expect(at).toBe(image.length)
  return found
}

describe('files of a unit', () => {
  test('an esp_secure_cert image is read back by an independent reader: certificates, key, integrity, end', async () => {
    const certificate = await make('A-1')
    const chain = [maker.issuing.certificate]
    const absent = readPartition(espPartition({ certificate, chain, key: { kind: 'absent' }, encoding: 'der' }) as Buffer)
    expect(absent.map(({ type }) => type)).toEqual([0, 1, 9])
    expect(absent[1].data).toEqual(Buffer.from(certificate))
    const privateKey = createPrivateKey(generateSigningKey().pem)
    const pkcs8 = privateKey.export({ type: 'pkcs8', format: 'der' })
    const host = readPartition(espPartition({ certificate, chain, key: { kind: 'host', pkcs8 }, encoding: 'pem' }) as Buffer)
    expect(host.map(({ type }) => type)).toEqual([0, 1, 2, 9])
    expect(host[1].data.toString()).toBe(`${encodePem('CERTIFICATE', certificate)}\0`)
    // What the vendor's tool makes of any EC key: SEC 1.
    expect(host[2].data.toString()).toBe(`${privateKey.export({ type: 'sec1', format: 'pem' })}\0`)
    const fuse = readPartition(espPartition({ certificate, chain, key: { kind: 'efuse', id: 1 }, encoding: 'pem' }) as Buffer)
    expect(fuse.map(({ type, flags }) => [type, flags])).toEqual([
      [6, 0],
      [0, 0],
      [1, 0],
      [2, 8],
      [9, 0],
    ])
    expect([fuse[0].data[0], fuse[0].data.length]).toEqual([5, 40])
    expect(espCsv({ certificate, chain, key: { kind: 'absent' }, encoding: 'der' }).split('\n')[2]).toBe(
      `ESP_SECURE_CERT_DEV_CERT_TLV,0,${Buffer.from(certificate).toString('base64')},base64,,,,,`,
    )
    const large = { certificate: new Uint8Array(9000), chain, key: { kind: 'absent' as const }, encoding: 'der' as const }
    expect(() => espPartition(large)).toThrow(expect.objectContaining({ code: 'image_too_large' }))
  })

  test.each(espVectors.units)(
    'an image for $type has the bytes that the vendor’s own tool wrote',
    ({ certificate, ca, pkcs8, images }) => {
      const der = (text: string) => Buffer.from(text, 'base64')
      for (const [name, sum] of Object.entries(images)) {
        const key = name.endsWith('host') ? { kind: 'host' as const, pkcs8: der(pkcs8) } : { kind: 'absent' as const }
        const encoding = name.startsWith('der') ? 'der' : 'pem'
        const image = espPartition({ certificate: der(certificate), chain: [der(ca)], key, encoding })
        expect([name, sha256Hex(image)]).toEqual([name, sum])
      }
    },
  )

  test('the certificates in every output are taken by openssl and the path validator', async () => {
    const { certificate, chain } = await station.issue({ serial: 'A-1', csr: await request('A-1') })
    const unit = { serial: 'A-1', certificate, chain, hostKey: null }
    const of = (format: UnitFormat, encoding: 'pem' | 'der' = 'pem') => unitFile(format, unit, { encoding, efuse: null }).content
    const fromPem = (text: string | Bytes) => decodePem(Buffer.from(text).toString().replaceAll('\0', ''), 'CERTIFICATE', 4)
    const tlv = (encoding: 'pem' | 'der') => {
      const found = readPartition(of('esp', encoding) as Buffer)
      return [1, 0].map(type => (found.find(each => each.type === type) as { data: Buffer }).data)
    }
    const cells = (format: UnitFormat, encoding: 'pem' | 'der', at: number, names: RegExp[]) => {
      const rows = String(of(format, encoding)).split('\n')
      return names.map(name => Buffer.from((rows.find(row => name.test(row)) as string).split(',')[at], 'base64'))
    }
    const esp = [/DEV_CERT/, /CA_CERT/]
    const outputs: Record<string, Bytes[]> = {
      pem: fromPem(of('pem')),
      der: [of('der') as Bytes, ...chain],
      'esp of PEM': tlv('pem').flatMap(fromPem),
      'esp of DER': tlv('der'),
      'esp-csv of DER': cells('esp-csv', 'der', 2, esp),
      nvs: cells('nvs', 'pem', 3, [/^birth\.cert,/, /^birth\.ca\.0,/]),
    }
    writeFileSync(join(folder, 'root.pem'), encodePem('CERTIFICATE', maker.root.certificate))
    for (const [name, [leaf, ...issuers]] of Object.entries(outputs)) {
      expect([name, issuers.length]).toEqual([name, 1])
      writeFileSync(join(folder, 'leaf.pem'), encodePem('CERTIFICATE', leaf))
      writeFileSync(join(folder, 'issuers.pem'), issuers.map(der => encodePem('CERTIFICATE', der)).join(''))
      const check = ['-x509_strict', '-attime', String(now + 60), '-CAfile', 'root.pem', '-untrusted', 'issuers.pem', 'leaf.pem']
      expect(execFileSync('openssl', ['verify', ...check], { cwd: folder, encoding: 'utf8' })).toBe('leaf.pem: OK\n')
      expect([name, judged(leaf, issuers)]).toEqual([name, 'A-1'])
    }
  })

  test('openssl reads PEM and DER; a colon stays out of file names; a label ties box and key', async () => {
    const certificate = await make('AA:BB')
    const unit = { serial: 'AA:BB', certificate, chain: [maker.issuing.certificate], hostKey: null }
    const der = unitFile('der', unit)
    expect(der.name).toBe('AA_BB.der')
    writeFileSync(join(folder, der.name), der.content)
    const text = execFileSync('openssl', ['x509', '-inform', 'DER', '-in', join(folder, der.name), '-noout', '-subject'])
    expect(text.toString()).toContain('AA:BB')
    expect(unitFile('nvs', unit).content).toContain(`birth.cert,data,base64,${Buffer.from(certificate).toString('base64')}`)
    expect(labelRow('AA:BB', 'gw-2', 'ff'.repeat(32))).toBe(`AA:BB,gw-2,birthmark:1:AA:BB:${'_'.repeat(42)}8\n`)
  })
})

describe('a device on a line of bytes', () => {
  test('[F56] is asked, written and read back through noise; one that forgets is not good', async () => {
    for (const [serial, forgets] of [
      ['A-1', false],
      ['A-2', true],
    ] as const) {
      const [near, far] = duplexPair()
      simulateDevice(far, () => generateSigningKey().key, { forgets, bootLog: 'boot BM\u0001 noise\r\n' })
      const link = openDeviceLink(near, 2000)
      expect(await link.hello()).toBe('')
      const birth = await station.issue({ serial, csr: await link.request(serial) })
      await link.write([birth.certificate, ...birth.chain])
      const held = link.readback()
      if (forgets)
        await expect(held.then(each => station.confirm(serial, each))).rejects.toMatchObject({ code: 'readback_mismatch' })
      else await station.confirm(serial, await held)
      link.close()
    }
    expect(station.tally()).toMatchObject({ good: 1, issued: 1 })
  })

  test('a silent device is given up, and broken frames are skipped', async () => {
    const [near] = duplexPair()
    await expect(openDeviceLink(near, 20).hello()).rejects.toMatchObject({ code: 'device_silent' })
    const frame = Buffer.from(encodeFrame(3, Buffer.from('payload')))
    const broken = Buffer.from(frame)
    broken[7] ^= 1
    const read = frameReader()
    const all = Buffer.concat([Buffer.from('B'), broken, frame, Buffer.from('BM')])
    const got = [...all].flatMap(byte => read(Uint8Array.of(byte)))
    expect(got.map(({ payload }) => Buffer.from(payload).toString())).toEqual(['payload'])
  })
})

describe('the order', () => {
  const order = (text: string) => {
    writeFileSync(join(folder, 'o.csv'), text)
    return openOrder(join(folder, 'o.csv'))
  }
  test('serial or mac, SKU, station and groups, quoted or not', () => {
    const read = order('\ufeffmac,station,groups\r\nAA:01,A3,"batch=7;model=gw"\r\n\r\n"AA:02",,\r\n')
    expect(read.count).toBe(2)
    expect(read.unit('AA:01')).toEqual({ serial: 'AA:01', sku: null, station: 'A3', groups: ['batch=7', 'model=gw'] })
    expect(read.unit('AA:03')).toBe(null)
    read.close()
  })
  test.each([
    ['serial\n', 'no unit'],
    ['sku\ngw\n', "'serial' or 'mac'"],
    ['serial,quota\nA,1\n', "column 'quota'"],
    ['serial\nA\nB\nA\n', 'line 4: A is there twice'],
    ['serial\na b\n', 'line 2'],
    ['serial,sku\nA\n', '1 cells under 2'],
    ['serial\n"A\n', 'not closed'],
  ])('%j is refused with its line', (text, reason) => {
    expect(() => order(text)).toThrow(reason)
  })
})

describe('the day’s end', () => {
  test('begun = good + scrapped + unaccounted, failures in order of frequency, names inert in HTML, scrapped in no manifest', async () => {
    await station.confirm('A-1', { certificate: await make('A-1'), proof: null })
    await make('A-2')
    await make('A-3')
    await station.scrap('A-2', 'test', 'no radio')
    for (const cause of ['csr_signature', 'csr_signature', 'key_refused']) await station.fail('A-9', 'csr', cause)
    await expect(station.scrap('A-3', '<b>', 'x')).rejects.toMatchObject({ code: 'group_malformed' })
    const { spki, algorithm } = maker.manifest.key
    const report = yieldReport(join(folder, 'a3', 'journal.jsonl'), spki, algorithm)
    expect(report).toMatchObject({ station: 'A3', sku: 'gw-2', reserved: 3, issued: 3, good: 1, scrapped: 1, unaccounted: 1 })
    expect(report.unaccountedSerials).toEqual(['A-3'])
    expect(report.failures[0]).toEqual({ step: 'csr', cause: 'csr_signature', count: 2, share: 0.5 })
    expect(report.steps).toEqual([
      { step: 'csr', count: 3, share: 0.75 },
      { step: 'test', count: 1, share: 1 },
    ])
    expect(yieldHtml({ ...report, station: '<script>' })).not.toContain('<script>')
    const { entries } = verifyManifest(await station.manifest(), { anchors: anchors(), now: now + 60 })
    expect(entries.map(({ serial }) => serial)).toEqual(['A-1', 'A-3'])
  })
})

describe('two stations and a collector', () => {
  test('a station that was offline reconciles; a serial on both is found; a journal that was put back is refused', async () => {
    const b = { ...(await trialManufacturer({ organization: 'Example', sku: 'gw-2', station: 'B1' }, permission, clock)) }
    const other = open(join(folder, 'b1'), b)
    const rules = { anchors: [...anchors(), ...anchors(b)], now: now + 60 }
    const files = ['a3', 'b1'].map(name => join(folder, name, 'journal.jsonl'))
    await make('A-1')
    await make('B-1', other)
    const first = collectJournals(files, rules)
    expect(first).toMatchObject({ reserved: 2, issued: 2, conflictCount: 0 })
    copyFileSync(files[1], join(folder, 'old.jsonl'))
    // A week offline: the collector goes on with the other one.
    await make('B-2', other)
    const alone = collectJournals([files[0]], rules, first.journals)
    expect(alone.journals).toHaveLength(2)
    await make('A-1', other)
    const second = collectJournals(files, rules, alone.journals)
    expect(second.conflicts).toMatchObject([{ kind: 'serial', serial: 'A-1' }])
    expect(() => collectJournals([files[0], join(folder, 'old.jsonl')], rules, second.journals)).toThrow(
      expect.objectContaining({ code: 'journal_forked' }),
    )
    expect(() => collectJournals(files, { ...rules, anchors: anchors() }, [])).toThrow(
      expect.objectContaining({ code: 'manifest_untrusted' }),
    )
    truncateSync(files[0], readFileSync(files[0]).length - 40)
    expect(collectJournals([files[0]], rules).reserved).toBe(1)
  })
})
