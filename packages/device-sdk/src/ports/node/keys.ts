// Private keys as handles. A slot is a name; what leaves this file is a public key, a signature, or, for node:tls alone, the key itself by
// a method that says so. Nothing here prints: a key store has no enumerable secret, and its JSON is its description.

import { createPrivateKey, createPublicKey, generateKeyPair, type KeyObject, sign } from 'node:crypto'
import type { SecureContext, SecureContextOptions } from 'node:tls'
import type { KeyStore } from '../../agent/ports.ts'
import type { Bytes } from '../../core/bytes.ts'
import { type DeviceError, deviceError } from '../../core/errors.ts'
import { type Disk, nodeDisk, openFolder } from './disk.ts'
import { encryptedPem } from './encrypted-key.ts'

/** A KeyStore whose keys node:tls can use. */
export interface NodeKeyStore extends KeyStore {
  /**
   * What `tls.connect` needs of the private key in `slot`: `{ key: PEM }`, or an engine's reference for a key that cannot leave a
   * token. It is the secret itself: hand it to TLS and nowhere else. Null when the slot is empty. Throws `store_read`, `key_unavailable`.
   */
  tlsKey(slot: string): { key: string } | { privateKeyEngine: string; privateKeyIdentifier: string } | null
  /**
   * In place of `tlsKey` for keys whose every loading takes room in a chip: a context with the slot's key and `options`, which say who and whom to trust; the
   * same one for the same. Null when the slot is empty. Throws as `tlsKey`.
   */
  tlsContext?(slot: string, options: SecureContextOptions): SecureContext | null
  toJSON(): object
}

export type KeyType = 'P-256' | 'P-384' | 'Ed25519' | 'RSA-3072' | 'ML-DSA-44' | 'ML-DSA-65'

/** Type and options for `generateKeyPair`, hash for `sign` (null: the algorithm has its own), and the X.509 name of what comes out. */
const kinds: Record<KeyType, { type: string; options: object; hash: string | null; algorithm: string }> = {
  'P-256': { type: 'ec', options: { namedCurve: 'P-256' }, hash: 'sha256', algorithm: 'ecdsa-sha256' },
  'P-384': { type: 'ec', options: { namedCurve: 'P-384' }, hash: 'sha384', algorithm: 'ecdsa-sha384' },
  Ed25519: { type: 'ed25519', options: {}, hash: null, algorithm: 'ed25519' },
  'RSA-3072': { type: 'rsa', options: { modulusLength: 3072 }, hash: 'sha256', algorithm: 'rsa-pkcs1-sha256' },
  'ML-DSA-44': { type: 'ml-dsa-44', options: {}, hash: null, algorithm: 'ml-dsa-44' },
  'ML-DSA-65': { type: 'ml-dsa-65', options: {}, hash: null, algorithm: 'ml-dsa-65' },
}

// One signature for all kinds; @types/node has an overload a kind.
type Generate = (type: string, options: object, done: (error: Error | null, publicKey: KeyObject, key: KeyObject) => void) => void

interface PemFiles {
  read(name: string): Bytes | null
  replace(name: string, bytes: Bytes): void
}

function failure(error: unknown): DeviceError {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && /^(store|key)_/.test(error.code)
    ? (error as DeviceError)
    : Object.assign(deviceError('key_unavailable', (error as Error).message), { cause: error })
}

export type Told<T> = (error: DeviceError | null, value: T | null) => void

/** Calls back outside of `f`, so that what the callback throws is not taken for a failure of the key store. */
export function settle<T>(f: () => T, failure: (error: unknown) => DeviceError, done: Told<T>): void {
  let value: T
  try {
    value = f()
  } catch (error) {
    done(failure(error), null)
    return
  }
  done(null, value)
}

function keyStore(files: PemFiles, type: KeyType, description: object, passphrase?: string): NodeKeyStore {
  const kind = kinds[type]
  const loaded = new Map<string, KeyObject>()
  const load = (slot: string): KeyObject | null => {
    const known = loaded.get(slot)
    if (known) return known
    const pem = files.read(`${slot}.key`)
    if (!pem) return null
    try {
      const key = createPrivateKey({ key: Buffer.from(pem), ...(passphrase === undefined ? {} : { passphrase }) })
      loaded.set(slot, key)
      return key
    } catch {
      // Not the parser's words: they may quote what it read.
      throw deviceError(
        'key_unavailable',
        `${slot}.key is no PKCS#8 PEM${Buffer.from(pem).includes('ENCRYPTED') ? ', or the passphrase is not its' : ''}`,
      )
    }
  }
  const spkiOf = (key: KeyObject): Bytes => new Uint8Array(createPublicKey(key).export({ type: 'spki', format: 'der' }))
  const answer = <T>(f: () => T, done: Told<T>) => settle(f, failure, done)
  return {
    algorithm: kind.algorithm,
    generate(slot, done) {
      ;(generateKeyPair as Generate)(kind.type, kind.options, (error, _, key) =>
        answer(() => {
          if (error) throw error
          const pem = passphrase === undefined ? key.export({ type: 'pkcs8', format: 'pem' }) : encryptedPem(key, passphrase)
          files.replace(`${slot}.key`, Buffer.from(pem))
          loaded.set(slot, key)
          return spkiOf(key)
        }, done),
      )
    },
    publicKey(slot, done) {
      answer<Bytes | null>(() => {
        const key = load(slot)
        return key && spkiOf(key)
      }, done)
    },
    sign(slot, message, done) {
      answer(() => {
        const key = load(slot)
        if (!key) throw deviceError('key_unavailable', `no key in slot ${slot}`)
        return new Uint8Array(sign(hashFor(key), message, key))
      }, done)
    },
    tlsKey(slot) {
      const key = load(slot)
      return key && { key: key.export({ type: 'pkcs8', format: 'pem' }).toString() }
    },
    toJSON: () => ({ ...description, algorithm: kind.algorithm }),
  }
}

/** A slot may hold a key of another kind than `generate` makes: a factory's RSA birth key beside P-256 operational ones. */
function hashFor(key: KeyObject): string | null {
  if (key.asymmetricKeyType === 'rsa') return 'sha256'
  if (key.asymmetricKeyType !== 'ec') return null
  return key.asymmetricKeyDetails?.namedCurve === 'secp384r1' ? 'sha384' : 'sha256'
}

/**
 * Keys as PKCS#8 PEM files `<slot>.key` of `folder`, mode 0600, each replaced atomically and fsynced before its public key is told. For a
 * token see `tokenKeys`, for a TPM `tpmKeys`; for a secure element of another kind write a NodeKeyStore of your own: four methods. `type` is what `generate` makes;
 * `disk` is for tests. `passphrase`: keys made here are encrypted with it (encrypted-key.ts); a key that lies there in the clear is still read, such as a
 * birth key from the factory.
 */
export function fileKeys(
  folder: string,
  type: KeyType = 'P-256',
  disk: Disk = nodeDisk,
  { passphrase }: { passphrase?: string | undefined } = {},
): NodeKeyStore {
  if (passphrase === '') throw new TypeError('fileKeys: an empty passphrase protects nothing')
  return keyStore(openFolder(folder, disk), type, { kind: 'fileKeys', folder }, passphrase)
}

/** Keys that last as long as the process. */
export function memoryKeys(type: KeyType = 'P-256'): NodeKeyStore {
  const pems = new Map<string, Bytes>()
  const files = {
    read: (name: string) => pems.get(name) ?? null,
    replace: (name: string, bytes: Bytes) => void pems.set(name, bytes),
  }
  return keyStore(files, type, { kind: 'memoryKeys' })
}
