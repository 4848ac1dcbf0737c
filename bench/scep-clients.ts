// The SCEP clients, in a process of their own. Every message is made before the measurement, each for another name and with another key; every answer
// has its status read, and afterwards its certificate taken out. Keys share primes, so that thousands of them cost seconds: worthless as keys.

import { createPrivateKey, createPublicKey, generatePrimeSync } from 'node:crypto'
import { Agent, request } from 'node:http'
import { type Bytes, contentOf, hexOf, parseCertificate, parseCertsOnly, readWhole } from '@birthmark/device-sdk/core'
import { attributeValue, parseSigned } from '../packages/est-server/src/wire/cms-signed.ts'
import {
  openAnswer,
  type ScepKey,
  type ScepMessageForm,
  scepCsr,
  scepMessage,
  selfSigned,
  signerOf,
} from '../test/support/scep-client.ts'
import { answering } from './worker.ts'

export type ToScepClients =
  /** `challenges`: one a device, or null for a server that asks for none. */
  | { kind: 'prepare'; devices: string[]; challenges: string[] | null; ra: ScepMessageForm['ra'] }
  /** Sends what was prepared for these. Those that got no answer may be sent again. */
  | { kind: 'load'; url: string; devices: string[]; clients: number }
  /** Opens every answer that said success. */
  | { kind: 'open'; devices: string[] }

export type FromScepClients =
  | { kind: 'prepare' }
  | { kind: 'load'; succeeded: string[]; failed: string[]; milliseconds: number }
  | { kind: 'open'; serials: [string, string][] }

const primeCount = 170
const exponent = 65537n
const primes: bigint[] = []
let pair = { i: 0, j: 1 }

function inverse(a: bigint, m: bigint): bigint {
  let [r0, r1, s0, s1] = [m, a % m, 0n, 1n]
  while (r1 > 0n) {
    const q = r0 / r1
    ;[r0, r1, s0, s1] = [r1, r0 - q * r1, s1, s0 - q * s1]
  }
  return ((s0 % m) + m) % m
}

function nextKey(): ScepKey {
  while (primes.length < primeCount) {
    const prime = generatePrimeSync(1024, { bigint: true })
    // The two highest bits, so that every product has 2,048.
    if (prime >> 1022n === 3n && (prime - 1n) % exponent !== 0n) primes.push(prime)
  }
  const [p, q] = [primes[pair.j], primes[pair.i]]
  pair = pair.i + 1 < pair.j ? { i: pair.i + 1, j: pair.j } : { i: 0, j: pair.j + 1 }
  if (pair.j >= primeCount) throw new Error('no more keys')
  const d = inverse(exponent, (p - 1n) * (q - 1n))
  const text = (value: bigint) => {
    const digits = value.toString(16)
    return Buffer.from(digits.length % 2 ? `0${digits}` : digits, 'hex').toString('base64url')
  }
  const jwk = {
    kty: 'RSA',
    n: text(p * q),
    e: 'AQAB',
    d: text(d),
    p: text(p),
    q: text(q),
    dp: text(d % (p - 1n)),
    dq: text(d % (q - 1n)),
    qi: text(inverse(q, p)),
  }
  const privateKey = createPrivateKey({ key: jwk, format: 'jwk' })
  return { privateKey, spki: createPublicKey(privateKey).export({ type: 'spki', format: 'der' }) }
}

interface Prepared {
  message: Bytes
  key: ScepKey
  answer: Buffer | null
}

const prepared = new Map<string, Prepared>()

function send(url: string, agent: Agent, message: Bytes): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const sent = request(
      `${url}?operation=PKIOperation`,
      { method: 'POST', agent, headers: { 'content-length': message.length } },
      response => {
        const parts: Buffer[] = []
        response.on('data', part => parts.push(part))
        response.on('end', () =>
          response.statusCode === 200 ? resolve(Buffer.concat(parts)) : reject(new Error(`HTTP ${response.statusCode}`)),
        )
        response.on('error', reject)
      },
    )
    sent.on('error', reject)
    sent.end(message)
  })
}

/** pkiStatus 0. */
function isSuccess(answer: Bytes): boolean {
  const value = attributeValue(parseSigned(answer).attributes, '6086480186f845010903')
  return value !== null && Buffer.from(contentOf(readWhole(value, 0x13))).toString() === '0'
}

answering<ToScepClients, FromScepClients>(async message => {
  switch (message.kind) {
    case 'prepare': {
      const { devices, challenges, ra } = message
      for (const [i, id] of devices.entries()) {
        const key = nextKey()
        const signer = signerOf(selfSigned(key, id), key.privateKey)
        const content = scepCsr(key, id, challenges ? challenges[i] : null)
        prepared.set(id, { message: scepMessage({ messageType: '19', content, ra, signer }).message, key, answer: null })
      }
      return { kind: 'prepare' }
    }
    case 'load': {
      const { url, devices, clients } = message
      const agent = new Agent({ keepAlive: true, maxSockets: clients })
      const succeeded: string[] = []
      const failed: string[] = []
      const start = performance.now()
      let at = 0
      const work = async () => {
        while (at < devices.length) {
          const id = devices[at++]
          const one = prepared.get(id)
          if (!one) throw new Error(`${id} was not prepared`)
          try {
            one.answer = await send(url, agent, one.message)
            if (isSuccess(one.answer)) succeeded.push(id)
            else failed.push(id)
          } catch {
            failed.push(id)
          }
        }
      }
      await Promise.all(Array.from({ length: clients }, work))
      agent.destroy()
      return { kind: 'load', succeeded, failed, milliseconds: performance.now() - start }
    }
    case 'open': {
      const serials = message.devices.map((id): [string, string] => {
        const one = prepared.get(id)
        if (!one?.answer) throw new Error(`${id} has no answer`)
        const [certificate] = parseCertsOnly(openAnswer(one.answer, one.key.privateKey))
        return [id, hexOf(parseCertificate(certificate).serial)]
      })
      return { kind: 'open', serials }
    }
  }
})
