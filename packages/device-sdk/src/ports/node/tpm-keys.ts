// Keys that a TPM 2.0 makes and that work in it alone, by OpenSSL's tpm2 provider (Debian: tpm2-openssl). A slot is a file, as with fileKeys, but what
// lies in it is wrapped by the TPM: a `TSS2 PRIVATE KEY`, which says nothing to anybody and opens in no other chip. Signatures and mutual TLS go through
// node:crypto and node:tls. A new key is asked for with tpm2-tools, since the provider makes none with the attribute noDA: without it every power cut
// would count as a wrong password, and after some the TPM would refuse to sign.

import { execFile } from 'node:child_process'
import { createPrivateKey, type KeyObject, sign } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createSecureContext } from 'node:tls'
import { promisify } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { decodePem, encodePem } from '../../core/base64.ts'
import { type Bytes, bytesOfHex, concatBytes } from '../../core/bytes.ts'
import { contentOf, encodeElement, encodeOid, encodeSequence, encodeUnsigned, OCTET_STRING, wholeParts } from '../../core/der.ts'
import { type DeviceError, deviceError } from '../../core/errors.ts'
import { spkiOfPoint } from '../../core/p256-spki.ts'
import { type Disk, nodeDisk, openFolder } from './disk.ts'
import { type NodeKeyStore, settle, type Told } from './keys.ts'
import { tlsContexts } from './tls-contexts.ts'

/**
 * What OpenSSL inside Node has to be told at the start: `node --openssl-config=FILE`, or OPENSSL_CONF. Signatures are the TPM's where it can make and
 * check them; digests, randomness and the keys of a handshake stay OpenSSL's. `module`: the provider's file.
 */
export function tpmConfiguration(module: string | undefined = modules.find(existsSync)): string {
  if (!module) throw deviceError('key_unavailable', "OpenSSL's tpm2 provider is missing (Debian: tpm2-openssl)")
  return `nodejs_conf = birthmark
[birthmark]
providers = providers
alg_section = algorithms
[providers]
default = openssl_default
base = openssl_base
tpm2 = chip
[openssl_default]
activate = 1
[openssl_base]
activate = 1
[chip]
module = ${module}
activate = 1
[algorithms]
default_properties = ?tpm2.signature=yes
`
}

const modules = ['x86_64-linux-gnu', 'aarch64-linux-gnu', 'arm-linux-gnueabihf'].map(
  triplet => `/usr/lib/${triplet}/ossl-modules/tpm2.so`,
)

const label = 'TSS2 PRIVATE KEY'
/** 2.23.133.10.1.3: a key that its parent loads. */
const LOADABLE_KEY = '6781050a0103'
/** TPM_RH_OWNER: the parent is the owner hierarchy's primary key, which TPM and provider make anew from the chip's seed. */
const OWNER = bytesOfHex('40000001')

const run = promisify(execFile)
/** A slow TPM takes seconds for a key, and some more after a reset. */
const toolMilliseconds = 60_000

