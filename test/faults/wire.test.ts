// FAULTS 1-4, 8 and 9-11 as far as bytes alone go: whatever is fed to the core, it answers with a value or one of its own errors, soon.
// Randomness is seeded; a failure names the seed and the input.
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import {
  type Bytes,
  bytesOfHex,
  challengePassword,
  checkNameConstraints,
  codeOf,
  concatBytes,
  csrAssemble,
  csrInfo,
  decodeBase64,
  decodePem,
  EXTENSION_REQUEST,
  encodeAttribute,
  encodeCertsOnly,
  encodeElement,
  encodeFleetExtension,
  encodeInteger,
  encodeName,
  encodePem,
  encodeSequence,
  GENERALIZED_TIME,
  hexOf,
  membershipOf,
  nameAttribute,
  nameText,
  parseCertificate,
  parseCertsOnly,
  parseCsr,
  readBirthIdentity,
  readWhole,
  requestedExtensions,
  rsaKeyOf,
  SEQUENCE,
  SERIAL_NUMBER,
  tpmNameOf,
  UTC_TIME,
  utf8Bytes,
} from '@birthmark/device-sdk/core'
import { describe, expect, it } from 'vitest'
import {
  basicConstraints,
  commonName,
  extendedKeyUsage,
  keyUsage,
  madeCertificate,
  madeKey,
  nameConstraints,
  subjectAltName,
} from '../../packages/device-sdk/src/testing/made-certificate.ts'
import { vectorFile } from '../vectors/folder.ts'

/** mulberry32: small, fast, and the same everywhere. */
function seeded(seed: number): (below: number) => number {
  let state = seed
  return below => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4294967296) * below)
  }
}

/** All that the core can do with one certificate, short of trusting it. */
function readCertificate(der: Bytes): void {
  const c = parseCertificate(der)
  for (const read of [
    () => membershipOf(c),
    () => readBirthIdentity(c),
    () => tpmNameOf(c),
    () => checkNameConstraints([c, c]),
    () => nameText(c.subject),
    () => nameAttribute(c.issuer, SERIAL_NUMBER),
    () => rsaKeyOf(c.spki),
  ])
    ownErrors(read)
}

function readCsr(der: Bytes): void {
  const csr = parseCsr(der)
  for (const read of [() => requestedExtensions(csr), () => challengePassword(csr), () => nameText(csr.subject)]) ownErrors(read)
}

/** The code of one of our errors, null when there was none; anything else passes through and fails the test. */
function ownErrors(read: () => unknown): string | null {
  try {
    read()
    return null
  } catch (error) {
    const code = codeOf(error)
    if (code === null) throw error
    return code
  }
}

const sample = madeCertificate({
  subject: encodeName([{ oid: SERIAL_NUMBER, value: 'dev-1' }]),
  uniqueIds: [bytesOfHex('81020001')],
  extensions: [
    basicConstraints(true, 1),
    keyUsage(1, 0x86),
    extendedKeyUsage('2b06010505070302'),
    subjectAltName(
      false,
      [0x82, utf8Bytes('a.example')],
      [0x87, new Uint8Array(4)],
      [0x86, utf8Bytes('spiffe://t/x')],
      [0xa4, commonName('x')],
      [0xa0, bytesOfHex('06082b06010505070804a00c300a06042b0601040402aabb')],
    ),
    nameConstraints([[0x82, utf8Bytes('example')]], [[0x87, new Uint8Array(8)]]),
    encodeFleetExtension({ fleet: 'plant', idx: 7, gids: [1, 2] }),
  ],
})
const csr = csrAssemble(
  csrInfo(commonName('dev-1'), madeKey(3), [
    encodeAttribute('2a864886f70d010907', [encodeElement(0x0c, [utf8Bytes('secret')])]),
    encodeAttribute(EXTENSION_REQUEST, [encodeSequence([basicConstraints(true)])]),
  ]),
  'ecdsa-sha256',
  new Uint8Array(70),
)
const message = encodeCertsOnly([sample, madeCertificate({})])

