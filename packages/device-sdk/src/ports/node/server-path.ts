// The server's certificate judged against the time that the device goes by. OpenSSL judges against the machine's clock alone; on a board whose clock
// is not believed that would refuse every server, or none that has ended. Path, purpose and name are checked either way.

import { checkServerIdentity, type DetailedPeerCertificate, type TLSSocket } from 'node:tls'
import { parseCertificate } from '../../core/certificate.ts'
import { type DeviceError, deviceError } from '../../core/errors.ts'
import { anchorOf } from '../../core/trust-anchor.ts'
import { defaultAlgorithms, validatePath } from '../../core/validate-path.ts'
import { nodeVerify } from './crypto.ts'

/** id-kp-serverAuth, 1.3.6.1.5.5.7.3.1 */
const SERVER_AUTH = '2b06010505070301'
const pathDepthMax = 6
const pathSignaturesMax = 16

/** What a server's certificate is judged against in place of the machine's clock. Seconds since 1970. */
export interface ServerTime {
  /** −1: not known, so that the floor stands in. */
  now: number
  floor: number
}

/** Certificates that the peer sent and OpenSSL put in order, DER, leaf first, without a root that closes the loop on itself. */
function chainOf(socket: TLSSocket): Uint8Array[] {
  const out: Uint8Array[] = []
  let next: DetailedPeerCertificate | undefined = socket.getPeerCertificate(true)
  while (next?.raw && out.length < pathDepthMax + 1) {
    out.push(new Uint8Array(next.raw))
    next = next.issuerCertificate === next ? undefined : next.issuerCertificate
  }
  return out
}

/** Null when the server at the other end of `socket` (connected without OpenSSL's verdict) is `host` and leads to `anchors` at that time. */
export function judgeServer(socket: TLSSocket, host: string, anchors: Uint8Array[], time: ServerTime): DeviceError | null {
  const untrusted = (detail: string, cause?: unknown) =>
    Object.assign(deviceError('server_untrusted', `${host}: ${detail}`), cause === undefined ? {} : { cause })
  try {
    const named = checkServerIdentity(host, socket.getPeerCertificate())
    if (named) return untrusted(named.message, named)
    const chain = chainOf(socket).map(parseCertificate)
    if (chain.length === 0) return untrusted('no certificate')
    let answer: DeviceError | null = untrusted('its path was not judged')
    validatePath(
      chain[0],
      chain.slice(1),
      {
        anchors: anchors.map(der => anchorOf(parseCertificate(der))),
        time: time.now,
        ...(time.floor > 0 ? { timeFloor: time.floor } : {}),
        algorithms: defaultAlgorithms,
        purpose: SERVER_AUTH,
        understoodCritical: [],
        depthMax: pathDepthMax,
        signaturesMax: pathSignaturesMax,
      },
      nodeVerify,
      error => {
        answer = error && untrusted(error.message, error)
      },
    )
    return answer
  } catch (error) {
    return untrusted((error as Error).message, error)
  }
}
