// Ties a CSR to the TLS connection that carries it (RFC 7030 3.5), for servers whose profile asks for it: the connection's binding goes into the
// challengePassword, and the key that asks signs again. The recorded request stays as it is; key and name are its own, so that whatever comes
// back is judged against it.

import type { TLSSocket } from 'node:tls'
import type { KeyStore } from '../../agent/ports.ts'
import { encodeBase64 } from '../../core/base64.ts'
import { type Bytes, equalBytes, utf8Bytes } from '../../core/bytes.ts'
import { CHALLENGE_PASSWORD, csrAssemble, csrInfo, encodeAttribute, parseCsr } from '../../core/csr.ts'
import { encodeElement, UTF8_STRING } from '../../core/der.ts'
import { type DeviceError, deviceError } from '../../core/errors.ts'

/**
 * What both ends of `socket` know and nobody between them: tls-exporter (RFC 9266 4.2) in TLS 1.3, tls-unique (RFC 5929 3), which is the
 * client's Finished of a full handshake, in TLS 1.2. Throws `network` when the connection has none.
 */
export function channelBindingOf(socket: TLSSocket): Bytes {
  const binding =
    socket.getProtocol() === 'TLSv1.3'
      ? socket.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0))
      : socket.isSessionReused()
        ? undefined
        : socket.getFinished()
  if (!binding?.length) throw deviceError('network', 'this TLS connection has no channel binding')
  return new Uint8Array(binding)
}

/** `csr` (DER, of our own making) bound to a connection and signed again by whichever operational slot holds its key. Fails with `key_unavailable`. */
export function bindCsr(
  csr: Bytes,
  binding: Bytes,
  keys: KeyStore,
  done: (error: DeviceError | null, csr: Bytes | null) => void,
): void {
  const { subject, spki } = parseCsr(csr)
  const password = encodeElement(UTF8_STRING, [utf8Bytes(encodeBase64(binding, 0))])
  const info = csrInfo(subject, spki, [encodeAttribute(CHALLENGE_PASSWORD, [password])])
  const tryNext = (slots: string[]): void => {
    const [slot, ...others] = slots
    if (slot === undefined) done(deviceError('key_unavailable', 'the key of the recorded request is gone'), null)
    else
      keys.publicKey(slot, (error, found) => {
        if (error) done(error, null)
        else if (!found || !equalBytes(found, spki)) tryNext(others)
        else keys.sign(slot, info, (error, signature) => done(error, signature && csrAssemble(info, keys.algorithm, signature)))
      })
  }
  tryNext(['op-0', 'op-1'])
}
