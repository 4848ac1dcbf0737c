// From a CSR that anyone may have written to one whose sender is known to hold its key: parsed, its key allowed, its own signature good and,
// where it claims a TLS session (RFC 7030 3.5), of this session. The only maker of ProvenCsr.

import type { KeyObject } from 'node:crypto'
import {
  algorithmFitsKey,
  type Bytes,
  type Csr,
  challengePassword,
  codeOf,
  defaultAlgorithms,
  type Extension,
  encodeBase64,
  equalBytes,
  parseCsr,
  requestedExtensions,
} from '@birthmark/device-sdk/core'
import { importKey, sha256, verifyOnce, verifyWith } from '../node-crypto.ts'
import { keyRefusal } from './key-policy.ts'
import { type Refusal, refusal } from './refusal.ts'

declare const proven: unique symbol

/** A CSR whose sender holds its private key. What it asks for is still only asked for. */
export interface ProvenCsr {
  readonly [proven]: true
  readonly csr: Csr
  readonly extensions: Extension[]
  readonly spkiSha256: Bytes
}

/** What a CSR may name to tie itself to a TLS session. */
export interface Channel {
  resumed: boolean
  tlsUnique?: Bytes | null
  tlsExporter?: Bytes | null
  /**
   * There is no channel: a challengePassword is what it was in the beginning (RFC 2985 5.4.1), and was read as that. `proven`: the CSR was when it
   * came, and was kept without its challenge, which its signature covers.
   */
  scep?: { proven?: boolean }
}

/** The last key that asked on a connection, imported when it asks again. */
export interface KeyMemory {
  spki: Bytes | null
  key: KeyObject | null
}

function signatureIsGood(csr: Csr, memory: KeyMemory): boolean {
  if (memory.spki === null || !equalBytes(memory.spki, csr.spki)) {
    memory.spki = csr.spki
    memory.key = null
    return verifyOnce(csr.spki, csr.signatureAlgorithm, csr.info, csr.signature)
  }
  memory.key ??= importKey(csr.spki)
  return memory.key !== null && verifyWith(memory.key, csr.signatureAlgorithm, csr.info, csr.signature)
}

/**
 * RFC 7030 3.5: a challengePassword is the base64 of the session's tls-unique (RFC 9266: or of its tls-exporter) and is to be verified.
 * Nothing else may stand there: a value that cannot be verified is a CSR replayed from elsewhere, as far as anyone can tell.
 */
function bindingRefusal(csr: Csr, channel: Channel, demanded: boolean): Refusal | null {
  const claimed = channel.scep ? null : challengePassword(csr)
  if (claimed === null)
    return demanded
      ? refusal('channel_binding_required', 'the profile wants the CSR to name the TLS connection that carries it')
      : null
  // tls-unique of a resumed session is open to the triple handshake attack (RFC 7627).
  if (channel.resumed) return refusal('channel_binding_mismatch', 'the CSR is bound to a TLS session, and this one was resumed')
  for (const value of [channel.tlsUnique, channel.tlsExporter]) if (value && encodeBase64(value, 0) === claimed) return null
  return refusal('channel_binding_mismatch', 'the challengePassword is not the channel binding of this TLS session')
}

/**
 * Proves one CSR. Costs no signature unless everything cheaper is in order. `demanded`: a CSR that names no TLS session is refused, not only one
 * that names another. `parse`: parseCsr() or, where many are proven, core's csrReader().
 */
export function prove(
  der: Bytes,
  keys: readonly string[],
  channel: Channel,
  memory: KeyMemory,
  demanded = false,
  parse: (der: Bytes) => Csr = parseCsr,
): ProvenCsr | Refusal {
  let csr: Csr
  let extensions: Extension[]
  try {
    csr = parse(der)
    const weak = keyRefusal(csr, keys)
    if (weak) return weak
    extensions = requestedExtensions(csr)
    const unbound = bindingRefusal(csr, channel, demanded)
    if (unbound) return unbound
  } catch (error) {
    if (codeOf(error) === null) throw error
    return refusal('csr_malformed', (error as Error).message)
  }
  if (!defaultAlgorithms.includes(csr.signatureAlgorithm) || !algorithmFitsKey(csr.signatureAlgorithm, csr.keyAlgorithm))
    return refusal('csr_signature', `signature algorithm ${csr.signatureAlgorithm || 'unknown'} with a ${csr.keyAlgorithm} key`)
  if (!channel.scep?.proven && !signatureIsGood(csr, memory)) {
    if (importKey(csr.spki) === null) return refusal('key_weak', 'not a point of its curve, or not a key')
    return refusal('csr_signature', 'the CSR is not signed with the key it names')
  }
  return { csr, extensions, spkiSha256: sha256(csr.spki) } as ProvenCsr
}