/** The PEM of a new key, made by the TPM. */
async function makeKey(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'tpm-key-'))
  const file = (name: string) => join(folder, name)
  // One word for where the TPM is, as the provider takes it.
  const TPM2TOOLS_TCTI = process.env.TPM2TOOLS_TCTI ?? process.env.TPM2OPENSSL_TCTI
  const env = { ...process.env, ...(TPM2TOOLS_TCTI === undefined ? {} : { TPM2TOOLS_TCTI }) }
  const tool = (name: string, ...args: string[]) => run(name, ['-Q', ...args], { env, timeout: toolMilliseconds })
  const common = 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda'
  try {
    const primary = ['-C', 'o', '-G', 'ecc256', '-a', `${common}|restricted|decrypt`, '-c', file('primary')]
    await tool('tpm2_createprimary', ...primary)
    const wanted = ['-G', 'ecc256', '-a', `${common}|sign`, '-u', file('public'), '-r', file('private')]
    await tool('tpm2_create', '-C', file('primary'), ...wanted)
    return encodePem(
      label,
      encodeSequence([
        encodeOid(LOADABLE_KEY),
        // [0] emptyAuth TRUE.
        bytesOfHex('a0030101ff'),
        encodeUnsigned(OWNER),
        encodeElement(OCTET_STRING, [readFileSync(file('public'))]),
        encodeElement(OCTET_STRING, [readFileSync(file('private'))]),
      ]),
    )
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** The public key in a TSS2 PEM: TPM2B_PUBLIC (TPM 2.0 Part 2, 12.2.4) ends in x and y, each after its length of two octets. */
function spkiOf(pem: string): Bytes {
  const [der] = decodePem(pem, label, 1)
  if (!der) throw deviceError('key_unavailable', `no ${label}`)
  const area = contentOf(wholeParts(der, 4, 8).filter(part => part.tag === OCTET_STRING)[0])
  const curve = area.subarray(-72, -70)
  const [x, y] = [area.subarray(-68), area.subarray(-34)].map(part => part.subarray(0, 34))
  if ([x, y].some(part => part[0] !== 0 || part[1] !== 32) || curve[0] !== 0 || curve[1] !== 3)
    throw deviceError('key_unavailable', 'TPM: not a P-256 key')
  return spkiOfPoint(concatBytes([new Uint8Array([4]), x.subarray(2), y.subarray(2)]))
}

function failure(error: unknown): DeviceError {
  const { code, stderr, reason } = error as { code?: unknown; stderr?: string; reason?: string }
  if (typeof code === 'string' && /^(store|key)_/.test(code)) return error as DeviceError
  if (code === 'ENOENT') return deviceError('key_unavailable', 'TPM: tpm2-tools are missing')
  if (/UNSUPPORTED|unsupported/.test(`${code} ${reason}`))
    return deviceError('key_unavailable', 'OpenSSL lacks its tpm2 provider: start with --openssl-config (tpmConfiguration)')
  const words = stderr?.trim().split('\n').at(-1) ?? reason ?? (error as Error).message
  return Object.assign(deviceError('key_unavailable', `TPM: ${words.slice(0, 200)}`), { cause: error })
}

/**
 * Lets go what the TPM still holds for keys and contexts that nobody has any more: it keeps few objects for a process, and they are freed when garbage
 * is collected, which an idle process does not do by itself.
 */
function collectGarbage(): void {
  setFlagsFromString('--expose-gc')
  ;(runInNewContext('gc') as () => void)()
}

/**
 * P-256 keys of the TPM, in files `<slot>.key` of `folder`, each replaced atomically and fsynced before its public key is told. The process has to be
 * started with `tpmConfiguration()`; where the TPM is, TPM2OPENSSL_TCTI says (`tabrmd:` and the like). Synchronous inside but for `generate`.
 */
export function tpmKeys(folder: string, disk: Disk = nodeDisk): NodeKeyStore {
  const files = openFolder(folder, disk)
  const loaded = new Map<string, KeyObject>()
  const contexts = tlsContexts(createSecureContext, collectGarbage)

  const pemOf = (slot: string): string | null => {
    const pem = files.read(`${slot}.key`)
    return pem && Buffer.from(pem).toString('latin1')
  }
  const answer = <T>(f: () => T, done: Told<T>) => settle(f, failure, done)

  return {
    algorithm: 'ecdsa-sha256',
    generate(slot, done) {
      makeKey().then(
        pem =>
          answer(() => {
            // A key that this process cannot use, or of another kind, is not kept.
            const key = createPrivateKey(pem)
            const spki = spkiOf(pem)
            files.replace(`${slot}.key`, Buffer.from(pem))
            contexts.drop(slot)
            loaded.set(slot, key)
            collectGarbage()
            return spki
          }, done),
        error => done(failure(error), null),
      )
    },
    publicKey(slot, done) {
      answer<Bytes | null>(() => {
        const pem = pemOf(slot)
        return pem === null ? null : spkiOf(pem)
      }, done)
    },
    sign(slot, message, done) {
      answer(() => {
        const pem = loaded.has(slot) ? null : pemOf(slot)
        if (pem) loaded.set(slot, createPrivateKey(pem))
        const key = loaded.get(slot)
        if (!key) throw deviceError('key_unavailable', `no key in slot ${slot}`)
        return new Uint8Array(sign('sha256', message, key))
      }, done)
    },
    tlsKey(slot) {
      const pem = pemOf(slot)
      return pem === null ? null : { key: pem }
    },
    tlsContext(slot, options) {
      const key = pemOf(slot)
      if (key === null) return null
      try {
        return contexts.of(slot, key, options)
      } catch (error) {
        throw failure(error)
      }
    },
    toJSON: () => ({ kind: 'tpmKeys', folder, algorithm: 'ecdsa-sha256' }),
  }
}
