import {
  type CborValue,
  concatBytes,
  decodeCbor,
  encodeCbor,
  encodeSign1,
  equalBytes,
  mapEntries,
  sign1Header,
  sign1ToBeSigned,
} from '@birthmark/device-sdk/core'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type NoticeBody, type NoticeProblem, noticeBytesMax, openNotice } from './notice.ts'
import { noticeSha256, signNotice } from './sign-notice.ts'
import type { NoticeSigner } from './signed.ts'
import { createTestNoticeKey, twinOf } from './testing/notice-key.ts'
import { nodeVerify } from './verify.ts'

const key = createTestNoticeKey()
const body: NoticeBody = {
  fleet: 'acme',
  seq: 70_000,
  previousSha256: new Uint8Array(32).fill(1),
  issuedAt: 1_800_000_000,
  maxAgeSeconds: 30,
  heartbeatAnchor: new Uint8Array(16).fill(2),
  rules: [{ kind: 'group', gid: 70_000, bound: 1_000_000, reason: 1 }],
  unknownRules: 0,
  root: null,
  floor: 0,
}

function open(bytes: Uint8Array, signers: NoticeSigner[] = [key.signer], fleet = 'acme'): NoticeBody | NoticeProblem {
  let result: NoticeBody | NoticeProblem | null = null
  openNotice(bytes, fleet, signers, nodeVerify(), (problem, read) => {
    result = problem ?? read
  })
  if (result === null) throw new Error('not answered')
  return result
}

/** Signed by the right key, whatever the payload is. */
async function signed(payload: Uint8Array, header = sign1Header(-7)): Promise<Uint8Array> {
  return encodeSign1(header, key.keyId, payload, await key.sign(sign1ToBeSigned(header, payload)))
}

async function withField(field: number, value: CborValue | undefined): Promise<Uint8Array> {
  const notice = await signNotice(body, key)
  const payload = (decodeCbor(notice, { depthMax: 5, itemsMax: 100 }) as { value: CborValue[] }).value[2] as Uint8Array
  const entries = mapEntries(decodeCbor(payload, { depthMax: 5, itemsMax: 100 })).filter(([k]) => k !== field)
  return signed(encodeCbor({ map: value === undefined ? entries : [...entries, [field, value]] }))
}

describe('a notice', () => {
  it('takes at most 200 bytes for a group, in a fleet of any size', async () => {
    expect((await signNotice({ ...body, fleet: 'acme-europe' }, key)).length).toBeLessThanOrEqual(200)
  })

  for (const algorithm of [-7, -8] as const) {
    it(`is read back as it was signed, algorithm ${algorithm}`, async () => {
      const own = createTestNoticeKey(algorithm)
      const full = {
        ...body,
        root: new Uint8Array(32),
        floor: 12,
        rules: [...body.rules, { kind: 'group' as const, gid: 1, bound: 0 }],
      }
      expect(open(await signNotice(full, own), [key.signer, own.signer])).toEqual(full)
    })
  }

  it('may be the first, without one before it', async () => {
    expect(open(await signNotice({ ...body, seq: 1, previousSha256: null, rules: [] }, key))).toMatchObject({
      seq: 1,
      previousSha256: null,
    })
  })

  it('[F47] of another key, another fleet, or none is refused', async () => {
    const notice = await signNotice(body, key)
    expect(open(notice, [])).toBe('notice_signer_unknown')
    expect(open(notice, [createTestNoticeKey().signer])).toBe('notice_signer_unknown')
    expect(open(notice, [{ ...createTestNoticeKey().signer, keyId: key.keyId }])).toBe('notice_signature')
    expect(open(notice, [{ ...key.signer, algorithm: -8 }])).toBe('notice_signer_unknown')
    expect(open(notice, [key.signer], 'other')).toBe('notice_other_fleet')
    const unsigned = encodeSign1(sign1Header(-7), key.keyId, encodeCbor(null), new Uint8Array(64))
    expect(open(unsigned)).toBe('notice_signature')
  })

  it('[F47] the twin of an ECDSA signature with a zero or an oversized number verifies nothing', async () => {
    const notice = await signNotice(body, key)
    for (const fill of [0x00, 0xff])
      expect(open(concatBytes([notice.subarray(0, -64), new Uint8Array(64).fill(fill)]))).toBe('notice_signature')
  })

  it('[RFC 9052 4.4] is known by what was signed: both forms of one signature are one notice', async () => {
    const notice = await signNotice(body, key)
    const twin = twinOf(notice)
    expect(equalBytes(twin, notice)).toBe(false)
    expect(open(twin)).toEqual(open(notice))
    expect(equalBytes(noticeSha256(twin), noticeSha256(notice))).toBe(true)
    expect(equalBytes(noticeSha256(await signNotice({ ...body, seq: 2 }, key)), noticeSha256(notice))).toBe(false)
  })

  it('[F49] of more than 8 KiB is refused before it is parsed', () => {
    expect(open(new Uint8Array(noticeBytesMax + 1))).toBe('notice_too_large')
    expect(open(new Uint8Array(10 << 20))).toBe('notice_too_large')
    expect(open(new Uint8Array(0))).toBe('notice_malformed')
  })

  it('[F7] with a changed bit anywhere is refused', async () => {
    const notice = await signNotice(body, key)
    for (let bit = 0; bit < notice.length * 8; bit++) {
      const changed = notice.slice()
      changed[bit >> 3] ^= 1 << (bit & 7)
      expect(typeof open(changed), `bit ${bit}`).toBe('string')
    }
  })

  it('[F7] made of arbitrary bytes is refused without a throw', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), bytes => typeof open(bytes) === 'string'))
  })

  it('must come in the one shape of its definition, although others verify', async () => {
    const notice = await signNotice(body, key)
    const parts = (decodeCbor(notice, { depthMax: 5, itemsMax: 100 }) as { value: CborValue[] }).value
    expect(equalBytes(encodeCbor({ tag: 18, value: parts }), notice)).toBe(true)
    expect(open(encodeCbor(parts))).toBe('notice_malformed')
    expect(
      open(
        await signed(
          parts[2] as Uint8Array,
          encodeCbor({
            map: [
              [1, -7],
              [3, 0],
            ],
          }),
        ),
      ),
    ).toBe('notice_malformed')
    expect(open(encodeCbor({ tag: 18, value: [parts[0], { map: [] }, parts[2], parts[3]] }))).toBe('notice_malformed')
    expect(open(encodeCbor({ tag: 18, value: [parts[0], { map: [[4, new Uint8Array(4)]] }, parts[2], parts[3]] }))).toBe(
      'notice_malformed',
    )
  })
})

