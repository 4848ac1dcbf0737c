import { describe, expect, it } from 'vitest'
import type { Verify } from '../agent/ports.ts'
import {
  authorityKeyId,
  basicConstraints,
  extendedKeyUsage,
  keyUsage,
  madeCa,
  madeCertificate,
  madeExtension,
  madeKey,
  madeTime,
  madeVerify,
  nameConstraints,
  subjectAltName,
  subjectKeyId,
} from '../testing/made-certificate.ts'
import { type Bytes, bytesOfHex, equalBytes, utf8Bytes } from './bytes.ts'
import { type Certificate, parseCertificate } from './certificate.ts'
import { encodeBits, encodeSequence, encodeUnsigned } from './der.ts'
import { COMMON_NAME, encodeName, foldName } from './distinguished-name.ts'
import type { DeviceErrorCode } from './errors.ts'
import { checkNameConstraints } from './name-constraints.ts'
import { anchorOf, type TrustAnchor } from './trust-anchor.ts'
import { defaultAlgorithms, type PathRules, validatePath } from './validate-path.ts'

const CLIENT_AUTH = '2b06010505070302'
const SERVER_AUTH = '2b06010505070301'
const time = Date.UTC(2026, 0) / 1000

const parse = (der: Bytes) => parseCertificate(der)
const ca = (made: Parameters<typeof madeCa>[0]) => parse(madeCa(made))

// root (key 1) → middle (key 2) → leaf (key 9)
const root = ca({ subject: 'root', issuer: 'root', key: madeKey(1), signer: madeKey(1) })
const middle = ca({ subject: 'middle', issuer: 'root', key: madeKey(2), signer: madeKey(1) })
const leaf = parse(madeCertificate({ issuer: 'middle', signer: madeKey(2) }))

interface Asked {
  leaf?: Certificate
  intermediates?: Certificate[]
  anchors?: TrustAnchor[]
  verify?: Verify
}

/** 'accepted' or the code of the error; the path beside it. */
function ask(
  asked: Asked,
  rules: Partial<PathRules> = {},
): { code: DeviceErrorCode | 'accepted'; path: Certificate[]; detail: string } {
  const answers: { code: DeviceErrorCode | 'accepted'; path: Certificate[]; detail: string }[] = []
  validatePath(
    asked.leaf ?? leaf,
    asked.intermediates ?? [middle],
    {
      anchors: asked.anchors ?? [anchorOf(root)],
      time,
      algorithms: defaultAlgorithms,
      purpose: null,
      understoodCritical: [],
      depthMax: 4,
      signaturesMax: 16,
      ...rules,
    },
    asked.verify ?? madeVerify(),
    (error, path) => answers.push({ code: error ? error.code : 'accepted', path: path ?? [], detail: error ? error.message : '' }),
  )
  expect(answers.length).toBe(1)
  return answers[0]
}
const code = (asked: Asked, rules: Partial<PathRules> = {}) => ask(asked, rules).code

