// The issuer: a CA certificate, what is above it, and a key that signs. The key stays inside: what leaves this file signs and verifies.
// A key in an HSM is another maker of the same shape (package pkcs11); `sign` then answers later.

import { createPrivateKey, createPublicKey, createSign, createVerify, type KeyObject, type SigningOptions, sign } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { type Bytes, equalBytes } from '@birthmark/device-sdk/core'
import { EstServerError } from '../errors.ts'
import { signingParameters } from '../node-crypto.ts'
import { createWorkQueue } from '../work-queue.ts'
import { type IssuerCertificate, type IssuerCertificateOptions, readIssuerCertificate } from './issuer-certificate.ts'
import { type KeyThread, type KeyThreadPorts, keyThread } from './key-thread.ts'

export interface Issuer extends IssuerCertificate {
  /** DER certificates above the issuer's, in order, the root last where it is given. */
  readonly chain: Bytes[]
  /** Subject key identifier: what its certificates name as authority key identifier, and the store and the rule set know it by. */
  readonly keyId: Bytes
  readonly algorithm: string
  /** Signature in X.509 form over the TBSCertificate. `patient`: whoever waits for it lets all others go first. */
  sign(tbs: Bytes, patient?: boolean): Bytes | Promise<Bytes>
  verify(tbs: Bytes, signature: Bytes): boolean
  /** The same for what is too large to be held whole; absent where the key or its algorithm wants all of it at once. */
  signParts?(): PartSigner
  /** Why the key cannot sign now, in a sentence; null when it can. Absent: it always can. Costs nothing. `patient`: as with `sign`. */
  unready?(patient?: boolean): string | null
  /** Lets go of the key. */
  close?(): Promise<void>
}

/** Takes a message in parts; then gives and checks the signature over all of it. */
export interface PartSigner {
  update(part: Bytes): void
  sign(): Bytes | Promise<Bytes>
  /** To be asked after `sign`, once. */
  verify(signature: Bytes): boolean
}

export interface SoftwareIssuerOptions extends IssuerCertificateOptions, KeyThreadPorts {
  /** PKCS#8, encrypted or not, or SEC1. */
  privateKeyPem: string
  /** Opens an encrypted key. The caller wipes it. */
  passphrase?: Buffer
}

/** An issuer whose key node:crypto holds. Throws `issuer_unusable` when certificate and key cannot issue, or are not of one pair. */
export function softwareIssuer(options: SoftwareIssuerOptions): Issuer {
  const unusable = (detail: string) => new EstServerError('issuer_unusable', detail)
  const read = readIssuerCertificate(options)
  let privateKey: KeyObject
  try {
    const { privateKeyPem: key, passphrase } = options
    privateKey = createPrivateKey(passphrase ? { key, passphrase } : key)
  } catch {
    // The cause is left out: it may quote the key.
    if (/^-----BEGIN ENCRYPTED PRIVATE KEY-----/m.test(options.privateKeyPem))
      throw unusable(
        options.passphrase ? 'issuer key: the passphrase does not open it' : 'issuer key: encrypted, and no passphrase given',
      )
    throw unusable('issuer key: not a private key in PEM')
  }
  const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' })
  if (!equalBytes(spki, read.certificate.spki)) throw unusable('issuer key: not the key of the issuer certificate')
  const { digest, options: padding } = signingParameters(read.algorithm)!
  const key = padding ? { key: privateKey, ...padding } : privateKey
  const publicKey = createPublicKey(privateKey)
  const signParts =
    digest === null ? {} : { signParts: () => partSigner(digest, key, padding ? { key: publicKey, ...padding } : publicKey) }
  // For EC the way to another thread costs as much as the signature.
  if (read.certificate.keyAlgorithm !== 'RSA') return { ...read, sign: tbs => sign(digest, tbs, key), ...signParts }
  // With RSA half a millisecond and more, in which nobody else would be answered: in a thread of the pool, one after another. The patient ones, of
  // which SCEP brings as many at once as it likes, stand in a line of their own.
  let thread: KeyThread | null = null
  const open = () => {
    const privateKeyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
    return keyThread({
      name: 'issuer',
      privateKeyPem,
      nice: patientNice,
      clock: options.clock,
      log: options.log,
      loopTurns: options.loopTurns,
    })
  }
  return {
    ...read,
    ...signParts,
    sign(tbs, patient) {
      if (!patient) return signAside(digest, tbs, key)
      thread ??= open()
      return thread.sign(read.algorithm, tbs)
    },
    // The others do not need that thread.
    unready: patient => (patient && thread?.unready()) || null,
    async close() {
      await thread?.close()
    },
  }
}

/** As nice as the RA's. */
const patientNice = 10

/** One core is left to the thread that answers everybody. */
const aside = createWorkQueue({ atOnceMax: Math.max(1, availableParallelism() - 1), waitingMax: 4096 })

async function signAside(digest: string | null, tbs: Bytes, key: KeyLike): Promise<Bytes> {
  const signed = await aside.take(
    () => new Promise<Bytes>((resolve, reject) => sign(digest, tbs, key, (error, made) => (error ? reject(error) : resolve(made)))),
  )
  if (signed === null) throw new EstServerError('store_busy', 'too many signatures are waiting')
  return signed
}

function partSigner(digest: string, key: KeyLike, publicKey: KeyLike): PartSigner {
  const [signing, verifying] = [createSign(digest), createVerify(digest)]
  return {
    update(part) {
      signing.update(part)
      verifying.update(part)
    },
    sign: () => signing.sign(key),
    verify: signature => verifying.verify(publicKey, signature),
  }
}

type KeyLike = KeyObject | ({ key: KeyObject } & SigningOptions)
