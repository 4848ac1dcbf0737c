// The revocation lists of a store, proven again: each kept one is signed by its issuer, and says the number and the dates that its record says.
// Whether it names everybody that it should is not asked here: it may be older than the last revocation, and is then made anew when asked for.

import type { KeyObject } from 'node:crypto'
import {
  type Bytes,
  childrenOf,
  contentOf,
  defaultAlgorithms,
  type Element,
  encodingOf,
  equalBytes,
  octetBits,
  oidValue,
  partsOf,
  readElement,
  readWhole,
  SEQUENCE,
  signatureAlgorithmIdentifier,
  smallInteger,
  timeValue,
} from '@birthmark/device-sdk/core'
import { importKey, verifyWith } from './node-crypto.ts'
import { shardOf } from './status-urls.ts'
import type { CrlRecord } from './store/crl.ts'
import type { Store } from './store/store.ts'

const CRL_NUMBER = '551d14' // 2.5.29.20
/** Ten kinds are defined; ours have three. */
const extensionsMax = 16

/** The kept lists of shards of an issuer. A full list's bytes are in a file, and made anew by every process. */
export async function* keptLists(
  store: Pick<Store, 'crl' | 'lastIdx'>,
  issuer: Bytes,
  fleets: string[],
): AsyncGenerator<CrlRecord> {
  for (const fleet of fleets) {
    const last = await store.lastIdx(fleet)
    for (let shard = 0; shard <= shardOf(last); shard++) {
      const kept = await store.crl(issuer, `${fleet}/${shard}`)
      if (kept !== null) yield kept
    }
  }
}

/** What is wrong with a list under its issuer's key; null for nothing. */
export function listProblem(kept: CrlRecord, key: KeyObject): string | null {
  try {
    const fields = signedFields(kept.der, key)
    if (fields === null) return 'does not verify under its issuer'
    const differs = [
      [numberOf(fields[fields.length - 1]) === kept.number, 'number'],
      [timeValue(fields[3]) === kept.thisUpdate, 'thisUpdate'],
      [timeValue(fields[4]) === kept.nextUpdate, 'nextUpdate'],
    ].flatMap(([same, what]) => (same ? [] : [what]))
    return differs.length === 0 ? null : `${differs.join(', ')} differ from its record`
  } catch {
    return 'is no list'
  }
}

/** The number of a list (RFC 5280 5.2.3), from wherever it comes; null when it is none that the key with this SubjectPublicKeyInfo signed. */
export function listNumber(der: Bytes, spki: Bytes): number | null {
  try {
    const key = importKey(spki)
    const fields = key && signedFields(der, key)
    const number = fields === null ? -1 : numberOf(fields[fields.length - 1])
    return number < 0 ? null : number
  } catch {
    return null
  }
}

/** Of tbsCertList; null when `key` did not sign it. Throws for what is no list. */
function signedFields(der: Bytes, key: KeyObject): Element[] | null {
  const [tbs, algorithm, signature] = partsOf(readWhole(der, SEQUENCE), SEQUENCE, 3, 3)
  const name = defaultAlgorithms.find(known => equalBytes(signatureAlgorithmIdentifier(known), encodingOf(algorithm)))
  const signed = name !== undefined && verifyWith(key, name, encodingOf(tbs), octetBits(signature))
  return signed ? fieldsOf(tbs) : null
}

/** Of the list itself, without looking into its entries. */
function fieldsOf(tbs: Element): Element[] {
  const fields: Element[] = []
  for (let at = tbs.content; at < tbs.end; at = fields[fields.length - 1].end) fields.push(readElement(tbs.bytes, at, tbs.end))
  return fields
}

function numberOf(extensions: Element): number {
  for (const extension of partsOf(childrenOf(extensions, 1)[0], SEQUENCE, 1, extensionsMax)) {
    const parts = childrenOf(extension, 3)
    if (oidValue(parts[0]) !== CRL_NUMBER) continue
    const value = contentOf(parts[parts.length - 1])
    return smallInteger(readElement(value, 0, value.length))
  }
  return -1
}