describe('validatePath', () => {
  it('answers with the path, leaf first and the anchor’s certificate last', () => {
    expect(ask({}).path).toEqual([leaf, middle, root])
    // An anchor may be a mere name and key.
    expect(ask({ anchors: [{ ...anchorOf(root), certificate: null }] }).path).toEqual([leaf, middle])
    expect(ask({ leaf: middle, intermediates: [] }).path).toEqual([middle, root])
  })

  it('takes an anchor anywhere in the chain, and a leaf that is one', () => {
    expect(ask({ anchors: [anchorOf(middle)] }).path).toEqual([leaf, middle])
    expect(ask({ intermediates: [], anchors: [anchorOf(leaf)] }).path).toEqual([leaf])
    const twin = { ...leaf, signature: new Uint8Array(3) }
    expect(code({ leaf: twin, intermediates: [], anchors: [anchorOf(leaf)] })).toBe('accepted')
    expect(code({ leaf: middle, intermediates: [], anchors: [anchorOf(leaf)] })).toBe('path_no_anchor')
  })

  it('[F9] needs an anchor, and a good signature on each certificate', () => {
    expect(code({ anchors: [] })).toBe('path_no_anchor')
    expect(code({ intermediates: [] })).toBe('path_no_anchor')
    expect(code({ anchors: [anchorOf(ca({ subject: 'other', issuer: 'other' }))] })).toBe('path_no_anchor')
    // The right name over the wrong key.
    expect(code({ anchors: [{ ...anchorOf(root), spki: madeKey(7), certificate: null }] })).toBe('path_signature')
    expect(code({ leaf: parse(madeCertificate({ issuer: 'middle', signer: madeKey(3) })) })).toBe('path_signature')
    expect(code({ verify: { verify: (_k, _a, _m, _s, done) => done('yes' as unknown as boolean) } })).toBe('path_signature')
  })

  it('[F9] an issuer is a CA and may sign certificates', () => {
    const issuer = (extensions: Bytes[]) =>
      parse(madeCertificate({ subject: 'middle', issuer: 'root', key: madeKey(2), signer: madeKey(1), extensions }))
    expect(code({ intermediates: [issuer([])] })).toBe('path_not_ca')
    expect(code({ intermediates: [issuer([basicConstraints(false)])] })).toBe('path_not_ca')
    expect(code({ intermediates: [issuer([basicConstraints(true), keyUsage(7, 0x80)])] })).toBe('path_key_usage')
    expect(code({ intermediates: [issuer([basicConstraints(true)])] })).toBe('accepted')
    // PKITS 4.6.4.
    expect(code({ intermediates: [issuer([basicConstraints(true, undefined, false)])] })).toBe('accepted')
    // The same holds for an anchor that came as a certificate.
    expect(code({ intermediates: [], anchors: [anchorOf(issuer([]))] })).toBe('path_not_ca')
  })

  it('[RFC 5280 4.2.1.3] whoever is no CA may not claim to sign certificates', () => {
    const it = parse(madeCertificate({ issuer: 'middle', signer: madeKey(2), extensions: [keyUsage(2, 0x84)] }))
    expect(code({ leaf: it })).toBe('path_key_usage')
  })

  it('[F9][RFC 5280 6.1.4 l] counts CAs below a path length, self-issued ones excepted', () => {
    const chain = (limit: number) => [
      ca({ subject: 'middle', issuer: 'sub', key: madeKey(2), signer: madeKey(4) }),
      ca({ subject: 'sub', issuer: 'top', key: madeKey(4), signer: madeKey(3) }),
      ca({ subject: 'top', issuer: 'root', key: madeKey(3), signer: madeKey(1), pathLength: limit }),
    ]
    expect(code({ intermediates: chain(2) })).toBe('accepted')
    expect(code({ intermediates: chain(1) })).toBe('path_length')
    const selfIssued = [
      ca({ subject: 'middle', issuer: 'middle', key: madeKey(2), signer: madeKey(3) }),
      ca({ subject: 'middle', issuer: 'root', key: madeKey(3), signer: madeKey(1), pathLength: 0 }),
    ]
    expect(code({ intermediates: selfIssued })).toBe('accepted')
    expect(code({ intermediates: chain(2) }, { depthMax: 2 })).toBe('path_length')
    expect(code({ intermediates: chain(2) }, { depthMax: 3 })).toBe('accepted')
  })

  it('[F9] every certificate is within its validity, ends included', () => {
    const at = (when: number) => code({}, { time: when })
    expect(at(Date.UTC(2020, 0) / 1000)).toBe('accepted')
    expect(at(Date.UTC(2020, 0) / 1000 - 1)).toBe('path_not_yet_valid')
    expect(at(Date.UTC(2040, 0) / 1000)).toBe('accepted')
    expect(at(Date.UTC(2040, 0) / 1000 + 1)).toBe('path_expired')
    const ended = ca({
      subject: 'middle',
      issuer: 'root',
      key: madeKey(2),
      signer: madeKey(1),
      notAfter: madeTime('20250101000000Z'),
    })
    expect(code({ intermediates: [ended] })).toBe('path_expired')
    const endedRoot = ca({ subject: 'root', issuer: 'root', key: madeKey(1), notAfter: madeTime('20250101000000Z') })
    expect(code({ anchors: [anchorOf(endedRoot)] })).toBe('path_expired')
    const endless = parse(madeCertificate({ issuer: 'middle', signer: madeKey(2), notAfter: madeTime('99991231235959Z') }))
    expect(code({ leaf: endless })).toBe('accepted')
  })

  it('[F55] without a trusted time asks for a floor, and refuses what ended before it', () => {
    expect(code({}, { time: -1 })).toBe('path_time_untrusted')
    expect(code({}, { time: Number.NaN })).toBe('path_time_untrusted')
    expect(code({}, { time: -1, timeFloor: time })).toBe('accepted')
    // A floor below notBefore proves nothing: the true time is later than the floor by any amount.
    expect(code({}, { time: -1, timeFloor: 0 })).toBe('accepted')
    expect(code({}, { time: -1, timeFloor: Date.UTC(2041, 0) / 1000 })).toBe('path_expired')
    // Signatures are never skipped for want of a clock.
    expect(code({ leaf: parse(madeCertificate({ issuer: 'middle', signer: madeKey(3) })) }, { time: -1, timeFloor: time })).toBe(
      'path_signature',
    )
  })

  it('[F9] allows a purpose only where leaf and CAs do', () => {
    const withPurposes = (...oids: string[]) =>
      parse(madeCertificate({ issuer: 'middle', signer: madeKey(2), extensions: [extendedKeyUsage(...oids)] }))
    const client = { purpose: CLIENT_AUTH }
    expect(code({}, client)).toBe('accepted')
    expect(code({ leaf: withPurposes(CLIENT_AUTH) }, client)).toBe('accepted')
    expect(code({ leaf: withPurposes('551d2500') }, client)).toBe('accepted')
    expect(code({ leaf: withPurposes(SERVER_AUTH) }, client)).toBe('path_key_usage')
    expect(code({ leaf: withPurposes(SERVER_AUTH) })).toBe('accepted')
    const limited = ca({
      subject: 'middle',
      issuer: 'root',
      key: madeKey(2),
      signer: madeKey(1),
      extensions: [extendedKeyUsage(SERVER_AUTH)],
    })
    expect(code({ intermediates: [limited] }, client)).toBe('path_key_usage')
    expect(code({ intermediates: [limited] }, { purpose: SERVER_AUTH })).toBe('accepted')
  })

  it('[F9] refuses a critical extension that nobody understands, in any certificate', () => {
    const odd = madeExtension('2a03', true, bytesOfHex('0500'))
    const oddLeaf = parse(madeCertificate({ issuer: 'middle', signer: madeKey(2), extensions: [odd] }))
    const oddCa = ca({ subject: 'middle', issuer: 'root', key: madeKey(2), signer: madeKey(1), extensions: [odd] })
    const oddRoot = ca({ subject: 'root', issuer: 'root', key: madeKey(1), extensions: [odd] })
    for (const asked of [{ leaf: oddLeaf }, { intermediates: [oddCa] }, { anchors: [anchorOf(oddRoot)] }]) {
      expect(code(asked)).toBe('path_critical_extension')
      expect(code(asked, { understoodCritical: ['2a03'] })).toBe('accepted')
    }
    const plain = parse(
      madeCertificate({ issuer: 'middle', signer: madeKey(2), extensions: [madeExtension('2a03', false, bytesOfHex('0500'))] }),
    )
    expect(code({ leaf: plain })).toBe('accepted')
    // A key identifier is a hint; one marked critical is not the extension of RFC 5280.
    const criticalId = madeExtension('551d0e', true, bytesOfHex('0401aa'))
    expect(code({ leaf: parse(madeCertificate({ issuer: 'middle', signer: madeKey(2), extensions: [criticalId] })) })).toBe(
      'path_critical_extension',
    )
  })

  it('[RFC 5280 6.1.5 g] lets policies be critical where none is asked for, but not policy constraints', () => {
    const policies = madeExtension('551d20', true, bytesOfHex('3006300406022a03'))
    const constraints = madeExtension('551d24', false, bytesOfHex('3003800100'))
    const withPolicy = (extension: Bytes) =>
      ca({ subject: 'middle', issuer: 'root', key: madeKey(2), signer: madeKey(1), extensions: [extension] })
    expect(code({ intermediates: [withPolicy(policies)] })).toBe('accepted')
    expect(code({ intermediates: [withPolicy(constraints)] })).toBe('path_critical_extension')
  })

  it('fails closed on name constraints that it was not given the code for', () => {
    const limit = nameConstraints([[0x82, utf8Bytes('a.example')]], [])
    const limited = ca({ subject: 'middle', issuer: 'root', key: madeKey(2), signer: madeKey(1), extensions: [limit] })
    const named = (host: string) =>
      parse(madeCertificate({ issuer: 'middle', signer: madeKey(2), extensions: [subjectAltName(false, [0x82, utf8Bytes(host)])] }))
    const checked = { nameConstraints: checkNameConstraints }
    expect(code({ leaf: named('x.a.example'), intermediates: [limited] })).toBe('path_name_constraint')
    expect(code({ leaf: named('x.a.example'), intermediates: [limited] }, checked)).toBe('accepted')
    expect(code({ leaf: named('x.b.example'), intermediates: [limited] }, checked)).toBe('path_name_constraint')
    // Another path, over a CA without the constraint, still counts.
    expect(code({ leaf: named('x.b.example'), intermediates: [limited, middle] }, checked)).toBe('accepted')
    const inLeaf = parse(madeCertificate({ issuer: 'middle', signer: madeKey(2), extensions: [limit] }))
    expect(code({ leaf: inLeaf }, checked)).toBe('path_name_constraint')
  })

  it('takes no algorithm but those given, made by a key that fits', () => {
    expect(code({}, { algorithms: ['ed25519'] })).toBe('path_algorithm')
    expect(code({}, { algorithms: ['ecdsa-sha256'] })).toBe('accepted')
    const odd = parse(madeCertificate({ issuer: 'middle', signer: madeKey(2), algorithm: bytesOfHex('300506032b6570') }))
    expect(code({ leaf: odd })).toBe('path_algorithm')
    expect(defaultAlgorithms).not.toContain('rsa-pkcs1-sha1')
    expect(defaultAlgorithms).toHaveLength(12)
  })

  it('[F73] refuses RSA issuers too small to trust or too large to afford', () => {
    const rsa = (bytes: number) =>
      encodeSequence([
        bytesOfHex('300d06092a864886f70d0101010500'),
        encodeBits(encodeSequence([encodeUnsigned(new Uint8Array(bytes).fill(0xc1)), bytesOfHex('0203010001')])),
      ])
    const ask = (bytes: number) => {
      const key = rsa(bytes)
      const issuer = ca({ subject: 'middle', issuer: 'root', key, signer: madeKey(1) })
      const algorithm = bytesOfHex('300d06092a864886f70d01010b0500')
      return code({ leaf: parse(madeCertificate({ issuer: 'middle', signer: key, algorithm })), intermediates: [issuer] })
    }
    expect([ask(255), ask(256), ask(1024), ask(1025)]).toEqual(['path_algorithm', 'accepted', 'accepted', 'path_algorithm'])
  })

  it('[RFC 5280 7.1] chains names bytewise, or folded where that is handed in', () => {
    const shouted = parse(madeCertificate({ issuer: 'MIDDLE', signer: madeKey(2) }))
    expect(code({ leaf: shouted })).toBe('path_no_anchor')
    expect(code({ leaf: shouted }, { foldName })).toBe('accepted')
  })

  it('tries issuers that the key identifier points at first, and the others all the same', () => {
    const issuer = (key: number, id: number) =>
      ca({ subject: 'middle', issuer: 'root', key: madeKey(key), signer: madeKey(1), extensions: [subjectKeyId(id)] })
    const hinting = parse(madeCertificate({ issuer: 'middle', signer: madeKey(2), extensions: [authorityKeyId(2)] }))
    const verify = madeVerify()
    expect(code({ leaf: hinting, intermediates: [issuer(5, 5), issuer(6, 6), issuer(2, 2)], verify })).toBe('accepted')
    expect(verify.asked).toBe(2)
    expect(code({ leaf: hinting, intermediates: [issuer(5, 5), issuer(2, 7)] })).toBe('accepted')
    expect(code({ leaf: hinting, intermediates: [issuer(5, 2), issuer(2, 7)] })).toBe('accepted')
  })

  it('answers with the error of the attempt that came furthest', () => {
    // The unrelated CA of the same name fails its signature at once; the right one leads on, to an expired issuer.
    const impostor = ca({ subject: 'middle', issuer: 'root', key: madeKey(5), signer: madeKey(1) })
    const ended = ca({ subject: 'root', issuer: 'root', key: madeKey(1), notAfter: madeTime('20250101000000Z') })
    const answer = ask({ intermediates: [impostor, middle], anchors: [anchorOf(ended)] })
    expect([answer.code, answer.detail]).toEqual(['path_expired', 'path_expired: certificate 2'])
    const lost = ca({ subject: 'middle', issuer: 'nobody', key: madeKey(2), signer: madeKey(8) })
    expect(ask({ intermediates: [impostor, lost] }).detail).toBe('path_no_anchor: certificate 2')
  })

  it('takes asynchronous answers, in any number, as one', async () => {
    const held: (() => void)[] = []
    const verify: Verify = {
      verify(spki, _algorithm, _message, signature, done) {
        held.push(() => {
          done(equalBytes(spki, signature))
          done(false)
          done(true)
        })
      },
    }
    let answers = 0
    validatePath(
      leaf,
      [middle],
      {
        anchors: [anchorOf(root)],
        time,
        algorithms: defaultAlgorithms,
        purpose: null,
        understoodCritical: [],
        depthMax: 4,
        signaturesMax: 16,
      },
      verify,
      (error, path) => {
        answers++
        expect(error).toBeNull()
        expect(path).toHaveLength(3)
      },
    )
    while (held.length) {
      expect(answers).toBe(0)
      const answer = held.shift() as () => void
      await Promise.resolve()
      answer()
    }
    expect(answers).toBe(1)
  })
})

