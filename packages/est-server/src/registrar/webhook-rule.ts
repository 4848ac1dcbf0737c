// The owner's own system as a judge of enrollments: asked by an HTTPS POST after a device is recognised and its key proven, before anything
// is decided or recorded. It can only take away: a device that the other rules refuse stays refused. What cannot be asked, answers late
// or answers anything but a plain yes is a no. A rule, parsed once; webhook.ts asks.

import { EstServerError } from '../errors.ts'

export interface WebhookRule {
  /** `https:`, and `http:` only to an allowed loopback. */
  readonly url: URL
  /** HMAC-SHA-256 key of the request signature, 32 to 256 bytes. Never logged. */
  readonly secret: Uint8Array
  /** From the look-up of the name to the last byte of the answer. */
  readonly timeoutSeconds: number
  /** Whether an address of this machine may be asked. Link-local, multicast and unspecified ones never are. */
  readonly allowLoopback: boolean
  /** PEM of whom its TLS certificate must chain to; null for the CAs of the runtime. */
  readonly anchors: string | null
}

export interface WebhookRuleOptions {
  url: string | URL
  secret: Uint8Array
  /** 5 unless told. */
  timeoutSeconds?: number
  allowLoopback?: boolean
  anchors?: string | null
}

/** Throws `profile_invalid` with what is wrong. */
export function webhookRule(o: WebhookRuleOptions): WebhookRule {
  const wrong = (detail: string) => new EstServerError('profile_invalid', `webhook: ${detail}`)
  const allowLoopback = o.allowLoopback ?? false
  let url: URL
  try {
    url = new URL(o.url)
  } catch {
    throw wrong('url: https://host/path')
  }
  // Without TLS whoever sits between could admit devices; on this machine nobody sits between.
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && allowLoopback)) throw wrong('url: https:// only')
  if (url.username !== '' || url.password !== '' || url.hash !== '') throw wrong('url: no credentials, no fragment')
  if (o.secret.length < 32 || o.secret.length > 256) throw wrong('secret: 32 to 256 bytes')
  // As long as a device waits for its answer (60 s) less what the rest of an enrollment may take.
  const timeoutSeconds = o.timeoutSeconds ?? 5
  if (!(timeoutSeconds > 0 && timeoutSeconds <= 30)) throw wrong('timeoutSeconds: at most 30')
  return { url, secret: new Uint8Array(o.secret), timeoutSeconds, allowLoopback, anchors: o.anchors ?? null }
}
