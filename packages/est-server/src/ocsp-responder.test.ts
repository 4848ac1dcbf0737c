import { hash } from 'node:crypto'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { type Bytes, encodeElement, encodeSequence, parseCertificate } from '@birthmark/device-sdk/core'
import { afterEach, describe, expect, it } from 'vitest'
import type { Issuer } from './ca/issuer-key.ts'
import { publicKeyBits } from './ca/ocsp-signer.ts'
import { createOcspResponder, type OcspResponder } from './ocsp-responder.ts'
import { csrFor, issuedBy, type Kernel, type KernelOptions, kernel, nameOf, testKey } from './testing/kernel.ts'
import { encodeOcspRequest, ocspRequestOfPath, parseOcspRequest, parseOcspResponse } from './wire/ocsp.ts'

const sha256 = (bytes: Bytes) => hash('sha256', bytes, 'buffer')
let k: Kernel
let responder: OcspResponder
afterEach(() => k.remove())

const open = async (options: KernelOptions = {}) => {
  k = await kernel(options)
  const { store, issuer, clock } = k
  const log = {
    info() {},
    warn() {},
    error: (fields: object, message: string) => void k.logged.push({ level: 'error', fields: { ...fields }, message }),
  }
  responder = createOcspResponder({ store, issuers: [issuer], lifetimeSeconds: 3600, clock, log })
}
const enrolled = async (id: string, group: string) => {
  const device = await k.device(id, [group])
  return parseCertificate(issuedBy(await k.enroll(device.peer(), csrFor(testKey(), nameOf(id)))))
}
/** The CertID in a question about one certificate. */
const certIdIn = (request: Bytes) => {
  const { der, certIds } = parseOcspRequest(request)!
  return der.subarray(certIds[0].at, certIds[0].end)
}
const requestFor = (serial: Bytes, nonce: Bytes | null = null, ca = k.issuer.certificate) =>
  encodeOcspRequest(sha256(ca.subject), sha256(publicKeyBits(ca.spki)), serial, nonce)
const ask = async (request: Bytes) => {
  const { body } = await responder.answer(request)
  const read = parseOcspResponse(body)
  if (typeof read === 'string') return read
  expect(k.issuer.verify(read.tbs, read.signature)).toBe(true)
  return read
}
const kind = async (request: Bytes) => {
  const read = await ask(request)
  return typeof read === 'string' ? read : read.responses[0].status.kind
}

