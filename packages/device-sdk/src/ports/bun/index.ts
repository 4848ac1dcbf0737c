/**
 * The device identity for Bun: that of `./node`, whose parts Bun runs as they are (docs/decisions/bun.md), but that keys in a PKCS#11 token sign
 * and open no TLS of Bun's, which knows no OpenSSL engine.
 *
 * ```ts
 * import { createIdentity, fileKeys, fileStore } from '@birthmark/device-sdk/bun'
 * ```
 *
 * @module
 */
export type { AgentState } from '../../agent/agent-interface.ts'
export type * from '../../agent/ports.ts'
export type { TimeStatus, TimeTrust } from '../../agent/time-trust.ts'
export type { DeviceError } from '../../core/errors.ts'
export type { Anchors } from '../node/anchors.ts'
export { systemClock } from '../node/clock.ts'
export { nodeHash as bunHash, nodeRng as bunRng, nodeVerify as bunVerify } from '../node/crypto.ts'
export { type Disk, nodeDisk as bunDisk } from '../node/disk.ts'
export { BirthmarkError, birthmarkError, type DeviceErrorCode } from '../node/errors.ts'
export { type HttpOptions, nodeHttp as bunHttp } from '../node/http.ts'
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
} from '../node/identity.ts'
export { fileKeys, type KeyType, memoryKeys, type NodeKeyStore as BunKeyStore } from '../node/keys.ts'
export { fileStore, memoryStore } from '../node/store.ts'
export type { Pkcs11Binding, TokenKeysOptions } from '../node/token-keys.ts'
export { tokenKeys } from './token-keys.ts'