const readers: [string, Bytes, (bytes: Bytes) => unknown][] = [
  ['certificate', sample, readCertificate],
  ['csr', csr, readCsr],
  ['certs-only', message, parseCertsOnly],
  ['base64', utf8Bytes(encodePem('X', sample).split('\n').slice(1, -2).join('\n')), bytes => decodeBase64(bytes, 4096)],
  ['PEM', utf8Bytes(encodePem('CERTIFICATE', sample)), bytes => decodePem(bytes, 'CERTIFICATE', 4)],
]

/** Between one and four edits: octets set, cut, doubled or swapped; tags and lengths are favoured by small values. */
function mutated(source: Bytes, random: (below: number) => number): Bytes {
  let out: Bytes = Uint8Array.from(source)
  for (let edits = 1 + random(4); edits > 0; edits--) {
    const at = random(out.length)
    const what = random(10)
    if (what < 4) out[at] = random(256)
    else if (what < 7)
      out[at] = [0, 1, 2, 3, 4, 5, 6, 0x0c, 0x13, 0x14, 0x1e, 0x30, 0x31, 0x7f, 0x80, 0x81, 0x82, 0xa0, 0xff][random(19)]
    else if (what < 8) out = out.slice(0, at)
    else if (what < 9) out = concatBytes([out.subarray(0, at), out.subarray(random(at + 1))])
    else out[at] ^= 1 << random(8)
    if (out.length === 0) return out
  }
  return out
}

describe('mutated input', () => {
  for (const [name, source, read] of readers)
    it(`[F2] 10,000 mutations of a ${name}: a value or an error of ours, and no hang`, () => {
      expect(ownErrors(() => read(source))).toBeNull()
      const seed = 20_260_101
      const random = seeded(seed)
      const started = Date.now()
      for (let i = 0; i < 10_000; i++) {
        const input = mutated(source, random)
        try {
          ownErrors(() => read(input))
        } catch (error) {
          throw new Error(`seed ${seed}, mutation ${i}, ${hexOf(input)}`, { cause: error })
        }
      }
      expect(Date.now() - started).toBeLessThan(30_000)
    })

  it('[F2] of sound certificates, none is accepted that OpenSSL refuses', () => {
    const file = vectorFile('pkits', 'cases.json')
    const sources = [sample]
    if (file)
      for (const { certs } of (JSON.parse(readFileSync(file, 'utf8')) as { certs: string[] }[]).filter((_, i) => i % 8 === 0))
        sources.push(new Uint8Array(readFileSync(vectorFile('pkits', 'certs', `${certs[certs.length - 1]}.crt`) as string)))
    const seed = 7
    const random = seeded(seed)
    let accepted = 0
    for (let i = 0; i < 20_000; i++) {
      const input = Uint8Array.from(sources[random(sources.length)])
      input[random(input.length)] = random(256)
      // A key or signature of an unnamed algorithm is opaque here and refused by whoever would use it.
      let usable = false
      ownErrors(() => {
        const c = parseCertificate(input)
        usable = c.keyAlgorithm !== '' && c.signatureAlgorithm !== ''
      })
      if (!usable) continue
      accepted++
      try {
        new X509Certificate(input)
      } catch (error) {
        throw new Error(`seed ${seed}, mutation ${i}, ${hexOf(input)}`, { cause: error })
      }
    }
    // Most single octets are key, signature or name, so that much is still a certificate.
    expect(accepted).toBeGreaterThan(1000)
  })
})

