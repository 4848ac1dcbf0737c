// What the Node port throws: one class, a literal code, whether the same call may succeed later, and what a person should do next. The
// table has a row for every code of the core and the agent; the compiler asks for one when a code appears.

import { codeOf, type DeviceErrorCode } from '../../core/errors.ts'

export type { DeviceErrorCode }

interface Advice {
  /** Whether the same call, unchanged, may succeed later. */
  retryable: boolean
  hint: string
}

const answerHint =
  'The server answered something that is not EST, or not for this device. Try: curl -v <url>/.well-known/est/cacerts'
const pathHint = 'Compare the certificate with the anchors in trust.birth and trust.operational: openssl x509 -noout -text'

const advice: Record<DeviceErrorCode, Advice> = {
  der_malformed: { retryable: false, hint: 'A certificate or message is not strict DER. If it came from a file, export it again.' },
  der_limit: {
    retryable: false,
    hint: 'A certificate or message is larger than any device needs. Check what the file or the server holds.',
  },
  certificate_malformed: {
    retryable: false,
    hint: 'A certificate breaks RFC 5280; the message says where. Ask whoever issued it.',
  },
  certificate_unsupported: { retryable: false, hint: 'The certificate uses a version or algorithm that this SDK does not take.' },
  csr_malformed: { retryable: false, hint: 'The recorded request is damaged. Remove op-0 and op-1 from the store to start over.' },
  csr_unsupported: { retryable: false, hint: 'The key store names a signature algorithm that this SDK does not know.' },
  cms_malformed: { retryable: true, hint: answerHint },
  base64_malformed: { retryable: true, hint: answerHint },
  cbor_malformed: { retryable: false, hint: 'A signed notice does not decode. It was ignored.' },
  cose_malformed: { retryable: false, hint: 'A signed notice does not decode. It was ignored.' },
  cose_signature: { retryable: false, hint: 'A notice was not signed by the key this device trusts. It was ignored.' },
  path_no_anchor: {
    retryable: false,
    hint: 'No anchor leads to the certificate. Add the missing root or intermediate to trust.birth or trust.operational.',
  },
  path_signature: {
    retryable: false,
    hint: 'A signature in the chain does not verify. The certificate is not what its issuer made.',
  },
  path_expired: {
    retryable: true,
    hint: 'A certificate of the chain is over. Check the clock of this machine, then the issuing CA.',
  },
  path_not_yet_valid: { retryable: true, hint: 'A certificate of the chain is not valid yet. Check the clock of this machine.' },
  path_not_ca: { retryable: false, hint: pathHint },
  path_length: { retryable: false, hint: pathHint },
  path_key_usage: {
    retryable: false,
    hint: 'The certificate may not be used for this. An operational one needs the clientAuth purpose.',
  },
  path_name_constraint: { retryable: false, hint: pathHint },
  path_critical_extension: { retryable: false, hint: pathHint },
  path_algorithm: { retryable: false, hint: 'The chain is signed with an algorithm that this device does not accept.' },
  path_budget: { retryable: false, hint: 'The chain needs more work to check than any honest one does.' },
  path_time_untrusted: {
    retryable: true,
    hint: 'The clock is not set and no lower bound is known. Set the clock, or pass timeFloor.',
  },
  birth_not_idevid: {
    retryable: false,
    hint: 'birth.chain is not an 802.1AR birth certificate with a serialNumber. Ask the factory.',
  },
  birth_key_mismatch: {
    retryable: false,
    hint: "The key in slot 'birth' is missing or is not that of birth.chain. Both come from one device.",
  },
  est_unauthorized: {
    retryable: true,
    hint: 'The server does not know this device, or no longer. Is its birth certificate in the manifest?',
  },
  est_refused: {
    retryable: false,
    hint: 'The server refuses this request; the message quotes its reason. Its audit log says more.',
  },
  est_pending: {
    retryable: true,
    hint: 'The server wants a person to agree. Ask again after retryAfterSeconds; the same request is sent.',
  },
  est_unavailable: { retryable: true, hint: 'The server is overloaded or down. Try again after retryAfterSeconds.' },
  est_response_malformed: { retryable: true, hint: answerHint },
  est_certificate_mismatch: {
    retryable: true,
    hint: "The server issued for another key or device. Nothing was stored; tell the server's operator.",
  },
  network: {
    retryable: true,
    hint: 'The server was not reached, or closed the connection. Check name, port, firewall, and the server.',
  },
  server_untrusted: {
    retryable: true,
    hint: 'The server does not chain to trust.server, or its certificate lacks the name in server.url. Try: openssl s_client -showcerts',
  },
  timeout: { retryable: true, hint: 'The server took too long. Try again; raise timeoutSeconds on a very slow link.' },
  aborted: { retryable: true, hint: 'Stopped by the caller. What was recorded so far is kept; the next call carries on.' },
  store_read: { retryable: true, hint: 'The store cannot be read. Check permissions and the disk.' },
  store_write: {
    retryable: true,
    hint: 'The store cannot be written (full, read-only or failing disk). The identity in use is unchanged.',
  },
  key_unavailable: { retryable: true, hint: 'The key store did not give or make a key. Check permissions, or the secure element.' },
  random_unavailable: { retryable: false, hint: 'This engine has no cryptographic random source; no key is made without one.' },
  identity_missing: {
    retryable: false,
    hint: 'There is no operational identity, and neither birth.chain nor a secret to get one. Call enroll() first.',
  },
  identity_expired: {
    retryable: true,
    hint: 'The operational certificate is over. Call enroll(): the birth certificate gets a new one.',
  },
  revoked: {
    retryable: false,
    hint: 'This identity was revoked. Once an operator has admitted the device again: enroll({ readmitted: true }).',
  },
  quarantined: {
    retryable: true,
    hint: 'An operator holds this device back for now. Its identity is kept, and it asks again by itself; ask fleet operations.',
  },
  time_rejected: {
    retryable: true,
    hint: 'No signed time that this device believes. Compare time.signers and time.fleet with the notice keys of the server.',
  },
  notice_rejected: { retryable: false, hint: 'A revocation notice was not valid and was ignored.' },
  internal: { retryable: false, hint: 'This is a bug in the SDK or in a port passed to it. Please report it with the cause.' },
}

