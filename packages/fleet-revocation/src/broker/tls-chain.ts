// What a peer sent in its TLS handshake.

import type { TLSSocket } from 'node:tls'
import type { Bytes } from '@birthmark/device-sdk/core'

// One more than any chain that is admitted.
const chainMax = 10

/**
 * DER, leaf first, as received and not validated; bounded, since a chain may be cyclic in node's linked form. The leaf alone where OpenSSL
 * was given anchors and accepted it, and in a resumed session.
 */
export function chainOf(socket: TLSSocket): Bytes[] {
  const chain: Bytes[] = []
  for (let at = socket.getPeerX509Certificate(); at && chain.length < chainMax; at = at.issuerCertificate)
    chain.push(new Uint8Array(at.raw))
  return chain
}
