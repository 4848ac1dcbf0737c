// Keys that are made in a PKCS #11 token (a secure element, a TPM by libtpm2_pkcs11, SoftHSM) and never leave it. The binding is handed in: this
// package has no dependency. Signing goes through it; TLS goes through OpenSSL's pkcs11 engine (Debian: libengine-pkcs11-openssl), which is what
// node:tls has for keys that it cannot read.

import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import type { Bytes } from '../../core/bytes.ts'
import { ecdsaDerOfRaw } from '../../core/cose.ts'
import { contentOf, OCTET_STRING, readWhole } from '../../core/der.ts'
import { type DeviceError, deviceError } from '../../core/errors.ts'
import { spkiOfPoint } from '../../core/p256-spki.ts'
import type { NodeKeyStore } from './keys.ts'

type Template = { type: number; value?: number | boolean | string | Buffer }[]

/** What is used of a `PKCS11` object of the pkcs11js package. */
export interface Pkcs11Binding {
  load(path: string): void
  C_Initialize(): void
  C_GetSlotList(tokenPresent: boolean): Buffer[]
  C_GetTokenInfo(slot: Buffer): { label: string }
  C_OpenSession(slot: Buffer, flags: number): Buffer
  C_Login(session: Buffer, user: number, pin: string): void
  C_FindObjectsInit(session: Buffer, template: Template): void
  C_FindObjects(session: Buffer, most: number): Buffer[]
  C_FindObjectsFinal(session: Buffer): void
  C_GetAttributeValue(session: Buffer, object: Buffer, template: Template): { type: number; value: unknown }[]
  C_GenerateKeyPair(
    session: Buffer,
    mechanism: { mechanism: number },
    publicKey: Template,
    privateKey: Template,
  ): { publicKey: Buffer; privateKey: Buffer }
  C_DestroyObject(session: Buffer, object: Buffer): void
  C_SignInit(session: Buffer, mechanism: { mechanism: number }, key: Buffer): void
  C_Sign(session: Buffer, data: Buffer, into: Buffer): Buffer
}

export interface TokenKeysOptions {
  /** `new PKCS11()` of pkcs11js; it loads the library and logs in at the first use. */
  pkcs11: Pkcs11Binding
  /** The token's library, such as /usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so. One a process, the one of `tokenConfiguration`. */
  library: string
  /** Label of the token. */
  token: string
  pin: string
  /** Before the slot's name in the label of a key, for several identities in one token. */
  prefix?: string
}

// PKCS #11 2.40.
const CKF_RW_SERIAL = 0x6
const CKU_USER = 1
const CKA = { class: 0, token: 1, private: 2, label: 3, keyType: 0x100, id: 0x102, sensitive: 0x103, sign: 0x108, verify: 0x10a }
const CKA_EXTRACTABLE = 0x162
const CKA_EC_PARAMS = 0x180
const CKA_EC_POINT = 0x181
const CKO_PUBLIC_KEY = 2
const CKO_PRIVATE_KEY = 3
const CKK_EC = 3
const CKM_EC_KEY_PAIR_GEN = 0x1040
const CKM_ECDSA = 0x1041
const ALREADY = /CKR_(CRYPTOKI_ALREADY_INITIALIZED|USER_ALREADY_LOGGED_IN)/

/** Object identifier of P-256 (prime256v1), DER. */
const p256 = Buffer.from('06082a8648ce3d030107', 'hex')

/**
 * What OpenSSL inside Node has to be told at the start: `node --openssl-config=FILE`, or OPENSSL_CONF. Named so, the engine is there for every connection;
 * Node itself can load one by its path, but only once. `engine`: the engine's file.
 */
export function tokenConfiguration(library: string, engine: string | undefined = engines.find(existsSync)): string {
  if (!engine) throw deviceError('key_unavailable', "OpenSSL's pkcs11 engine is missing (Debian: libengine-pkcs11-openssl)")
  return `nodejs_conf = birthmark
[birthmark]
engines = engines
[engines]
pkcs11 = pkcs11
[pkcs11]
engine_id = pkcs11
dynamic_path = ${engine}
MODULE_PATH = ${library}
init = 0
`
}

const engines = ['x86_64-linux-gnu', 'aarch64-linux-gnu', 'arm-linux-gnueabihf'].map(
  triplet => `/usr/lib/${triplet}/engines-3/pkcs11.so`,
)

/** A library's own words are not passed on: of its failures only the name of the return value is. */
function failure(error: unknown): DeviceError {
  if (error instanceof Error && 'code' in error && error.code === 'key_unavailable') return error as DeviceError
  const name = /CKR_[A-Z0-9_]+/.exec((error as Error).message)?.[0] ?? 'the library does not answer'
  return deviceError('key_unavailable', `PKCS #11: ${name}`)
}

/** RFC 7512 2.3: everything but letters and digits in percent form, so that no label or PIN says more than itself. */
const uriText = (text: string): string =>
  Buffer.from(text).reduce(
    (out, octet) =>
      out + (/\w/.test(String.fromCharCode(octet)) ? String.fromCharCode(octet) : `%${octet.toString(16).padStart(2, '0')}`),
    '',
  )

