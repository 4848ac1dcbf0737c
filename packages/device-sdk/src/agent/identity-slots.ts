// The two identity slots, `op-0` and `op-1`: what is recorded about the identity in each, so that a power cut at any moment leaves the old
// identity or the new one. A record that does not check is as good as none. Private keys are the KeyStore's; here are only names.

import { type Bytes, concatBytes, equalBytes, utf8Bytes, utf8Text } from '../core/bytes.ts'
import { type Certificate, parseCertificate } from '../core/certificate.ts'
import { contentOf, type Element, encodeElement, encodeSequence, encodingOf, OCTET_STRING, wholeParts } from '../core/der.ts'
import type { Hash, Store } from './ports.ts'

/** Its CSR was made; `chain` is empty until the server answered, and the identity unproven until it opened a TLS session. */
export const PENDING = 0
export const ACTIVE = 1
/** Was active; a signed notice or the server took it back. */
export const REVOKED = 2

export interface Identity {
  /** Grows by one with every key made. The slot, for records and keys, is its parity. */
  generation: number
  state: number
  /** When it became active, seconds since 1970; 0 while the time was not trusted. */
  since: number
  /** DER PKCS#10 as first sent: a reboot sends the same again [RFC 7030 4.2.3 expects an identical request]. */
  csr: Bytes
  /** Leaf first, without the root. */
  chain: Certificate[]
}

export const slotOf = (identity: Identity): string => 'op-' + (identity.generation & 1)

/** Leaf, and the intermediates that an agent would walk at most, with room for a cross-certificate. */
const chainMost = 8

/** The elements of concatenated DER. */
const elementsOf = (bytes: Bytes): Element[] => wholeParts(encodeSequence([bytes]), 0, chainMost + 2)

const certificateOf = (element: Element): Certificate => parseCertificate(encodingOf(element))

/** Certificates of concatenated DER, as `birth.chain` holds them. Throws `der_*` or `certificate_*`. */
export const decodeChain = (bytes: Bytes): Certificate[] => elementsOf(bytes).map(certificateOf)

export const encodedOf = (certificate: Certificate): Bytes => certificate.der

function readSlot(store: Store, hash: Hash, slot: string): Identity | null {
  const bytes = store.get(slot)
  if (!bytes || bytes.length < 32) return null
  const record = bytes.subarray(0, -32)
  if (!equalBytes(hash.sha256(record), bytes.subarray(-32))) return null
  const parts = elementsOf(record)
  const head = (utf8Text(contentOf(parts[0])) as string).split(' ')
  // '1' is the version of this record. A later firmware's reads as none, and the device enrolls again.
  if (head[0] !== '1') return null
  return {
    generation: +head[1],
    state: +head[2],
    since: +head[3],
    csr: encodingOf(parts[1]),
    chain: parts.slice(2).map(certificateOf),
  }
}

/**
 * The recorded identities: the newest that was ever active, and a newer one still pending. Either may be null. A record whose checksum
 * is wrong does not count, so that the older one holds. Throws `store_read`.
 */
export function readSlots(store: Store, hash: Hash): { active: Identity | null; pending: Identity | null } {
  const even = readSlot(store, hash, 'op-0')
  const odd = readSlot(store, hash, 'op-1')
  const swapped = !even || (odd && odd.generation > even.generation)
  const newer = swapped ? odd : even
  const older = swapped ? even : odd
  return newer && newer.state === PENDING ? { active: older, pending: newer } : { active: newer, pending: null }
}

/** Records `identity` with a new state. Its fields change only once the record has reached the medium. Throws `store_write`. */
export function writeSlot(store: Store, hash: Hash, identity: Identity, state: number, since: number, chain: Certificate[]): void {
  // Concatenated DER: version, generation, state and time as text; the CSR; the chain. A SHA-256 closes it.
  const head = encodeElement(OCTET_STRING, [utf8Bytes(['1', identity.generation, state, since].join(' '))])
  const record = concatBytes([head, identity.csr].concat(chain.map(encodedOf)))
  store.put(slotOf(identity), concatBytes([record, hash.sha256(record)]))
  identity.state = state
  identity.since = since
  identity.chain = chain
}
