// Whether and how a profile is reached by SCEP. A rule, parsed once; scep.ts applies it.

import { EstServerError } from '../errors.ts'
import { type WebhookRule, type WebhookRuleOptions, webhookRule } from './webhook-rule.ts'

export interface ScepRule {
  /** Whether requests may be encrypted with three-key triple DES, for routers that know nothing else. Answers are in AES all the same. */
  readonly tripleDes: boolean
  /** A challenge that is the same for every device. Development alone: whoever knows it can be any device. */
  readonly staticChallenge: string | null
  /** Who is asked whether a challenge admits a device, where it was not minted here. */
  readonly webhook: WebhookRule | null
}

export interface ScepRuleOptions {
  tripleDes?: boolean
  staticChallenge?: string | null
  webhook?: WebhookRuleOptions | null
  /** Says that what is at stake is nothing. Without it a static challenge is refused (FAULTS 29). */
  development?: boolean
}

/** Throws `profile_invalid` with what is wrong. */
export function scepRule(o: ScepRuleOptions): ScepRule {
  const staticChallenge = o.staticChallenge ?? null
  if (staticChallenge !== null && o.development !== true)
    throw new EstServerError(
      'profile_invalid',
      'scep: a static challenge is for development alone; mint one for each device: birthmark challenge mint',
    )
  if (staticChallenge !== null && !/^[\x21-\x7e]{8,64}$/.test(staticChallenge))
    throw new EstServerError('profile_invalid', 'scep: a static challenge has 8 to 64 printable characters')
  return { tripleDes: o.tripleDes ?? false, staticChallenge, webhook: o.webhook ? webhookRule(o.webhook) : null }
}
