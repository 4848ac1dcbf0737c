// The serverkeygen story (RFC 7030 4.4): makes a key pair for a device that cannot, has the public key enrolled like any other, and hands the
// private key out, once. Promises: no key where the profile does not allow it, no recipient is found or the client would be refused whatever its key, known before one is made; the
// key is on no medium and in no log. A lost answer is a lost key: the same request again makes another.

import { createHash, generateKeyPair, type KeyObject, sign } from 'node:crypto'
import { promisify } from 'node:util'
import {
  type Bytes,
  type Certificate,
  CHALLENGE_PASSWORD,
  type Csr,
  codeOf,
  csrAssemble,
  csrInfo,
  EXTENSION_REQUEST,
  encodeAttribute,
  octetBits,
  parseCertificate,
  partsOf,
  readWhole,
  SEQUENCE,
} from '@birthmark/device-sdk/core'
import type { Enrollment } from './enrollment.ts'
import type { EnrollmentOutcome, EnrollmentRequest } from './enrollment-request.ts'
import { canReceive, envelopeKey, type KeyRecipient, type KeySigner, recipientKey } from './key-envelope.ts'
import type { Log, RandomBytes } from './ports.ts'
import { type ProvenCsr, prove } from './registrar/possession.ts'
import type { EnrollmentProfile } from './registrar/profile.ts'
import { isRefusal, type Refusal, refusal } from './registrar/refusal.ts'
import { UnavailableError } from './unavailability.ts'
import { isNamed, type KeyWish, keyWishOf } from './wire/key-package.ts'

const generated = promisify(generateKeyPair) as unknown as (
  type: string,
  options: object,
) => Promise<{ publicKey: KeyObject; privateKey: KeyObject }>

/** `enveloped`: `key` is a CMS EnvelopedData; otherwise it is bare PKCS#8. */
export type ServerKeyOutcome =
  | (Extract<EnrollmentOutcome, { kind: 'issued' }> & { key: Bytes; enveloped: boolean })
  | Exclude<EnrollmentOutcome, { kind: 'issued' }>

export interface ServerKeys {
  /** Never rejects for what a peer sent. The request's CSR says names, key type and recipient; its own key gets no certificate. */
  generate(request: EnrollmentRequest): Promise<ServerKeyOutcome>
}

export interface ServerKeyParts {
  enrollment: Pick<Enrollment, 'enroll' | 'introduce'>
  signer: KeySigner
  random: RandomBytes
  log: Log
  /** By default node:crypto's. */
  keyPair?: typeof generated
}

/** RSA takes a core for a second; two leave room for the rest. */
const inFlightMax = 2

const kinds: Record<string, { type: string; options: object; algorithm: string; hash: string | null }> = {
  'P-256': { type: 'ec', options: { namedCurve: 'P-256' }, algorithm: 'ecdsa-sha256', hash: 'sha256' },
  'P-384': { type: 'ec', options: { namedCurve: 'P-384' }, algorithm: 'ecdsa-sha384', hash: 'sha384' },
  Ed25519: { type: 'ed25519', options: {}, algorithm: 'ed25519', hash: null },
  'ML-DSA-44': { type: 'ml-dsa-44', options: {}, algorithm: 'ml-dsa-44', hash: null },
  'ML-DSA-65': { type: 'ml-dsa-65', options: {}, algorithm: 'ml-dsa-65', hash: null },
}

function kindOf(csr: Csr) {
  if (csr.keyAlgorithm !== 'RSA') return kinds[csr.keyAlgorithm]
  return { type: 'rsa', options: { modulusLength: csr.keyBits }, algorithm: 'rsa-pkcs1-sha256', hash: 'sha256' }
}

/** RFC 5280 4.2.1.2 (1): SHA-1 of the subjectPublicKey bits. A name, not a proof. */
function keyIdOf(spki: Bytes): Bytes {
  const bits = octetBits(partsOf(readWhole(spki, SEQUENCE), SEQUENCE, 2, 2)[1])
  return createHash('sha1').update(bits).digest()
}

/**
 * The key to encrypt to: the one that the CSR names, which must be its own or that of the TLS certificate; without a name that of the TLS
 * certificate. Null: the client named none and has none that could receive.
 */
