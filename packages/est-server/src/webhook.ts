// Asks the owner's system about one enrollment (registrar/webhook-rule.ts says when and why) and understands two answers: yes, and no with a
// reason. Everything else, late answers among them, is "cannot tell now", and the device hears 503.

import { createHmac } from 'node:crypto'
import type { Outbound } from './outbound-request.ts'
import type { Clock, Log } from './ports.ts'
import { type Refusal, refusal } from './registrar/refusal.ts'
import type { WebhookRule } from './registrar/webhook-rule.ts'
import { UnavailableError } from './unavailability.ts'

/** What the owner is told: names and hashes, no key and no certificate. Field names are the wire's. */
export interface WebhookQuestion {
  requestId: string
  operation: string
  label: string | null
  fleet: string
  device: string
  /** How the device was recognised: 'birth', 'operational', 'secret', 'token'; 'challenge' where this question is what shall recognise it. */
  identity: string
  address: string
  keyAlgorithm: string
  /** Hex. */
  spkiSha256: string
  /** Of SCEP's door: what the device showed and nobody here minted. Yes makes it the challenge of `device`; for a device that is unknown the owner says no. */
  challenge?: string
}

export interface Webhook {
  /** Null: may go on. Throws UnavailableError where no answer can be had. */
  ask(rule: WebhookRule, question: WebhookQuestion): Promise<Refusal | null>
}

/** A yes is 14 bytes and a reason is a sentence. */
const answerBytesMax = 8192
/** At once, of one profile: at the default 5 s a dead system then holds up 64 requests and no more, and none of another profile. */
const inFlightMax = 64
const reasonCharactersMax = 200

/** `t=<unix seconds>,v1=<hex>`: HMAC-SHA-256 over `<t>.<body>`, so that a recorded question cannot be asked again later. */
export function webhookSignature(secret: Uint8Array, at: number, body: string): string {
  return `t=${at},v1=${createHmac('sha256', secret).update(`${at}.${body}`).digest('hex')}`
}

function readAnswer(body: Buffer): { allow: boolean; reason: string } | null {
  let said: unknown
  try {
    said = JSON.parse(body.toString('utf8'))
  } catch {
    return null
  }
  if (typeof said !== 'object' || said === null || !Object.hasOwn(said, 'allow')) return null
  const { allow, reason } = said as { allow: unknown; reason?: unknown }
  if (typeof allow !== 'boolean') return null
  return { allow, reason: typeof reason === 'string' ? reason.slice(0, reasonCharactersMax) : '' }
}

export function createWebhook({ outbound, clock, log }: { outbound: Outbound; clock: Clock; log: Log }): Webhook {
  const asking = new WeakMap<WebhookRule, number>()
  return {
    async ask(rule, question) {
      const inFlight = asking.get(rule) ?? 0
      if (inFlight >= inFlightMax) throw new UnavailableError('busy', 5, 'too many questions to the webhook are waiting')
      const at = Math.floor(clock.now())
      const body = JSON.stringify({ version: 1, at, ...question })
      asking.set(rule, inFlight + 1)
      try {
        const { status, body: said } = await outbound({
          url: rule.url,
          method: 'POST',
          headers: {
            'content-type': 'application/json',
            accept: 'application/json',
            'birthmark-signature': webhookSignature(rule.secret, at, body),
          },
          body: Buffer.from(body),
          timeoutSeconds: rule.timeoutSeconds,
          answerBytesMax,
          allowLoopback: rule.allowLoopback,
          anchors: rule.anchors,
        })
        const answer = status === 200 ? readAnswer(said) : null
        if (answer === null) throw new Error(`${rule.url.host}: status ${status}, and no {"allow": true} or {"allow": false}`)
        if (answer.allow) return null
        return refusal('webhook_refused', answer.reason || `the owner's system refuses device ${question.device}`)
      } catch (error) {
        log.warn({ requestId: question.requestId, err: error }, 'the webhook gave no answer')
        throw new UnavailableError('webhook_unavailable', 30, "the owner's system gave no answer")
      } finally {
        asking.set(rule, (asking.get(rule) ?? 1) - 1)
      }
    },
  }
}
