import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { encodeBits, encodeSequence, encodeUnsigned, parseCsr } from '@birthmark/device-sdk/core'
import { testAuthority } from '@birthmark/device-sdk/testing'
import { describe, expect, it } from 'vitest'
import { sha256 } from '../node-crypto.ts'
import { csrFor, nameOf, testKey } from '../testing/kernel.ts'
import { decide, operationRefusal, type Question } from './decide.ts'
import { keyRefusal } from './key-policy.ts'
import { type ProvenCsr, prove } from './possession.ts'
import { enrollmentProfile, type ProfileOptions, spiffeId } from './profile.ts'
import { secretHash } from './secret.ts'

const root = testAuthority('Root').certificate
const base: ProfileOptions = { fleet: 'meters', birthAnchors: [root], lifetimeSeconds: 86_400 }
const keys = ['P-256', 'P-384', 'Ed25519', 'RSA']

function rsaSpki(modulus: Buffer, exponent: number[] = [1, 0, 1]) {
  const algorithm = Buffer.from('300d06092a864886f70d0101010500', 'hex')
  return encodeSequence([
    algorithm,
    encodeBits(encodeSequence([encodeUnsigned(modulus), encodeUnsigned(new Uint8Array(exponent))])),
  ])
}

/** A CSR over any SubjectPublicKeyInfo, signed by another key: the policy speaks before the signature. */
const csrOver = (spki: Uint8Array) => parseCsr(csrFor({ ...testKey(), spki }, nameOf('x')))
const odd = (bits: number) => {
  const modulus = randomBytes(bits / 8)
  modulus[0] |= 0x80
  modulus[modulus.length - 1] |= 1
  return modulus
}

describe('key policy', () => {
  it('[F73] refuses RSA moduli that are too short, too long, even, or have a small factor, and exponents but 65537', () => {
    const refusal = (modulus: Buffer, exponent?: number[]) => keyRefusal(csrOver(rsaSpki(modulus, exponent)), keys)?.detail
    expect(refusal(odd(1024))).toContain('1024 bits')
    expect(refusal(odd(8192))).toContain('8192 bits')
    const even = odd(2048)
    even[255] &= 0xfe
    expect(refusal(even)).toContain('even')
    // 3 · (2^2047 + …): all digits f are divisible by 3 and 5.
    expect(refusal(Buffer.alloc(256, 0xff))).toContain('divisible by 3')
    const good = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ format: 'jwk' }).n as string
    const modulus = Buffer.from(good, 'base64url')
    expect(refusal(modulus)).toBeUndefined()
    for (const exponent of [[3], [1], [1, 0, 0], [1, 0, 1, 1]]) expect(refusal(modulus, exponent)).toContain('exponent')
  })

  it('refuses algorithms that the profile does not name, and a point off its curve', () => {
    expect(keyRefusal(csrOver(testKey('P-384').spki), ['P-256'])).toMatchObject({ code: 'key_unsupported' })
    expect(keyRefusal(csrOver(testKey().spki), keys)).toBeNull()
    const off = testKey()
    const spki = off.spki.slice()
    spki[spki.length - 1] ^= 1
    const csr = csrFor({ ...off, spki }, nameOf('x'))
    expect(prove(csr, keys, { resumed: false }, { spki: null, key: null })).toMatchObject({ code: 'key_weak' })
  })
})

describe('possession', () => {
  it('imports a key that asks again on a connection, and takes no other for it', () => {
    const memory = { spki: null, key: null }
    const [a, b] = [testKey(), testKey()]
    const ask = (key: typeof a, signer = key) =>
      'code' in prove(csrFor(key, nameOf('x'), { signer }), keys, { resumed: false }, memory)
    expect([ask(a), ask(a), ask(b), ask(a, b), ask(a), ask(b, a)]).toEqual([false, false, false, true, false, true])
  })

  it('refuses a signature algorithm that does not fit the key', () => {
    const csr = csrFor(testKey(), nameOf('x'), { signer: testKey('Ed25519') })
    expect(prove(csr, keys, { resumed: false }, { spki: null, key: null })).toMatchObject({ code: 'csr_signature' })
  })
})

describe('profile', () => {
  it.each([
    ['fleet', { fleet: 'Meters' }],
    ['label', { label: 'simpleenroll' }],
    ['label', { label: 'a/b' }],
    ['lifetimeSeconds', { lifetimeSeconds: 599 }],
    ['lifetimeSeconds', { lifetimeSeconds: Number.NaN }],
    ['backdateSeconds', { backdateSeconds: -1 }],
    ['keys', { keys: ['DSA'] }],
    ['groups', { groups: ['a b'] }],
    ['trustDomain', { trustDomain: 'Acme' }],
    ['birthAnchors', { birthAnchors: [] }],
    ['birthAnchors', { birthAnchors: [new Uint8Array(3)] }],
  ])('a bad %s is refused by name', (name, change) => {
    expect(() => enrollmentProfile({ ...base, ...change })).toThrow(new RegExp(`profile_invalid: ${name}`))
  })

  it('an id that SPIFFE cannot spell has no URI', () => {
    const profile = enrollmentProfile({ ...base, trustDomain: 'acme.example' })
    expect(spiffeId(profile, 'a_1.b')).toBe('spiffe://acme.example/meters/a_1.b')
    for (const id of ['aa:bb', '.', '..']) expect(spiffeId(profile, id)).toBe('')
    expect(spiffeId(enrollmentProfile(base), 'aa:bb')).toBeNull()
  })
})

