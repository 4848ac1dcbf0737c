// What people say about a campaign, signed. A Unix socket does not tell a program who is at its other end in a way that Node can read, and two
// people who administer one machine share its user anyway; so a person is a key. A word is about one plan by its hash: it stands for nothing else,
// and whoever has the receipt can check it without the server.

import { createPublicKey, type KeyObject, sign, verify } from 'node:crypto'
import { type Bytes, hexOf } from '@birthmark/device-sdk/core'
import { sha256 } from '../node-crypto.ts'

export interface Person {
  name: string
  /** DER SubjectPublicKeyInfo, Ed25519 or P-256. */
  spki: Bytes
}

export type Saying = 'submit' | 'approve' | 'undo'

export interface Word {
  what: Saying
  by: string
  at: number
  /** SHA-256 of the signer's SubjectPublicKeyInfo, hex; null with `signature`: said at the operator's socket, and nobody's in particular. */
  key: string | null
  /** Base64. */
  signature: string | null
}

/** What is signed. The first line keeps it apart from everything else that such a key may sign. */
export function wordBytes(what: Saying, fleet: string, planSha256: Bytes, name: string): Bytes {
  return new TextEncoder().encode(`birthmark campaign 1\n${what}\n${fleet}\n${hexOf(planSha256)}\n${name}\n`)
}

export function signWord(key: KeyObject, what: Saying, fleet: string, planSha256: Bytes, name: string): string {
  return sign(digestOf(key), wordBytes(what, fleet, planSha256, name), key).toString('base64')
}

/** ECDSA in DER or Ed25519, by the key's type. */
export function verifyWord(spki: Bytes, signature: string, what: Saying, fleet: string, planSha256: Bytes, name: string): boolean {
  try {
    const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
    return verify(digestOf(key), wordBytes(what, fleet, planSha256, name), key, Buffer.from(signature, 'base64'))
  } catch {
    return false
  }
}

const digestOf = (key: KeyObject) => (key.asymmetricKeyType === 'ed25519' ? null : 'sha256')

export function keyName(spki: Bytes): string {
  return hexOf(sha256(spki))
}

/** Why a key cannot stand for a person, or null. */
export function personKeyProblem(spki: Bytes): string | null {
  try {
    const { asymmetricKeyType, asymmetricKeyDetails } = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
    if (asymmetricKeyType === 'ed25519') return null
    if (asymmetricKeyType === 'ec' && asymmetricKeyDetails?.namedCurve === 'prime256v1') return null
    return 'is neither Ed25519 nor P-256'
  } catch {
    return 'is no public key'
  }
}

/** One human, one name, one key: what would let somebody approve what they submitted. Null for people that are apart. */
export function peopleProblem(people: readonly Person[]): string | null {
  const names = people.map(({ name }) => name.toLowerCase())
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined) return `${twice} is named twice`
  const keys = people.map(({ spki }) => keyName(spki))
  const shared = keys.findIndex((key, i) => keys.indexOf(key) !== i)
  return shared < 0 ? null : `${people[keys.indexOf(keys[shared])].name} and ${people[shared].name} have one key`
}
