import { createHash, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { type Bytes, concatBytes } from '../../core/bytes.ts'
import { COMMON_NAME, encodeName } from '../../core/distinguished-name.ts'
import { loopbackNames, neverExpires, type Profile, type TestAuthority, testAuthority } from '../../testing/authority.ts'
import { nodeHash } from '../node/crypto.ts'
import { p256Verify } from '../p256-verify.ts'
import { moddableTls } from './tls.ts'
import { ModdableCertificates } from './tls-certificates.ts'
import { ecHandshake } from './tls-handshake.ts'
import type { TlsHandshake, TlsMessage, TlsReader, TlsState } from './tls-modules.ts'

const start = 1_800_000_000
const root = testAuthority('Server Root')
const stranger = testAuthority('Stranger')
const serverKey = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const clientKey = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const spkiOf = (key: KeyObject): Bytes => new Uint8Array(key.export({ type: 'spki', format: 'der' }))

const certificate = (by: TestAuthority, profile: Profile = 'server', notAfter = neverExpires): Bytes =>
  by.issue({
    profile,
    subject: encodeName([{ oid: COMMON_NAME, value: 'Server' }]),
    spki: spkiOf(serverKey.publicKey),
    notBefore: 1_577_836_800,
    notAfter,
    extensions: [loopbackNames()],
  })

const clientChain = [certificate(root, 'client')]

function certificates(slot: string | null = 'op-0', now = start): { manager: ModdableCertificates; codes: string[] } {
  const codes: string[] = []
  const secure = moddableTls({
    anchors: [root.certificate],
    // ECDSA over the digest itself is not what node:crypto offers: the "digest" is signed as a message.
    keys: { signDigest: (_, digest) => new Uint8Array(sign('sha256', digest, clientKey.privateKey)) },
    verify: p256Verify(nodeHash),
    now: () => now,
    timeFloor: start,
  })({ slot, chain: clientChain }, () => {})
  const birthmark = { ...secure.birthmark, untrusted: (code: string) => codes.push(code) }
  return { manager: new ModdableCertificates({ birthmark }), codes }
}

const host = { tls_server_name: 'localhost' }

describe('whom a TLS session believes', () => {
  it('a server whose chain leads to an anchor and that has the name; its key is known then', () => {
    const below = root.subordinate('Server Issuer')
    for (const chain of [
      [certificate(root)],
      [certificate(below), below.certificate],
      [certificate(below), below.certificate, root.certificate],
    ]) {
      const { manager, codes } = certificates()
      expect([manager.verify(chain, host), codes]).toEqual([true, []])
      expect(manager.serverKey).toEqual(spkiOf(serverKey.publicKey))
    }
    expect(certificates().manager.verify([certificate(root)], { tls_server_name: '127.0.0.1' })).toBe(true)
    // Without a clock the firmware's build stands in for it.
    expect(certificates('op-0', -1).manager.verify([certificate(root, 'server', start + 1)], host)).toBe(true)
  })

  it.each<[string, Bytes[], object, string]>([
    ['a stranger’s certificate', [certificate(stranger)], host, 'path_no_anchor'],
    ['another name', [certificate(root)], { tls_server_name: 'localhost.example.com' }, 'server_untrusted'],
    ['no name asked for', [certificate(root)], {}, 'server_untrusted'],
    ['a device’s certificate', [certificate(root, 'client')], host, 'path_key_usage'],
    ['one that has ended', [certificate(root, 'server', start - 1)], host, 'path_expired'],
    ['no certificate', [], host, 'server_untrusted'],
    ['no certificate at all', [new Uint8Array(40)], host, 'der_malformed'],
    ['a stranger’s before a good chain', [certificate(stranger), certificate(root), root.certificate], host, 'path_no_anchor'],
  ])('not %s', (_, chain, options, code) => {
    const { manager, codes } = certificates()
    expect(manager.verify(chain, options)).toBe(false)
    expect(codes).toEqual([code])
    expect(manager.serverKey).toBe(null)
  })

  it('not anybody, where nobody said whom', () => {
    expect(() => new ModdableCertificates({})).toThrow('server_untrusted')
    expect(() => certificates().manager.getKey()).toThrow('server_untrusted')
  })
})

/** A message's body, as Moddable's SSLStream reads it. */
function reader(bytes: Bytes): TlsReader {
  let at = 0
  const take = (count: number): Bytes => {
    if (at + count > bytes.length) throw new Error('beyond the end')
    at += count
    return bytes.slice(at - count, at)
  }
  return {
    get bytesAvailable() {
      return bytes.length - at
    },
    readChar: () => take(1)[0],
    readChars: count => take(count).reduce((value, one) => value * 256 + one, 0),
    readChunk: count => take(count).slice().buffer,
  }
}

const heard: number[] = []
const message = (msgType: number): TlsMessage => ({
  msgType,
  unpacketize: () => heard.push(msgType),
  packetize: () => msgType,
})
/** Moddable's table, without what it does. */
const original = {
  packetize: (_: TlsState, type: number, body: { getChunk(): Bytes }) => [type, body.getChunk()],
  helloRequest: message(0),
  clientHello: message(1),
  serverHello: message(2),
  certificate: message(11),
  serverKeyExchange: message(12),
  certificateRequest: message(13),
  serverHelloDone: message(14),
  certificateVerify: message(15),
  clientKeyExchange: message(16),
  finished: message(20),
} as unknown as TlsHandshake
const handshake = ecHandshake(original)

const clientRandom = new Uint8Array(32).fill(1)
const serverRandom = new Uint8Array(32).fill(2)
const point = spkiOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey).subarray(-65)
const params = concatBytes([Uint8Array.of(3, 0, 23, 65), point])
const digest = createHash('sha256').update('all that was said').digest()