describe('decide', () => {
  const key = testKey()
  const csr = prove(csrFor(key, nameOf('m-1')), keys, { resumed: false }, { spki: null, key: null }) as ProvenCsr
  const birthSpkiSha256 = sha256(testKey().spki)
  const device = {
    ...{ key: 1, id: 'm-1', fleet: 'meters', birthSpkiSha256, gids: [1], closedGids: [], version: 0 },
    ...{ idxFloor: 0, supersedes: 0, supersedesSince: 0, suspectedAt: null, hold: null, revoked: false },
  }
  const certificate = {
    ...{ issuer: new Uint8Array(20), serial: new Uint8Array(16), fleet: 'meters', deviceId: 'm-1', idx: 5, gids: [1] },
    ...{
      spkiSha256: sha256(testKey().spki),
      contentSha256: new Uint8Array(32),
      epoch: 0,
      notBefore: 0,
      notAfter: 2000,
      secret: null,
      der: new Uint8Array(),
    },
  }
  const question: Question<typeof certificate> = {
    operation: 'enroll',
    profile: enrollmentProfile(base),
    identity: {
      kind: 'birth',
      deviceId: 'm-1',
      spkiSha256: birthSpkiSha256,
      subject: nameOf('as born'),
      notBefore: 0,
      notAfter: 2 ** 40,
    },
    ...{
      csr,
      contentSha256: csr.spkiSha256,
      device,
      latest: null,
      same: null,
      keyHolder: null,
      birthKeyHolder: null,
      groups: [],
      approval: null,
      caKeys: [],
      status: 'good',
      now: 1000,
    },
  }
  const decided = (change: Partial<typeof question>) => {
    const d = decide({ ...question, ...change })
    return d.kind === 'refused' ? d.code : d.kind
  }
  const approval = (change: Partial<typeof question>) => {
    const d = decide({ ...question, ...change })
    return d.kind === 'approved' ? { idxFloor: d.approval.idxFloor, supersedes: d.approval.supersedes, epoch: d.approval.epoch } : d
  }

  it('answers the same to the same question', () => {
    expect(decide(question)).toEqual(decide(question))
  })

  it('says who may not before what was asked wrongly', () => {
    const wrong = prove(csrFor(testKey(), nameOf('m-2')), keys, { resumed: false }, { spki: null, key: null }) as ProvenCsr
    expect(decided({ csr: wrong })).toBe('subject_not_own')
    expect(decided({ csr: wrong, device: { ...device, closedGids: [1] } })).toBe('group_revoked')
    expect(decided({ csr: wrong, device: null })).toBe('device_unknown')
    expect(decided({ csr: wrong, status: 'unknown' })).toBe('status_unknown')
    expect(decided({ device: { ...device, birthSpkiSha256: null as unknown as Uint8Array } })).toBe('device_unknown')
  })

  it('returns an earlier certificate until two thirds of its life', () => {
    const same = { ...certificate, spkiSha256: csr.spkiSha256 }
    expect(decided({ same, latest: same, now: 1333 })).toBe('again')
    expect(approval({ same, latest: same, now: 1334 })).toEqual({ idxFloor: 0, supersedes: 0, epoch: 1 })
    expect(decided({ same, latest: same, device: { ...device, idxFloor: 6 } })).toBe('approved')
  })

  it('[F25] a second live key supersedes once in a window', () => {
    const latest = certificate
    expect(approval({})).toEqual({ idxFloor: 'own', supersedes: 0, epoch: 0 })
    expect(approval({ latest })).toEqual({ idxFloor: 'own', supersedes: 1, epoch: 0 })
    const once = { ...device, supersedes: 1, supersedesSince: 900 }
    expect(decided({ latest, device: once })).toBe('clone_suspected')
    expect(decided({ latest: { ...latest, notAfter: 999 }, device: once })).toBe('approved')
    expect(approval({ latest, now: 900 + 7 * 86_400, device: once })).toMatchObject({ supersedes: 1 })
    expect(approval({ latest: { ...latest, notAfter: 2 ** 31 }, now: 900 + 7 * 86_400, device: once })).toMatchObject({
      supersedes: 1,
    })
    const patient = enrollmentProfile({ ...base, supersedesMax: 2 })
    expect(approval({ latest, device: once, profile: patient })).toMatchObject({ supersedes: 2 })
  })

  it('refuses a device id that the trust domain cannot name', () => {
    const profile = enrollmentProfile({ ...base, trustDomain: 'acme.example' })
    expect(decided({ profile, device: { ...device, id: 'aa:bb' } })).toBe('name_not_possible')
  })

  it('[F13] [F18] two operations, three credentials, four pairs', () => {
    const allowed = (['enroll', 'reenroll'] as const).flatMap(operation =>
      (['birth', 'operational', 'secret'] as const)
        .filter(kind => operationRefusal(operation, kind) === null)
        .map(kind => `${operation} ${kind}`),
    )
    expect(allowed).toEqual(['enroll birth', 'enroll operational', 'enroll secret', 'reenroll operational'])
  })
})

it('the hash of a secret depends on fleet, device and secret, with no way to shift one into the other', () => {
  const hashes = [
    ...[secretHash('a', 'b', 'c'), secretHash('a', 'c', 'b'), secretHash('ab', '', 'c'), secretHash('a', 'bc', '')],
    ...[secretHash('', 'ab', 'c'), secretHash('a', 'b', 'cc')],
  ]
  expect(new Set(hashes.map(h => Buffer.from(h).toString('hex'))).size).toBe(6)
})
