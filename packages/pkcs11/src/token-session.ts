// One login to one token, the key found there, and a few sessions to use it in: a token in the network takes long to answer and little to sign. It runs
// in a process of its own (token-process.ts), which a stalled library can be ended with. Any failure makes the session useless; the next one is a new process, since many libraries see a token
// that came back only after they were loaded anew.

import { randomBytes, scryptSync, timingSafeEqual } from 'node:crypto'
import { createRequire } from 'node:module'
import {
  type Bytes,
  contentOf,
  encodeBits,
  encodeElement,
  encodeSequence,
  encodeUnsigned,
  NULL,
  OBJECT_IDENTIFIER,
  OCTET_STRING,
  readWhole,
} from '@birthmark/device-sdk/core'
import { readSecret, SecretError } from '@birthmark/est-server/secret-source'
import type * as Pkcs11 from 'pkcs11js'
import type { PublicKeyRequest, RefusedPin, TokenErrorCode, TokenRequest } from './protocol.ts'
import { decryptionMechanism, signingMechanism } from './signing-mechanism.ts'
import { TokenError } from './token-error.ts'

export interface TokenSession {
  /** The token's label and serial number, for the log. */
  name: string
  /** Jobs at once; one more rejects. */
  sessions: number
  /** X.509 form. `algorithm`: the request's unless told. Rejects with TokenError. */
  sign(data: Bytes, algorithm?: string): Promise<Bytes>
  /** RSAES-PKCS1-v1_5, or OAEP with `oaep` for its hash; null for what does not decrypt. Rejects with TokenError when the session is lost. */
  decrypt(data: Bytes, oaep: string | null): Promise<Bytes | null>
}

/** Thrown when the token refused a PIN: what to remember so that it is not tried again. */
export class PinRefused extends TokenError {
  readonly refused: RefusedPin

  constructor(refused: RefusedPin, detail: string) {
    super({ code: 'pin_wrong', detail, next: 'put the right PIN there; this one is not tried again' })
    this.refused = refused
  }
}

// PKCS #11 2.40: session and token flags, attributes, return values.
const CKF_SERIAL_SESSION = 0x4
const CKF_OS_LOCKING_OK = 0x2
const CKU_USER = 1
const CKF_USER_PIN_FINAL_TRY = 0x20000
const CKF_USER_PIN_LOCKED = 0x40000
const CKA_CLASS = 0x0
const CKA_LABEL = 0x3
const CKA_ID = 0x102
const CKO_PUBLIC_KEY = 2
const CKO_PRIVATE_KEY = 3
const CKA_KEY_TYPE = 0x100
const CKA_MODULUS = 0x120
const CKA_PUBLIC_EXPONENT = 0x122
const CKA_EC_PARAMS = 0x180
const CKA_EC_POINT = 0x181
const CKK_RSA = 0
const CKK_EC = 3
const CKR_PIN_INCORRECT = 0xa0
const CKR_PIN_LOCKED = 0xa4
const CKR_USER_ALREADY_LOGGED_IN = 0x100

const failed = (code: TokenErrorCode, detail: string, next: string) => new TokenError({ code, detail, next })

/** Throws `binding_missing`. */
function loadBinding(): typeof Pkcs11 {
  try {
    return createRequire(import.meta.url)('pkcs11js')
  } catch {
    throw failed(
      'binding_missing',
      'pkcs11js is not compiled for this machine',
      'in a clone: npm run pkcs11; elsewhere: npm rebuild pkcs11js (needs a C++ compiler)',
    )
  }
}

/** A library's own words would be a risk: of its failures only the name of the return value is passed on. */
function callFailed(what: string, error: unknown): TokenError {
  const name = /CKR_[A-Z0-9_]+/.exec((error as Error).message)?.[0] ?? 'no PKCS #11 return value'
  return failed('call_failed', `${what}: ${name}`, 'is the token there, and is its own service running?')
}

function call<T>(what: string, run: () => T): T {
  try {
    return run()
  } catch (error) {
    throw callFailed(what, error)
  }
}

const codeOf = (error: unknown) => (error as { code?: unknown }).code
const hashOf = (pin: Buffer, salt: Buffer) => scryptSync(pin, salt, 32)

