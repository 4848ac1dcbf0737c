// An Http for a device that reaches the server through a gateway, over whatever link it has (serial, radio, plain HTTP): every request for which the
// agent would open TLS with a key carries that key's signature instead. The link authenticates nobody, so an agent over it needs
// `operationalAnchors`: what it gets is judged by them alone, and one without them or with a secret alone does not enroll. No secret is said over it.
// Renewals of one that enrolled elsewhere without them are not told apart here.
// Optional: the agent does not reach this file.

import { base64Of } from '../core/base64.ts'
import type { Bytes } from '../core/bytes.ts'
import { parseCertificate } from '../core/certificate.ts'
import { encodeProof, proofHeader, proofParts } from '../core/device-proof.ts'
import { type DeviceError, type DeviceErrorCode, deviceError } from '../core/errors.ts'
import type { Clock, Hash, Http, HttpRequest, HttpResponse, KeyStore } from './ports.ts'

export interface GatewayLink {
  /** Carries a request to the gateway and its answer back. `done` comes later, never during the call. Returns how to give up. */
  exchange(request: HttpRequest, done: (error: DeviceError | null, response: HttpResponse | null) => void): () => void
}

/** `clock`: its time is in what is signed; while it is not trusted, requests fail with `path_time_untrusted` (a `trustedClock` asks through the link). */
export function gatewayHttp(link: GatewayLink, keys: KeyStore, hash: Hash, clock: Clock): Http {
  return {
    request: (request, tls, done) => {
      const slot = tls.slot
      const refuse = (code: DeviceErrorCode, detail: string): (() => void) =>
        clock.setTimer(0, () => done(deviceError(code, detail), null))
      // So begins the enrollment of an agent that was not told who issues; on this link anybody could answer.
      if ((slot === 'birth' || slot === null) && request.path.slice(-8) === '/cacerts')
        return refuse('path_no_anchor', 'operationalAnchors')
      // So that of one that has a secret alone.
      if (slot === null && request.body) return refuse('identity_missing', 'birth.chain')
      // Anybody could hear it, and anybody could have said that it is wanted.
      if (request.headers.authorization) return refuse('est_unauthorized', 'secret')
      if (slot === null) return link.exchange(request, done)
      let given = false
      const failed = (error: DeviceError): void => {
        cancel = clock.setTimer(0, () => done(error, null))
      }
      const send = (proof: Bytes): void => {
        const headers: HttpRequest['headers'] = {}
        Object.keys(request.headers).forEach(name => {
          headers[name] = request.headers[name]
        })
        headers[proofHeader] = base64Of(proof)
        cancel = link.exchange(
          {
            method: request.method,
            path: request.path,
            headers: headers,
            body: request.body,
            bodyBytesMax: request.bodyBytesMax,
            timeoutSeconds: request.timeoutSeconds,
          },
          done,
        )
      }
      // In a turn of its own: certificate and signature need a stack of their own, beside that of whoever asks.
      let cancel = clock.setTimer(0, () => {
        const time = clock.now()
        if (time < 0) {
          done(deviceError('path_time_untrusted', 'proof'), null)
          return
        }
        let parts: ReturnType<typeof proofParts>
        try {
          const body = request.body || new Uint8Array(0)
          parts = proofParts(parseCertificate(tls.chain[0]).keyAlgorithm, request.path, hash.sha256(body), time)
        } catch (error) {
          done(error as DeviceError, null)
          return
        }
        keys.sign(slot, parts.toBeSigned, (error: DeviceError | null, signature: Bytes | null) => {
          if (given) return
          let proof: Bytes | null = null
          let wrong = error || deviceError('key_unavailable')
          try {
            proof = signature && encodeProof(parts, signature, tls.chain)
          } catch (malformed) {
            wrong = malformed as DeviceError
          }
          if (proof) send(proof)
          else failed(wrong)
        })
      })
      return () => {
        given = true
        cancel()
      }
    },
  }
}