describe('work of validatePath', () => {
  const certificates = (count: number, issuer: (i: number) => number) =>
    Array.from({ length: count }, (_, i) =>
      ca({ subject: `ca ${i}`, issuer: `ca ${issuer(i)}`, key: madeKey(10 + i), signer: madeKey(10 + issuer(i)) }),
    )
  const start = parse(madeCertificate({ issuer: 'ca 0', signer: madeKey(10) }))

  it('[F10] two CAs that issued each other end the search after two signatures', () => {
    const verify = madeVerify()
    expect(code({ leaf: start, intermediates: certificates(2, i => 1 - i), verify })).toBe('path_no_anchor')
    expect(verify.asked).toBe(2)
  })

  it('[F10] a hundred CAs in a row end at the depth, in a thicket at the budget', () => {
    const row = madeVerify()
    expect(code({ leaf: start, intermediates: certificates(100, i => i + 1), verify: row })).toBe('path_length')
    expect(row.asked).toBe(4)
    // All of one name, each signed by one key that all claim: every one may have issued every other.
    const thicket = Array.from({ length: 100 }, (_, i) => ca({ subject: 'ca 0', issuer: 'ca 0', key: madeKey(10 + i) }))
    const verify: Verify & { asked: number } = {
      asked: 0,
      verify(_spki, _algorithm, _message, _signature, done) {
        verify.asked++
        done(true)
      },
    }
    const started = Date.now()
    expect(code({ leaf: start, intermediates: thicket, verify }, { foldName, depthMax: 8, signaturesMax: 16 })).toBe('path_budget')
    expect(verify.asked).toBe(16)
    expect(Date.now() - started).toBeLessThan(2000)
    expect(code({ leaf: start, intermediates: certificates(129, i => i) })).toBe('path_budget')
  })

  it('[F10] names that match only folded are folded once each', () => {
    const name = (i: number) => encodeName([{ oid: COMMON_NAME, value: `${i % 2 ? 'X' : 'x'}`.repeat(900) + ' '.repeat(i % 7) }])
    const others = Array.from({ length: 128 }, (_, i) =>
      ca({ subject: name(i), issuer: name(i + 1), key: madeKey(10 + (i % 200)), pathLength: 99 }),
    )
    const named = parse(madeCertificate({ issuer: name(3), signer: madeKey(10) }))
    const verify: Verify = { verify: (_spki, _algorithm, _message, _signature, done) => done(true) }
    let folds = 0
    const counted = (octets: Bytes) => {
      folds++
      return foldName(octets)
    }
    const rules = { foldName: counted, depthMax: 8, signaturesMax: 32 }
    const started = Date.now()
    expect(code({ leaf: named, intermediates: others, verify }, rules)).toBe('path_budget')
    expect(folds).toBeLessThanOrEqual(128 + 1 + 1 + 32)
    expect(Date.now() - started).toBeLessThan(2000)
  })
})