function login(module: Pkcs11.PKCS11, session: Buffer, request: TokenRequest, flags: number): void {
  if (flags & CKF_USER_PIN_LOCKED)
    throw failed('pin_locked', 'the token has locked the user PIN', 'the security officer of the token sets a new one')
  // One more wrong one would lock the token. People may take that risk; a program that starts by itself may not.
  if (flags & CKF_USER_PIN_FINAL_TRY)
    throw failed('pin_withheld', 'the token allows one last try of the PIN', "log in once with the token's own tool")
  let pin: Buffer
  try {
    pin = readSecret(request.pin)
  } catch (error) {
    if (error instanceof SecretError) throw failed('pin_unreadable', `PIN: ${error.message}`, error.next)
    throw error
  }
  try {
    const { refusedPin } = request
    if (
      refusedPin !== null &&
      timingSafeEqual(hashOf(pin, Buffer.from(refusedPin.salt, 'hex')), Buffer.from(refusedPin.hash, 'hex'))
    )
      throw failed('pin_withheld', 'the token refused this PIN before', 'put the right PIN there')
    try {
      module.C_Login(session, CKU_USER, pin.toString('utf8'))
    } catch (error) {
      const code = codeOf(error)
      if (code === CKR_USER_ALREADY_LOGGED_IN) return
      if (code === CKR_PIN_LOCKED)
        throw failed('pin_locked', 'the token has locked the user PIN', 'the security officer of the token sets a new one')
      if (code === CKR_PIN_INCORRECT || /CKR_PIN_(INVALID|LEN_RANGE)/.test((error as Error).message)) {
        const salt = randomBytes(16)
        throw new PinRefused({ salt: salt.toString('hex'), hash: hashOf(pin, salt).toString('hex') }, 'the token refused the PIN')
      }
      call('C_Login', () => {
        throw error
      })
    }
  } finally {
    pin.fill(0)
  }
}

function findSlot(module: Pkcs11.PKCS11, { token }: PublicKeyRequest): { slot: Buffer; name: string; flags: number } {
  const found = call('C_GetSlotList', () => module.C_GetSlotList(true)).flatMap(slot => {
    // Another reader's broken token is not ours to fail of.
    let info: Pkcs11.TokenInfo
    try {
      info = module.C_GetTokenInfo(slot)
    } catch {
      return []
    }
    const label = info.label.trimEnd()
    const serial = info.serialNumber.trimEnd()
    const fits = (token.label === undefined || token.label === label) && (token.serial === undefined || token.serial === serial)
    return fits ? [{ slot, name: `${label} (${serial})`, flags: info.flags }] : []
  })
  const wanted = [token.label && `label ${token.label}`, token.serial && `serial ${token.serial}`].filter(Boolean).join(', ')
  if (found.length === 0) throw failed('token_absent', `no token with ${wanted}`, 'plug it in; or correct its name: pkcs11-tool -L')
  if (found.length > 1) throw failed('token_ambiguous', `${found.length} tokens with ${wanted}`, 'name it by its serial number')
  return found[0]
}

function findKey(module: Pkcs11.PKCS11, session: Buffer, { key }: PublicKeyRequest, kind = CKO_PRIVATE_KEY): Buffer {
  const template: Pkcs11.Template = [{ type: CKA_CLASS, value: kind }]
  if (key.label !== undefined) template.push({ type: CKA_LABEL, value: key.label })
  if (key.id !== undefined) template.push({ type: CKA_ID, value: Buffer.from(key.id, 'hex') })
  const found = call('C_FindObjects', () => {
    module.C_FindObjectsInit(session, template)
    const handles = module.C_FindObjects(session, 2)
    module.C_FindObjectsFinal(session)
    return handles
  })
  const wanted = [key.label && `label ${key.label}`, key.id && `id ${key.id}`].filter(Boolean).join(', ')
  const name = kind === CKO_PRIVATE_KEY ? 'private key' : 'public key'
  if (found.length === 0) throw failed('key_absent', `no ${name} with ${wanted}`, 'see what is there: pkcs11-tool -O --login')
  if (found.length > 1) throw failed('key_ambiguous', `several ${name}s with ${wanted}`, 'name it by its id as well')
  return found[0]
}

/** Whether the library takes calls of several threads at once: asked of it only where that is wanted. */
function initialize(module: Pkcs11.PKCS11, threads: boolean): boolean {
  if (threads)
    try {
      module.C_Initialize({ flags: CKF_OS_LOCKING_OK })
      return true
    } catch {
      // CKR_CANT_LOCK, or a failure that the plain call has as well.
    }
  module.C_Initialize()
  return false
}

function loadLibrary(library: string, threads = false): { module: Pkcs11.PKCS11; isThreaded: boolean } {
  const binding = loadBinding()
  const module = new binding.PKCS11()
  try {
    module.load(library)
    return { module, isThreaded: initialize(module, threads) }
  } catch (error) {
    throw failed(
      'library_unusable',
      `${library}: ${/CKR_[A-Z0-9_]+/.exec((error as Error).message)?.[0] ?? 'it cannot be loaded'}`,
      "name the PKCS #11 library of the token's maker, such as /usr/lib/softhsm/libsofthsm2.so",
    )
  }
}

