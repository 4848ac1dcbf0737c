/**
 * The device identity for Node and Bun.
 *
 * ```ts
 * import { createIdentity, fileKeys, fileStore } from '@birthmark/device-sdk/node'
 * import { readFileSync } from 'node:fs'
 *
 * const identity = createIdentity({
 *   keys: fileKeys('/var/lib/device/keys'),            // slot 'birth' came from the factory; op-0 and op-1 are made here
 *   store: fileStore('/var/lib/device/identity'),      // record 'birth.chain' came from the factory
 *   server: { url: 'https://est.example.com:8443' },
 *   trust: { server: readFileSync('/etc/device/server-ca.pem', 'utf8') },
 * })
 * identity.on('active', () => reconnect(identity.tlsOptions()))
 * identity.on('revoked', () => disconnect())
 * await identity.enroll()                              // rejects with a BirthmarkError: code, retryable, hint
 * identity.start()                                     // renews from here on
 * ```
 *
 * Two slots hold the identity in use and the one to come; a power cut at any moment leaves one that works, and the same request is sent
 * again. Keys are handles: nothing in events, errors, logs or JSON holds one, and only `tlsOptions()` gives the operational key, to TLS.
 *
 * @module
 */
export type { AgentState } from '../../agent/agent-interface.ts'
export type * from '../../agent/ports.ts'
export type { TimeStatus, TimeTrust } from '../../agent/time-trust.ts'
export type { DeviceError } from '../../core/errors.ts'
export type { Anchors } from './anchors.ts'
export { systemClock } from './clock.ts'
export { nodeHash, nodeRng, nodeVerify } from './crypto.ts'
export { type Disk, nodeDisk } from './disk.ts'
export { BirthmarkError, birthmarkError, type DeviceErrorCode } from './errors.ts'
export { type HttpOptions, nodeHttp } from './http.ts'
export {
  birthChain,
  type CallOptions,
  createIdentity,
  type Identity,
  type IdentityEvents,
  type IdentityOptions,
  type IdentityStatus,
  type Log,
  pemChain,
  type TlsOptions,
} from './identity.ts'
export { fileKeys, type KeyType, memoryKeys, type NodeKeyStore } from './keys.ts'
export { fileStore, memoryStore } from './store.ts'
export { type Pkcs11Binding, type TokenKeysOptions, tokenConfiguration, tokenKeys } from './token-keys.ts'
export { tpmConfiguration, tpmKeys } from './tpm-keys.ts'