function recipientOf(csr: Csr, wish: KeyWish, client: Certificate | null): KeyRecipient | Refusal | null {
  const unusable = (detail: string) => refusal('key_recipient_unusable', detail)
  const { keyId, cipher } = wish
  if (wish.symmetric) return unusable('the CSR names a symmetric key, and this server has none')
  if (cipher === null) return unusable('none of the ciphers in SMIMECapabilities is AES-128-CBC or AES-256-CBC')
  if (keyId !== null && isNamed(keyId, keyIdOf(csr.spki))) {
    const key = recipientKey(csr.spki)
    return key && canReceive(key) ? { key, id: { keyId }, cipher } : unusable("nothing can be encrypted to the CSR's key")
  }
  if (keyId !== null && !(client && isNamed(keyId, client.subjectKeyId, keyIdOf(client.spki))))
    return unusable('the key that the CSR names to decrypt with is neither its own nor that of the TLS certificate')
  const key = client && recipientKey(client.spki)
  if (!client || !key || !canReceive(key))
    return keyId === null ? null : unusable('nothing can be encrypted to the key of the TLS certificate')
  return { key, id: { issuer: client.issuer, serial: client.serial }, cipher }
}

export function createServerKeys({ enrollment, signer, random, log, keyPair = generated }: ServerKeyParts): ServerKeys {
  let inFlight = 0
  /** Names and extensions of the client's CSR over the new key, signed by it: from here on an enrollment like any other. */
  function csrOver(
    csr: Csr,
    spki: Bytes,
    privateKey: KeyObject,
    { algorithm, hash }: { algorithm: string; hash: string | null },
  ): Bytes {
    const kept = csr.attributes.filter(({ oid }) => oid === EXTENSION_REQUEST || oid === CHALLENGE_PASSWORD)
    const attributes = kept.map(({ oid, values }) => encodeAttribute(oid, values))
    const info = csrInfo(csr.subject, spki, attributes)
    return csrAssemble(info, algorithm, new Uint8Array(sign(hash, info, privateKey)))
  }

  /** What the CSR asks for, judged before a key is made: its proof, and who is to get the key; null for nobody in particular. */
  function judge(
    request: EnrollmentRequest,
    profile: EnrollmentProfile,
  ): { proven: ProvenCsr; recipient: KeyRecipient | null } | Refusal {
    if (profile.serverKeys === false) return refusal('server_keys_not_allowed', 'the profile has devices make their own keys')
    const { peer } = request
    try {
      const proven = prove(request.csr, profile.keys, peer, { spki: null, key: null }, profile.possession === 'channel')
      if (isRefusal(proven)) return proven
      const { csr } = proven
      const wish = keyWishOf(csr)
      if (profile.serverKeys === 'plain' && wish.keyId === null && !wish.symmetric) return { proven, recipient: null }
      const recipient = recipientOf(csr, wish, peer.chain?.length ? parseCertificate(peer.chain[0]) : null)
      if (recipient === null)
        return refusal('key_recipient_unusable', 'the CSR names no key to encrypt to, and TLS showed none that could be')
      return isRefusal(recipient) ? recipient : { proven, recipient }
    } catch (error) {
      if (codeOf(error) === null) throw error
      return refusal('csr_malformed', (error as Error).message)
    }
  }

  async function make(request: EnrollmentRequest, csr: Csr, recipient: KeyRecipient | null): Promise<ServerKeyOutcome> {
    const kind = kindOf(csr)
    const pair = await keyPair(kind.type, kind.options)
    const spki = new Uint8Array(pair.publicKey.export({ type: 'spki', format: 'der' }))
    const outcome = await enrollment.enroll({ ...request, csr: csrOver(csr, spki, pair.privateKey, kind) })
    if (outcome.kind !== 'issued') return outcome
    const pkcs8 = pair.privateKey.export({ type: 'pkcs8', format: 'der' })
    log.info({ requestId: request.requestId, enveloped: recipient !== null }, 'a key was made for a device')
    if (recipient === null) return { ...outcome, key: pkcs8, enveloped: false }
    try {
      return { ...outcome, key: envelopeKey(pkcs8, recipient, signer, random), enveloped: true }
    } finally {
      pkcs8.fill(0)
    }
  }

  return {
    generate: request =>
      enrollment.introduce<ServerKeyOutcome>(request, async (profile, foresee) => {
        const judged = judge(request, profile)
        if (isRefusal(judged)) return judged
        const refused = await foresee(judged.proven)
        if (refused !== null) return { code: refused.code, detail: refused.detail }
        if (inFlight >= inFlightMax) throw new UnavailableError('busy', 5, 'other keys are being made')
        inFlight++
        try {
          return await make(request, judged.proven.csr, judged.recipient)
        } finally {
          inFlight--
        }
      }) as Promise<ServerKeyOutcome>,
  }
}