describe('hostile DER', () => {
  /** `depth` SEQUENCEs, one in the other. */
  function nested(depth: number): Bytes {
    const headers: Bytes[] = []
    let length = 0
    for (let i = 0; i < depth; i++) {
      const header = encodeElement(SEQUENCE, [new Uint8Array(0)]).slice(0, 1)
      const size =
        length < 0x80
          ? [length]
          : length < 0x100
            ? [0x81, length]
            : length < 0x10000
              ? [0x82, length >> 8, length & 255]
              : [0x83, length >> 16, (length >> 8) & 255, length & 255]
      headers.push(concatBytes([header, new Uint8Array(size)]))
      length += 1 + size.length
    }
    return concatBytes(headers.reverse())
  }

  function inTime(read: () => unknown, milliseconds: number): string | null {
    const started = Date.now()
    const code = ownErrors(read)
    expect(Date.now() - started).toBeLessThan(milliseconds)
    return code
  }

  it('[F1] 5,000 and 50,000 levels cost no stack', () => {
    for (const depth of [5_000, 50_000])
      for (const read of [parseCertificate, parseCsr, parseCertsOnly, readCertificate])
        expect(inTime(() => read(nested(depth)), 1000)).toMatch(/^der_(malformed|limit)$/)
    // Inside what is not looked into: an unknown extension.
    const deep = encodeSequence([bytesOfHex('06022a03'), encodeElement(4, [nested(3000)])])
    expect(ownErrors(() => parseCertificate(madeCertificate({ extensions: [deep] })))).toBeNull()
  })

  it('[F1] four million elements are counted, not collected', () => {
    const many = encodeElement(SEQUENCE, [new Uint8Array(8_000_000).map((_, i) => (i % 2 ? 0 : 5))])
    for (const read of [parseCertificate, parseCsr, parseCertsOnly])
      expect(inTime(() => read(many), 1000)).toMatch(/^der_(malformed|limit)$/)
    const pairs = encodeElement(SEQUENCE, [new Uint8Array(8_000).map((_, i) => (i % 2 ? 0 : 0x31))])
    expect(inTime(() => parseCertificate(madeCertificate({ subject: pairs })), 1000)).toBe('der_limit')
  })

  it('[F1] a length of 2^32 − 1, or any beyond the bytes at hand, is refused before memory is taken', () => {
    for (const hex of ['3084ffffffff', '3083ffffff', '30840000000100', '308affffffffffffffffffff', '3085ffffffffff'])
      for (const read of [parseCertificate, parseCsr, parseCertsOnly])
        expect(inTime(() => read(bytesOfHex(hex)), 200)).toBe('der_malformed')
  })

  it('[F3] an OID arc beyond 2^32, an OID of 64 KB, an INTEGER of 64 KB', () => {
    const extension = (oid: Bytes) => encodeSequence([encodeElement(6, [oid]), bytesOfHex('04020500')])
    const big = new Uint8Array(60).fill(0xff)
    big[0] = 0x2a
    big[59] = 0x7f
    const read = (oid: Bytes) => inTime(() => parseCertificate(madeCertificate({ extensions: [extension(oid)] })), 200)
    expect(read(big)).toBeNull()
    expect(read(new Uint8Array(65_536).fill(0x2a))).toBe('der_limit')
    expect(read(new Uint8Array(12_000).fill(0x2a))).toBe('der_malformed')
    expect(
      inTime(() => parseCertificate(madeCertificate({ serial: encodeElement(2, [new Uint8Array(65_536).fill(0x7f)]) })), 200),
    ).toBe('der_limit')
    expect(
      inTime(() => parseCertificate(madeCertificate({ serial: encodeElement(2, [new Uint8Array(12_000).fill(0x7f)]) })), 200),
    ).toBe('certificate_malformed')
  })

  it('[F1] a validity in a spelling that engines read and DER does not have', () => {
    for (const [tag, text] of [
      [GENERALIZED_TIME, '2024-01-01T00:00:00.000Z'],
      [UTC_TIME, '24-01-01T00:00:00.000Z'],
      [GENERALIZED_TIME, '+020240-01-01T00:00:00.000Z'],
      [GENERALIZED_TIME, '-000001-01-01T00:00:00.000Z'],
    ] as const)
      for (const part of ['notBefore', 'notAfter'])
        expect(ownErrors(() => parseCertificate(madeCertificate({ [part]: encodeElement(tag, [utf8Bytes(text)]) })))).toBe(
          'der_malformed',
        )
  })

  it('[F2] BER where DER is due: indefinite and long lengths, trailing bytes', () => {
    const indefinite = concatBytes([bytesOfHex('3080'), sample.subarray(4), bytesOfHex('0000')])
    const longer = concatBytes([bytesOfHex('308300'), sample.subarray(2)])
    for (const der of [indefinite, longer, concatBytes([sample, bytesOfHex('00')])])
      expect(ownErrors(() => parseCertificate(der))).toBe('der_malformed')
    // OpenSSL reads the last two: the reason why a certificate's own hash is no identity.
    expect(new X509Certificate(concatBytes([sample, bytesOfHex('00')])).raw.length).toBe(sample.length)
  })
})

