// The limit that an enrollment is held against: the cryptography that no server can leave out, as fast as this runtime does it. Measured in
// the same run as the server, since only ratios of one run count.

import { createPublicKey, diffieHellman, generateKeyPairSync, type KeyObject, randomBytes, sign, verify } from 'node:crypto'

interface Signed {
  spki: Buffer
  message: Buffer
  signature: Buffer
}

export interface RawLimits {
  /** µs of CPU: verify a CSR, sign a certificate, import a key. */
  answer: number
  /** µs of CPU: a fresh mutual-TLS enrollment, which is 3 verify + 2 sign + 2 import + X25519. */
  enrollment: number
  /**
   * µs of CPU: a verification more, of the certificate between a device's and the trust anchor. A server that has met that CA remembers it: what is held
   * against this limit looks better by it than against the other.
   */
  chained: number
}

export interface RawMeter {
  measure(times: number): RawLimits
}

function importKey(spki: Buffer): KeyObject {
  // Node would otherwise collect a stack trace for an error that does not happen: half of the cost.
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 0
  const key = createPublicKey({ key: spki, format: 'der', type: 'spki' })
  Error.stackTraceLimit = limit
  return key
}

function cpuMicroseconds(times: number, work: (i: number) => void): number {
  const start = process.cpuUsage()
  for (let i = 0; i < times; i++) work(i)
  const { user, system } = process.cpuUsage(start)
  return (user + system) / times
}

export function createRawMeter(): RawMeter {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const peer = generateKeyPairSync('x25519').publicKey
  // A certificate to be signed has about 400 bytes; a key is seen once.
  const toBeSigned = randomBytes(400)
  const signed: Signed[] = Array.from({ length: 256 }, () => {
    const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const message = randomBytes(200)
    return {
      spki: pair.publicKey.export({ format: 'der', type: 'spki' }),
      message,
      signature: sign('sha256', message, pair.privateKey),
    }
  })
  const check = (key: KeyObject, { message, signature }: Signed) => {
    if (!verify('sha256', message, key, signature)) throw new Error('a good signature does not verify')
  }
  const answer = (i: number) => {
    const one = signed[i % signed.length]
    check(importKey(one.spki), one)
    sign('sha256', toBeSigned, privateKey)
  }
  const enrollment = (i: number) => {
    // Peer: its certificate chain, its CertificateVerify; ours: CertificateVerify, one key agreement.
    const one = signed[(i + 1) % signed.length]
    const key = importKey(one.spki)
    check(key, one)
    check(key, one)
    sign('sha256', toBeSigned, privateKey)
    diffieHellman({ privateKey: generateKeyPairSync('x25519').privateKey, publicKey: peer })
    answer(i)
  }
  const between = importKey(signed[0].spki)
  return {
    measure(times) {
      const whole = cpuMicroseconds(times, enrollment)
      const verification = cpuMicroseconds(times, () => check(between, signed[0]))
      return { answer: cpuMicroseconds(times, answer), enrollment: whole, chained: whole + verification }
    },
  }
}