/** The public half as SubjectPublicKeyInfo, which a token tells anybody. Throws TokenError. */
export function readPublicKey(request: PublicKeyRequest): Bytes {
  const { module } = loadLibrary(request.library)
  const { slot } = findSlot(module, request)
  const session = call('C_OpenSession', () => module.C_OpenSession(slot, CKF_SERIAL_SESSION))
  const key = findKey(module, session, request, CKO_PUBLIC_KEY)
  const read = (...types: number[]): Buffer[] =>
    call('C_GetAttributeValue', () =>
      module
        .C_GetAttributeValue(
          session,
          key,
          types.map(type => ({ type })),
        )
        .map(({ value }) => value as Buffer),
    )
  const type = read(CKA_KEY_TYPE)[0].readUInt8(0)
  const algorithm = (oid: string, parameters: Bytes): Bytes =>
    encodeSequence([encodeElement(OBJECT_IDENTIFIER, [Buffer.from(oid, 'hex')]), parameters])
  if (type === CKK_RSA) {
    const [modulus, exponent] = read(CKA_MODULUS, CKA_PUBLIC_EXPONENT)
    const numbers = encodeSequence([encodeUnsigned(modulus), encodeUnsigned(exponent)])
    return encodeSequence([algorithm('2a864886f70d010101', encodeElement(NULL, [])), encodeBits(numbers)])
  }
  if (type === CKK_EC) {
    const [curve, point] = read(CKA_EC_PARAMS, CKA_EC_POINT)
    // PKCS #11 2.40, 2.3.3: the point is the DER of an OCTET STRING; some tokens leave that away.
    const octets = point[0] === OCTET_STRING ? contentOf(readWhole(point, OCTET_STRING)) : point
    return encodeSequence([algorithm('2a8648ce3d0201', curve), encodeBits(octets)])
  }
  throw failed('key_absent', 'that key is neither EC nor RSA', 'make a P-256, P-384 or RSA key in the token')
}

/** What says that the next call would fail as well. */
const lostSession = /CKR_(?:DEVICE_|SESSION_|TOKEN_|USER_NOT_LOGGED_IN|CRYPTOKI_NOT_INITIALIZED|KEY_HANDLE_INVALID|HOST_MEMORY)/
/** RSA of 8,192 bits. */
const decryptedBytesMax = 1024

/** The first session and those beyond it that the token allows: one login is good for all (PKCS #11 2.40, 2.4). */
function moreSessions(module: Pkcs11.PKCS11, slot: Buffer, first: Buffer, wanted: number): Buffer[] {
  const sessions = [first]
  try {
    while (sessions.length < wanted) sessions.push(module.C_OpenSession(slot, CKF_SERIAL_SESSION))
  } catch {
    // CKR_SESSION_COUNT, or whatever a token says to that: what is there serves.
  }
  return sessions
}

/** Throws TokenError; PinRefused for a PIN that was tried and refused. */
export function openTokenSession(request: TokenRequest): TokenSession {
  if (signingMechanism(request.algorithm, request.coordinateBytes) === null)
    throw failed('call_failed', `${request.algorithm} is not asked of tokens`, 'use a P-256, P-384 or RSA key')
  const { module, isThreaded } = loadLibrary(request.library, request.sessions > 1)
  const { slot, name, flags } = findSlot(module, request)
  // Read-only: nothing here changes what is on a token.
  const first = call('C_OpenSession', () => module.C_OpenSession(slot, CKF_SERIAL_SESSION))
  login(module, first, request, flags)
  const key = findKey(module, first, request)
  const sessions = isThreaded ? moreSessions(module, slot, first, request.sessions) : [first]
  const free = [...sessions]

  /** In a session that nobody else uses meanwhile: what C_SignInit begins belongs to it. */
  async function inSession<T>(work: (session: Buffer) => T | Promise<T>): Promise<T> {
    const session = free.pop()
    if (session === undefined) throw failed('call_failed', 'more jobs than sessions', 'report this')
    try {
      return await work(session)
    } finally {
      free.push(session)
    }
  }
  // A thread of the pool waits for the token; where the library takes one thread alone, this one does.
  const sign = (session: Buffer, input: Buffer, into: Buffer) =>
    isThreaded ? module.C_SignAsync(session, input, into) : module.C_Sign(session, input, into)
  const decrypt = (session: Buffer, input: Buffer, into: Buffer) =>
    isThreaded ? module.C_DecryptAsync(session, input, into) : module.C_Decrypt(session, input, into)

  return {
    name,
    sessions: sessions.length,
    async sign(data, algorithm = request.algorithm) {
      const how = signingMechanism(algorithm, request.coordinateBytes)
      if (how === null) throw failed('call_failed', `${algorithm} is not asked of tokens`, 'use a P-256, P-384 or RSA key')
      const raw = await inSession(session => {
        module.C_SignInit(session, how.mechanism, key)
        return sign(session, how.input(data), Buffer.alloc(how.bytesMax))
      }).catch(error => {
        throw callFailed('C_Sign', error)
      })
      try {
        return how.output(raw)
      } catch (error) {
        throw failed('call_failed', `C_Sign: ${(error as Error).message}`, 'is it the right kind of key?')
      }
    },
    async decrypt(data, oaep) {
      try {
        return await inSession(session => {
          module.C_DecryptInit(session, decryptionMechanism(oaep), key)
          return decrypt(session, Buffer.from(data), Buffer.alloc(decryptedBytesMax))
        })
      } catch (error) {
        // Bent padding is no failure of the token, which has many words for it: SoftHSM says CKR_GENERAL_ERROR. A mechanism that it does not have is
        // as little one: whoever wrote the message chose it.
        if (!lostSession.test((error as Error).message)) return null
        throw callFailed('C_Decrypt', error)
      }
    },
  }
}
