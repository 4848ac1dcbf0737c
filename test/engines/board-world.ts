// What lies around a simulated board: the chip's cryptography, what the line wrote into it, an EST server, a broker that delivers notices. It answers what the
// board asks for and keeps what it saw.
import { createHash, randomBytes } from 'node:crypto'
import type { KeyStore } from '@birthmark/device-sdk/agent'
import { type Bytes, concatBytes, parseCertificate, spkiOfPoint, utf8Text } from '@birthmark/device-sdk/core'
import { memoryKeys, memoryStore } from '@birthmark/device-sdk/node'
import { startTestEst } from '@birthmark/device-sdk/testing'
import { p256 } from '@noble/curves/nist.js'
import { createTestHistory } from '../../packages/fleet-revocation/src/testing/history.ts'
import { createTestNoticeKey } from '../../packages/fleet-revocation/src/testing/notice-key.ts'
import { certificatesOf, hexOf } from './recorded.ts'
import type { XsQuestion } from './xs.ts'

export const boardStart = Date.UTC(2026, 10, 22) / 1000
const spkiOf = (secret: Uint8Array): Bytes => spkiOfPoint(p256.getPublicKey(secret, false))
const signed = (digest: Bytes, secret: Uint8Array, format: 'der' | 'compact'): Bytes =>
  p256.sign(new Uint8Array(digest), secret, { prehash: false, format })
const isSigned = (point: Bytes, digest: Bytes, signature: Bytes, format: 'der' | 'compact'): boolean =>
  p256.verify(new Uint8Array(signature), new Uint8Array(digest), new Uint8Array(point), { prehash: false, lowS: false, format })

export interface BoardWorld {
  /** What a board is made with, by name. */
  furnished: Record<string, Bytes>
  /** Lines that the board reported. */
  said: string[]
  /** Requests, sessions, subscriptions and topics of telemetry, in order: method, operation and the certificate shown. */
  seen: string[]
  /** Secret numbers of Moddable's signatures. */
  secrets: Set<string>
  answer(question: XsQuestion): Promise<Uint8Array | null>
  close(): Promise<void>
}

/**
 * Its operational certificates live ten minutes; the second session hears two notices, of which the second revokes. `format`: of the signatures by which a
 * board shows that it holds the key of what it shows.
 */
export async function startBoardWorld(id: string, format: 'der' | 'compact'): Promise<BoardWorld> {
  let now = boardStart
  const membership = { fleet: 'acme', idx: 10, gids: [7, 9] }
  const est = await startTestEst({ now: () => now, lifetimeSeconds: 600, membership })
  const secrets = new Map<string, Uint8Array>([['0', p256.utils.randomSecretKey()]])
  const birth = secrets.get('0') as Uint8Array
  const store = memoryStore()
  const keys: KeyStore = {
    ...memoryKeys(),
    generate: (_, done) => done(null, spkiOf(birth)),
    publicKey: (_, done) => done(null, spkiOf(birth)),
    sign: (_, message, done) => done(null, signed(createHash('sha256').update(message).digest(), birth, 'der')),
  }
  await est.bear(id, { keys, store })
  const noticeKey = createTestNoticeKey()
  const history = createTestHistory(noticeKey)
  await history.add([{ kind: 'group', gid: 7, bound: 10 }])
  await history.add([{ kind: 'group', gid: 9, bound: 11 }])

  const furnished: Record<string, Bytes> = {
    'birthmark/birth.chain': store.get('birth.chain') as Bytes,
    'birthmark.key/birth': birth,
    birthAnchor: est.authorities.birth.certificate,
    operationalAnchor: parseCertificate(est.authorities.operational.certificate).der,
    serverAnchor: est.authorities.server.certificate,
    keyId: noticeKey.keyId,
    noticeSpki: noticeKey.signer.spki,
  }
  const world: BoardWorld = { furnished, said: [], seen: [], secrets: new Set(), answer, close: () => est.close() }
  let sessions = 0
  const birthLeaf = certificatesOf(furnished['birthmark/birth.chain'])[0]

  /** Which identity is shown, once it is proven that the board holds its key. */
  function shownBy(chain: Bytes, proof: Bytes): string {
    const leaf = certificatesOf(new Uint8Array(chain))[0]
    if (!leaf) return 'nobody'
    if (!isSigned(parseCertificate(leaf).spki.subarray(-65), new Uint8Array(32).fill(7), proof, format)) return 'a stranger'
    return hexOf(leaf) === hexOf(birthLeaf) ? 'birth' : 'operational'
  }

  async function exchange(text: string, body: Bytes, chain: Bytes, proof: Bytes): Promise<Uint8Array | null> {
    const [method, path, milliseconds] = text.split(' ')
    now = Math.floor(Number(milliseconds) / 1000)
    world.seen.push(`${method} ${path.split('/').pop()} as ${shownBy(chain, proof)}`)
    const request = {
      method,
      path,
      headers: {},
      body: body.length ? new Uint8Array(body) : null,
      bodyBytesMax: 65536,
      timeoutSeconds: 60,
    }
    return new Promise(resolve =>
      est.direct().request(request, { slot: 'its', chain: certificatesOf(new Uint8Array(chain)) }, (_, response) => {
        resolve(response && concatBytes([Uint8Array.of(response.status >> 8, response.status & 255), response.body]))
      }),
    )
  }

  async function answer({ name, text, bytes: [one, two, three] }: XsQuestion): Promise<Uint8Array | null> {
    switch (name) {
      case 'say':
        world.said.push(text)
        return null
      case 'given':
      case 'factory':
        return furnished[text] ?? null
      case 'sha256':
        return createHash('sha256').update(one).digest()
      case 'entropy':
        return randomBytes(Number(text))
      case 'dh':
        return p256.getPublicKey(new Uint8Array(one), false)
      case 'ecdsa': {
        const [key, secret, der] = text.split(' ')
        if (der !== 'true' || BigInt(`0x${secret}`) === 0n) throw new Error('not as ECDSA is asked')
        world.secrets.add(secret)
        return signed(one, Buffer.from(key.padStart(64, '0'), 'hex'), 'der')
      }
      case 'generate':
        secrets.set(text, p256.utils.randomSecretKey())
        return spkiOf(secrets.get(text) as Uint8Array).subarray(-64)
      case 'publicKey':
        return secrets.has(text) ? spkiOf(secrets.get(text) as Uint8Array).subarray(-64) : null
      case 'sign':
        return signed(one, secrets.get(text) as Uint8Array, 'compact')
      case 'verify':
        return isSigned(concatBytes([Uint8Array.of(4), one]), two, three, 'compact') ? new Uint8Array(0) : null
      case 'http':
        return exchange(text, one, two, three)
      case 'mqtt':
        sessions++
        world.seen.push(`session of ${text} as ${shownBy(one, two)}`)
        return null
      case 'subscribe':
        world.seen.push(`subscribes ${text}`)
        return null
      case 'publish':
        world.seen.push(`publishes ${text} ${utf8Text(new Uint8Array(one))?.replace(/\d{6,}/, 'T')}`)
        return null
      case 'notice':
        return sessions === 2 ? (history.notices.shift()?.notice ?? null) : null
      default:
        throw new Error(`a board asked for ${name}`)
    }
  }
  return world
}