/**
 * `code` is stable and what to branch on; `message` is for people and may change. No key material is ever in it: details name slots,
 * files and reasons. `cause` is the error underneath, where there is one.
 */
export class BirthmarkError extends Error {
  override readonly name = 'BirthmarkError'
  readonly code: DeviceErrorCode
  /** Whether the same call may succeed later, with nothing changed by a person. */
  readonly retryable: boolean
  /** One sentence: what to do next. */
  readonly hint: string
  /** With `est_pending` and `est_unavailable`: seconds, 1 … 86,400, before which the server does not want to be asked. */
  readonly retryAfterSeconds: number | undefined

  constructor(code: DeviceErrorCode, detail: string, options?: { cause?: unknown; retryAfterSeconds?: number | undefined }) {
    super(detail, options && 'cause' in options ? { cause: options.cause } : undefined)
    this.code = code
    this.retryable = advice[code].retryable
    this.hint = advice[code].hint
    this.retryAfterSeconds = options?.retryAfterSeconds
  }

  toJSON(): object {
    const { code, message, retryable, hint, retryAfterSeconds } = this
    return { code, message, retryable, hint, retryAfterSeconds }
  }
}

/** Anything thrown below, as a BirthmarkError. What is none of ours becomes `internal`, with the original as its cause. */
export function birthmarkError(error: unknown): BirthmarkError {
  if (error instanceof BirthmarkError) return error
  const code = codeOf(error)
  const message = error instanceof Error ? error.message : String(error)
  if (!code || !Object.hasOwn(advice, code)) return new BirthmarkError('internal', message, { cause: error })
  const { retryAfterSeconds, cause } = error as { retryAfterSeconds?: number; cause?: unknown }
  // The agent knows refusals apart only as far as it acts on them; this one it sits out like any other.
  if (code === 'est_refused' && /^est_refused: 403 device_quarantined\b/.test(message))
    return new BirthmarkError('quarantined', message, { cause: error, retryAfterSeconds })
  return new BirthmarkError(code, message, { cause: cause ?? error, retryAfterSeconds })
}