describe('hostile text', () => {
  const decode = (text: string) => {
    let out: Bytes | null = null
    const code = ownErrors(() => {
      out = decodeBase64(utf8Bytes(text), 65_536)
    })
    return code ?? hexOf(out ?? new Uint8Array())
  }

  it('[F4][RFC 8951 3.1] one line, wrapped, CRLF or PEM-shaped: white space is tolerated, armour has its own reader', () => {
    const line = Buffer.from(csr).toString('base64')
    const wrapped = line.replace(/(.{64})/g, '$1\r\n')
    for (const text of [line, wrapped, `\n\n ${wrapped}\n`, line.split('').join(' ')]) expect(decode(text)).toBe(hexOf(csr))
    expect(decode(encodePem('CERTIFICATE REQUEST', csr))).toBe('base64_malformed')
    expect(decodePem(encodePem('CERTIFICATE REQUEST', csr), 'CERTIFICATE REQUEST', 1).map(hexOf)).toEqual([hexOf(csr)])
    for (const text of [`${line}!`, `${line}=`, line.replace('M', '-'), `${line}\0`, `${line} ${line}=`])
      expect(decode(text)).toMatch(/^base64_malformed$/)
  })

  it('[F8] NUL and line ends in names stay visible, and names that are compared may not hold them', () => {
    const nul = parseCertificate(
      madeCertificate({
        subject: encodeName([{ oid: SERIAL_NUMBER, value: 'good\0evil' }]),
        extensions: [subjectAltName(false, [0x82, utf8Bytes('a\0b')])],
      }),
    )
    expect(nameAttribute(nul.subject, SERIAL_NUMBER)).toBe('good\0evil')
    expect(nameText(nul.subject)).toBe('serialNumber=good\\00evil')
    expect(ownErrors(() => readBirthIdentity(nul))).toBe('birth_not_idevid')
    expect(checkNameConstraints([nul])).toBe('malformed name')
  })

  it('[F8] no name of an object’s own properties is special', () => {
    for (const value of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
      const subject = encodeName([{ oid: SERIAL_NUMBER, value }])
      expect(nameAttribute(subject, SERIAL_NUMBER)).toBe(value)
      expect(readBirthIdentity(parseCertificate(madeCertificate({ subject }))).serialNumber).toBe(value)
      expect(ownErrors(() => csrAssemble(encodeInteger(0), value, new Uint8Array()))).toBe('certificate_unsupported')
      expect(decodePem(`-----BEGIN ${value}-----`, value.slice(1), 1)).toEqual([])
    }
    expect(readWhole(encodeName([]), SEQUENCE).end).toBe(2)
  })

  it('[F8] a string type that lies is no string', () => {
    for (const hex of ['13 02 c3 a4', '0c 01 ff', '0c 02 c0 80', '16 01 80', '1e 02 00 61', '04 01 61', '02 01 61'])
      expect([
        hex,
        ownErrors(() =>
          parseCertificate(
            madeCertificate({
              subject: encodeSequence([
                encodeElement(0x31, [encodeSequence([bytesOfHex('0603550403'), bytesOfHex(hex.replace(/ /g, ''))])]),
              ]),
            }),
          ),
        ),
      ]).toEqual([hex, 'der_malformed'])
  })
})