function session(): TlsState {
  const { manager } = certificates()
  manager.verify([certificate(root)], host)
  manager.heard = 11
  return {
    certificateManager: manager,
    chosenCipher: { value: [0xc0, 0x2b] },
    clientRandom: clientRandom.slice().buffer,
    serverRandom: serverRandom.slice().buffer,
    handshakeDigests: { SHA256: { close: () => new Uint8Array(digest).buffer } },
  } as unknown as TlsState
}

function keyExchange(algorithm = [4, 3], signed = concatBytes([clientRandom, serverRandom, params]), head = params): TlsReader {
  const signature = new Uint8Array(sign('sha256', signed, serverKey.privateKey))
  return reader(concatBytes([head, Uint8Array.of(...algorithm, 0, signature.length), signature]))
}

describe('the server’s proof that it holds its key', () => {
  it('is a signature over both randoms and the ephemeral key [RFC 8422 5.4]', () => {
    const open = session()
    handshake.serverKeyExchange.unpacketize(open, keyExchange())
    expect(open.certificateManager.proven).toBe(true)
    expect(open.dhparams.named_curve).toBe(23)
    expect(new Uint8Array(open.dhparams.dh_Ys)).toEqual(new Uint8Array(point))
  })

  it.each<[string, () => TlsReader, Partial<TlsState>]>([
    ['without a hash', () => keyExchange([0, 3]), {}],
    ['without a signature', () => keyExchange([4, 0]), {}],
    ['over another random', () => keyExchange([4, 3], concatBytes([serverRandom, serverRandom, params])), {}],
    [
      'with something after it',
      () => reader(concatBytes([new Uint8Array(keyExchange().readChunk(69)), Uint8Array.of(4, 3, 0, 1, 0, 9)])),
      {},
    ],
    ['on another curve', () => keyExchange([4, 3], clientRandom, concatBytes([Uint8Array.of(3, 0, 24, 65), point])), {}],
    ['cut short', () => reader(params), {}],
    ['for another cipher suite', () => keyExchange(), { chosenCipher: { value: [0xc0, 0x27] } }],
  ])('is not one %s', (_, body, state) => {
    const open = { ...session(), ...state }
    expect(() => handshake.serverKeyExchange.unpacketize(open, body())).toThrow()
    expect(open.certificateManager.proven).toBe(false)
    expect(open.dhparams).toBe(undefined)
  })
})

describe('our proof', () => {
  const request = (types: number[], algorithms: number[]): TlsReader =>
    reader(Uint8Array.of(types.length, ...types, 0, algorithms.length, ...algorithms, 0, 3, 0, 1, 9))

  it('goes to whoever takes an ECDSA signature; others see no certificate', () => {
    const shown = (types: number[], algorithms: number[]) => {
      const open = session()
      open.certificateManager.heard = 12
      handshake.certificateRequest.unpacketize(open, request(types, algorithms))
      return open.clientCerts
    }
    expect(shown([1, 64], [4, 1, 4, 3])).toEqual(clientChain)
    expect(shown([1], [4, 3])).toEqual([])
    expect(shown([64], [4, 1, 5, 3])).toEqual([])
  })

  it('is CertificateVerify: ECDSA with SHA-256, over the digest so far [RFC 5246 7.4.8]', () => {
    const [type, body] = handshake.certificateVerify.packetize(session()) as [number, Bytes]
    expect([type, ...body.subarray(0, 3)]).toEqual([15, 4, 3, 0])
    expect(body[3]).toBe(body.length - 4)
    expect(verify('sha256', digest, createPublicKey(clientKey.privateKey), body.subarray(4))).toBe(true)
  })

  it('is not given without an identity', () => {
    const open = { ...session(), certificateManager: certificates(null).manager }
    expect(open.certificateManager.findPreferredCert()).toEqual([])
    expect(() => handshake.certificateVerify.packetize(open)).toThrow('key_unavailable')
  })
})

it('messages come in their order or not at all, and no end before both keys are proven', () => {
  const said = (names: (keyof TlsHandshake)[], prepare: (open: TlsState) => void = () => {}) => {
    const open = session()
    open.certificateManager.heard = -1
    prepare(open)
    for (const name of names)
      (handshake[name] as TlsMessage).unpacketize(open, name === 'serverKeyExchange' ? keyExchange() : reader(new Uint8Array(8)))
  }
  const secret = (open: TlsState) => {
    open.masterSecret = 'agreed'
  }
  heard.length = 0
  const usual: (keyof TlsHandshake)[] = ['serverHello', 'certificate', 'serverKeyExchange', 'serverHelloDone', 'finished']
  said(usual, secret)
  expect(heard).toEqual([2, 11, 14, 20])
  expect(() => said(usual)).toThrow('early end')
  for (const wrong of [
    ['finished'],
    ['serverHello', 'finished'],
    ['serverHello', 'serverKeyExchange'],
    ['serverHello', 'certificate', 'serverHelloDone'],
    ['serverHello', 'serverHello'],
    ['helloRequest'],
    ['clientHello'],
    ['certificateVerify'],
    ['clientKeyExchange'],
    [...usual, 'serverHello'],
  ] as (keyof TlsHandshake)[][])
    expect(() => said(wrong, secret), wrong.join()).toThrow('order of messages')
})