describe('the responder', () => {
  it('[RFC 6960 2.2] says good, revoked since when and why, and unknown for what was never signed', async () => {
    await open()
    const a = await enrolled('a', 'batch=1')
    expect(await kind(requestFor(a.serial))).toBe('good')
    expect(await kind(requestFor(new Uint8Array(16).fill(0x41)))).toBe('unknown')
    k.clock.at += 7
    await k.revocation.revokeGroup({ group: 'batch=1', reason: 1, by: 'test' })
    const read = await ask(requestFor(a.serial))
    if (typeof read === 'string') throw new Error(read)
    expect(read.responses[0].status).toEqual({ kind: 'revoked', at: k.clock.at, reason: 1 })
    expect([read.producedAt, read.responses[0].thisUpdate, read.responses[0].nextUpdate]).toEqual([
      k.clock.at,
      k.clock.at,
      k.clock.at + 3600,
    ])
  })

  it('[RFC 6960 4.4.1] repeats a nonce, and signs each such answer', async () => {
    await open()
    const a = await enrolled('a', 'batch=1')
    for (const octets of [1, 16, 32, 128]) {
      const nonce = Buffer.alloc(octets, octets)
      const read = await ask(requestFor(a.serial, nonce))
      expect(typeof read !== 'string' && read.nonce && Buffer.from(read.nonce).includes(nonce)).toBe(true)
    }
    expect(responder.signatures).toBe(4)
  })

  it('[RFC 9654 2.1] refuses a nonce of no octets and of more than 128', async () => {
    await open()
    for (const octets of [0, 129])
      expect(await ask(requestFor(new Uint8Array([1]), new Uint8Array(octets)))).toBe('malformedRequest')
  })

  it('keeps an answer until half of its life is over, and through revocations that are not of it', async () => {
    await open()
    const a = await enrolled('a', 'batch=1')
    await k.device('b', ['batch=2'])
    const first = await responder.answer(requestFor(a.serial))
    await k.revocation.revokeGroup({ group: 'batch=2', by: 'test' })
    k.clock.at += 1799
    expect(await responder.answer(requestFor(a.serial))).toBe(first)
    expect(responder.signatures).toBe(1)
    k.clock.at += 1
    expect((await responder.answer(requestFor(a.serial))).cacheable?.thisUpdate).toBe(k.clock.at)
    await k.revocation.revokeGroup({ group: 'batch=1', by: 'test' })
    expect(await kind(requestFor(a.serial))).toBe('revoked')
  })

  it('answers several of its issuer at once, with unknown for a stranger’s among them', async () => {
    await open()
    const a = await enrolled('a', 'batch=1')
    const b = await enrolled('b', 'batch=2')
    await k.revocation.revokeGroup({ group: 'batch=2', by: 'test' })
    const ids = [requestFor(a.serial), requestFor(b.serial), requestFor(a.serial, null, parseCertificate(k.root.certificate))]
    const together = (requests: Bytes[]) => {
      const list = encodeSequence(requests.map(request => encodeSequence([certIdIn(request)])))
      return encodeSequence([encodeSequence([list])])
    }
    const read = await ask(together(ids))
    expect(typeof read !== 'string' && read.responses.map(r => r.status.kind)).toEqual(['good', 'revoked', 'unknown'])
    expect(await ask(together(Array.from({ length: 17 }, () => ids[0])))).toBe('malformedRequest')
  })

  it('[F46] rules are never older than the count of revocations that they are kept under', async () => {
    await open()
    const a = await enrolled('a', 'batch=1')
    expect(await kind(requestFor(a.serial, new Uint8Array(16)))).toBe('good')
    await new Promise(next => setImmediate(next))
    const other = new DatabaseSync(join(k.folder, 'store.db'))
    // Somebody reads in this turn, and another process commits a revocation before the turn is over.
    const read = k.store.standing(k.issuer.keyId, a.serial)
    other.exec(`BEGIN; UPDATE groups SET bound = 1000, reason = 1, closed_seq = 1 WHERE name = 'batch=1';
      INSERT INTO notices (fleet, seq, notice, sha256, at) VALUES ('meters', 1, x'00', x'00', ${k.clock.at}); COMMIT`)
    const answer = kind(requestFor(a.serial, new Uint8Array(16)))
    await read
    expect(await answer).toBe('revoked')
    await new Promise(next => setTimeout(next, 20))
    expect(await kind(requestFor(a.serial))).toBe('revoked')
    other.close()
  })

  it('says nothing for an issuer that has ended, and raises no alarm that anybody could raise by asking', async () => {
    await open()
    const a = await enrolled('a', 'batch=1')
    const { store, issuer, clock } = k
    const log = { info() {}, warn() {}, error: () => void k.logged.push({ level: 'error', fields: {}, message: '' }) }
    const ended = { ...issuer, certificate: { ...issuer.certificate, notAfter: clock.at } }
    responder = createOcspResponder({ store, issuers: [ended], lifetimeSeconds: 3600, clock, log })
    expect(await ask(requestFor(a.serial))).toBe('unauthorized')
    expect([responder.problem(), responder.signatures, k.logged]).toEqual([null, 0, []])
  })

  it('[RFC 5019 2.2.3] is not the one to ask about another issuer’s certificates, and signs nothing then', async () => {
    await open()
    expect(await ask(requestFor(new Uint8Array([5]), null, parseCertificate(k.root.certificate)))).toBe('unauthorized')
    expect(responder.signatures).toBe(0)
  })

  it('refuses what is not a request, whatever is missing or too much', async () => {
    await open()
    const request = requestFor(new Uint8Array(16).fill(0x41), new Uint8Array(32))
    for (let length = 0; length < request.length; length++)
      expect(parseOcspRequest(request.subarray(0, length)), String(length)).toBeNull()
    expect(parseOcspRequest(Buffer.concat([request, new Uint8Array(1)]))).toBeNull()
    expect(parseOcspRequest(new Uint8Array(9000))).toBeNull()
    // No flip of a bit makes it throw, or say more than it does.
    for (let i = 0; i < request.length * 8; i++) {
      const flipped = request.slice()
      flipped[i >> 3] ^= 1 << (i & 7)
      const { error } = await responder.answer(flipped)
      expect([null, 'malformedRequest', 'unauthorized']).toContain(error)
    }
  })

  it('[RFC 6960 4.4] refuses a critical extension that it does not know, and passes over others', async () => {
    await open()
    const [list] = [encodeSequence([encodeSequence([certIdIn(requestFor(new Uint8Array([1])))])])]
    const withExtension = (critical: boolean) => {
      const parts = [
        encodeElement(6, [new Uint8Array([0x2a, 3])]),
        ...(critical ? [new Uint8Array([1, 1, 0xff])] : []),
        encodeElement(4, []),
      ]
      return encodeSequence([encodeSequence([list, encodeElement(0xa2, [encodeSequence([encodeSequence(parts)])])])])
    }
    expect(await ask(withExtension(true))).toBe('malformedRequest')
    expect(await kind(withExtension(false))).toBe('unknown')
  })

  it('reads a question from a URL in each of its spellings, and nothing else', () => {
    for (const text of ['++++/w==', '%2B%2B%2B%2B%2Fw%3D%3D', '++++%2fw==', '----_w', '++++/w'])
      expect(
        Buffer.from(ocspRequestOfPath(text) ?? [])
          .toString('hex')
          .slice(0, 6),
        text,
      ).toBe('fbefbe')
    for (const text of ['', '%', '%zz', 'a b', 'A', '=', 'AAA\u00e4', 'A'.repeat(20_000)])
      expect(ocspRequestOfPath(text), text.slice(0, 9)).toBeNull()
  })

  it('[F43] says tryLater and alarms while the key does not sign, and [F41] lets no wrong signature of a token out', async () => {
    const dead = { now: false, wrong: false }
    await open({
      issuer: (real: Issuer): Issuer => ({
        ...real,
        sign: async tbs => {
          if (dead.now) throw new Error('token removed')
          return dead.wrong ? new Uint8Array(70) : await real.sign(tbs)
        },
      }),
    })
    const a = await enrolled('a', 'batch=1')
    dead.now = true
    expect([await ask(requestFor(a.serial)), await ask(requestFor(a.serial))]).toEqual(['tryLater', 'tryLater'])
    expect(responder.problem()).toMatch(/cannot be answered since .* \(issuer_failed\)/)
    expect(k.logged.filter(l => l.level === 'error')).toHaveLength(1)
    dead.now = false
    dead.wrong = true
    expect(await ask(requestFor(a.serial))).toBe('tryLater')
    dead.wrong = false
    expect([await kind(requestFor(a.serial)), responder.problem()]).toEqual(['good', null])
  })

  it('[F44] a clock that went back answers nothing', async () => {
    await open()
    const a = await enrolled('a', 'batch=1')
    k.clock.at -= 1000
    expect(await ask(requestFor(a.serial))).toBe('tryLater')
  })
})