/** P-256 keys in a token, by labels `<prefix><slot>`. Synchronous inside, as PKCS #11 is: a TPM takes some 100 ms a signature. */
export function tokenKeys(options: TokenKeysOptions): NodeKeyStore {
  const { pkcs11: p, library, token, pin, prefix = '' } = options
  let session: Buffer | null = null

  const lenient = (run: () => void): void => {
    try {
      run()
    } catch (error) {
      if (!ALREADY.test((error as Error).message)) throw error
    }
  }

  function opened(): Buffer {
    if (session) return session
    p.load(library)
    lenient(() => p.C_Initialize())
    const slots = p.C_GetSlotList(true).filter(slot => p.C_GetTokenInfo(slot).label.trimEnd() === token)
    if (slots.length !== 1) throw deviceError('key_unavailable', `PKCS #11: ${slots.length} tokens with label ${token}`)
    const fresh = p.C_OpenSession(slots[0], CKF_RW_SERIAL)
    lenient(() => p.C_Login(fresh, CKU_USER, pin))
    session = fresh
    return fresh
  }

  function find(kind: number, slot: string): Buffer[] {
    const at = opened()
    p.C_FindObjectsInit(at, [
      { type: CKA.class, value: kind },
      { type: CKA.label, value: prefix + slot },
    ])
    try {
      return p.C_FindObjects(at, 8)
    } finally {
      p.C_FindObjectsFinal(at)
    }
  }

  function spkiOf(object: Buffer): Bytes {
    const [params, point] = p.C_GetAttributeValue(opened(), object, [{ type: CKA_EC_PARAMS }, { type: CKA_EC_POINT }])
    if (!p256.equals(params.value as Buffer)) throw deviceError('key_unavailable', 'PKCS #11: not a P-256 key')
    // 2.3.3 of the mechanisms: the point in an OCTET STRING.
    const octets = contentOf(readWhole(new Uint8Array(point.value as Buffer), OCTET_STRING))
    if (octets.length !== 65 || octets[0] !== 4) throw deviceError('key_unavailable', 'PKCS #11: not an uncompressed point')
    return spkiOfPoint(octets)
  }

  const answer = <T>(f: () => T, done: (error: DeviceError | null, value: T | null) => void) => {
    let value: T
    try {
      value = f()
    } catch (error) {
      // The next use opens it anew: tokens are pulled, and resource managers restart.
      session = null
      return done(failure(error), null)
    }
    done(null, value)
  }

  return {
    algorithm: 'ecdsa-sha256',
    generate(slot, done) {
      answer(() => {
        for (const kind of [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY])
          for (const object of find(kind, slot)) p.C_DestroyObject(opened(), object)
        const named: Template = [
          { type: CKA.token, value: true },
          { type: CKA.label, value: prefix + slot },
          {
            type: CKA.id,
            value: createHash('sha256')
              .update(prefix + slot)
              .digest()
              .subarray(0, 8),
          },
          { type: CKA.keyType, value: CKK_EC },
        ]
        const { publicKey } = p.C_GenerateKeyPair(
          opened(),
          { mechanism: CKM_EC_KEY_PAIR_GEN },
          [
            ...named,
            { type: CKA.class, value: CKO_PUBLIC_KEY },
            { type: CKA_EC_PARAMS, value: p256 },
            { type: CKA.verify, value: true },
          ],
          [
            ...named,
            ...[
              { type: CKA.class, value: CKO_PRIVATE_KEY },
              { type: CKA.private, value: true },
              { type: CKA.sign, value: true },
            ],
            ...[
              { type: CKA.sensitive, value: true },
              { type: CKA_EXTRACTABLE, value: false },
            ],
          ],
        )
        return spkiOf(publicKey)
      }, done)
    },
    publicKey(slot, done) {
      answer<Bytes | null>(() => {
        const [object] = find(CKO_PUBLIC_KEY, slot)
        return object && find(CKO_PRIVATE_KEY, slot).length > 0 ? spkiOf(object) : null
      }, done)
    },
    sign(slot, message, done) {
      answer(() => {
        const [key] = find(CKO_PRIVATE_KEY, slot)
        if (!key) throw deviceError('key_unavailable', `no key in slot ${slot}`)
        p.C_SignInit(opened(), { mechanism: CKM_ECDSA }, key)
        const raw = p.C_Sign(opened(), createHash('sha256').update(message).digest(), Buffer.alloc(64))
        return ecdsaDerOfRaw(new Uint8Array(raw))
      }, done)
    },
    tlsKey(slot) {
      try {
        if (find(CKO_PRIVATE_KEY, slot).length === 0) return null
      } catch (error) {
        session = null
        throw failure(error)
      }
      const uri = `pkcs11:token=${uriText(token)};object=${uriText(prefix + slot)};type=private;pin-value=${uriText(pin)}`
      return { privateKeyEngine: 'pkcs11', privateKeyIdentifier: uri }
    },
    toJSON: () => ({ kind: 'tokenKeys', token, algorithm: 'ecdsa-sha256' }),
  }
}
