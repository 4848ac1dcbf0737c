// The certificates of a manufacturer's issuing CAs come with every device's chain: they are parsed once. What is remembered is what the octets
// say, which is the same whoever brings them; whether any of it is believed is asked anew each time.

import { type Bytes, type Certificate, parseCertificate } from '@birthmark/device-sdk/core'
import { recentlyUsed } from './node-crypto.ts'

/** Issuing CAs of a fleet's manufacturers, some. A peer can fill it with seven of its own making a connection, of at most 16 KiB each. */
const rememberedMax = 128
/** The end of a signature tells certificates apart; that it is the same one, all octets say. */
const nameBytes = 24

/** parseCertificate() with the same outcome and the same errors. What it returns is shared: not to be changed. */
export function certificateMemory(): (der: Bytes) => Certificate {
  const known = recentlyUsed<Certificate>(rememberedMax)
  return der => {
    const name = Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString('latin1', Math.max(0, der.length - nameBytes))
    const before = known.get(name)
    if (before !== undefined && Buffer.compare(before.der, der) === 0) return before
    // A copy: the caller's bytes are not this memory's to keep.
    const certificate = parseCertificate(Uint8Array.from(der))
    known.set(name, certificate)
    return certificate
  }
}