describe('a signed body', () => {
  const malformed: [string, number, CborValue | undefined][] = [
    ['without a fleet', 1, undefined],
    ['with a fleet that is no name', 1, 'Acme/#'],
    ['with number 0', 2, 0],
    ['with a hash of 31 bytes', 3, new Uint8Array(31)],
    ['issued before 1970', 4, -1],
    ['with no max-age', 5, 0],
    ['with a max-age of a year', 5, 31_536_000],
    ['with a short anchor', 6, new Uint8Array(15)],
    ['with rules that are no list', 7, 5],
    ['with a rule that is no list', 7, [5]],
    ['with an empty rule', 7, [[]]],
    ['with a group rule cut short', 7, [[1, 2]]],
    ['with a group rule that goes on', 7, [[1, 2, 3, 4, 5]]],
    ['with group 0', 7, [[1, 0, 3]]],
    ['with a bound beyond 2^31', 7, [[1, 2, 2 ** 31 + 1]]],
    ['with a reason beyond a byte', 7, [[1, 2, 3, 256]]],
    ['with groups out of order', 7, [[2, new Uint8Array([5, 1, 0, 1])]]],
    ['with a bound cut off', 7, [[2, new Uint8Array([5])]]],
    ['with a gid in more bytes than it takes', 7, [[2, new Uint8Array([0x85, 0, 1])]]],
    ['with a range past 2^31', 7, [[3, 2 ** 31 - 1, 2]]],
    ['with an empty range', 7, [[3, 5, 0]]],
    ['with an issuer without an id', 7, [[4, new Uint8Array(0)]]],
    ['with a list that says nothing', 7, [[5, 0, 3, 1, new Uint8Array(4)]]],
    ['with a list beyond a million', 7, [[5, 0, 2 ** 20 + 1, 2, new Uint8Array([1, 1])]]],
    ['with 513 rules', 7, Array.from({ length: 513 }, () => [1, 2, 3])],
    ['with a root of 16 bytes', 8, new Uint8Array(16)],
    ['with floor 0', 9, 0],
  ]
  for (const [what, field, value] of malformed) {
    it(`[F7] ${what} is refused`, async () => {
      expect(open(await withField(field, value))).toBe('notice_malformed')
    })
  }

  it('[F7] with a field that this version does not know is refused as a later format', async () => {
    for (const field of [0, 10, 1000, -1]) expect(open(await withField(field, 1))).toBe('notice_unsupported')
  })

  it('gives the rules that are known and counts the others, a list in an unknown code among them', async () => {
    const read = open(
      await withField(7, [
        [3, 100, 5],
        [1, 7, 9],
        [4, new Uint8Array(20)],
        [6, 0, 3],
        [5, 0, 3, 3, new Uint8Array(4)],
      ]),
    )
    const known = [
      { kind: 'range', start: 100, length: 5 },
      { kind: 'group', gid: 7, bound: 9 },
      { kind: 'issuer', keyId: new Uint8Array(20) },
    ]
    expect(read).toMatchObject({ rules: known, unknownRules: 2 })
  })

  it('that receivers would refuse is not signed', async () => {
    await expect(signNotice({ ...body, fleet: 'NO' }, key)).rejects.toMatchObject({ code: 'configuration_invalid' })
    await expect(signNotice({ ...body, rules: [{ kind: 'group', gid: 0, bound: 1 }] }, key)).rejects.toMatchObject({
      code: 'configuration_invalid',
    })
  })
})
