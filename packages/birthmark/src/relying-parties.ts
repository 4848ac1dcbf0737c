// Who confirms a notice, as an operator sees and changes it: the relying parties that the configuration names, and those whose word the broker keeps.
// One that is retired is forgotten there, by whatever name it said so, so that no campaign waits for it.

import type { Store } from '@birthmark/est-server'
import { type Clock, type Publisher, RevocationError } from '@birthmark/fleet-revocation'
import type { CampaignAdministration } from './campaign-administration.ts'
import { CommandError } from './command-error.ts'

export interface RelyingPartyParts {
  publisher: Pick<Publisher, 'confirmations'>
  /** Names that the configuration has. */
  configured: readonly string[]
  store: Pick<Store, 'appendAudit' | 'newestNotice'>
  fleet: string
  by: string
  clock: Pick<Clock, 'now'>
}

export function relyingPartyOperations(
  parts: RelyingPartyParts,
): Pick<CampaignAdministration, 'relyingParties' | 'forgetRelyingParty'> {
  const { publisher, configured, store, fleet, by, clock } = parts
  const { confirmations } = publisher

  const refuse = (code: string, sentence: string, next: string) => new CommandError(code, sentence, next, 'refused')

  return {
    async relyingParties() {
      const newest = (await store.newestNotice(fleet))?.seq ?? 0
      const heard = new Map(confirmations.heard().map(word => [word.relyingParty, word]))
      const names = [...new Set([...configured, ...heard.keys()])].sort()
      return {
        newest,
        relyingParties: names.map(name => {
          const word = heard.get(name)
          return { name, configured: configured.includes(name), seq: word?.seq ?? null, appliedAt: word?.appliedAt ?? null }
        }),
      }
    },

    async forgetRelyingParty({ name }) {
      if (configured.includes(name))
        throw refuse(
          'relying_party_configured',
          `${name} is in the configuration, so it is waited for`,
          'take it out of mqtt.services there, and start the server again',
        )
      if (!confirmations.heard().some(word => word.relyingParty === name))
        throw refuse('relying_party_unknown', `nobody is waited for as '${name}'`, 'see who is: birthmark revoke parties')
      // On record before the effect: once it succeeds, campaigns are confirmed without it.
      const at = Math.floor(clock.now())
      await store.appendAudit({
        ...{ at, kind: 'relying_party_forgotten', requestId: '', fleet, device: '', by, code: '', detail: name },
      })
      try {
        await confirmations.forget(name)
      } catch (error) {
        if (!(error instanceof RevocationError)) throw error
        throw new CommandError(
          'relying_party_kept',
          `the broker did not forget ${name}: ${error.message}`,
          'see that the broker is there and lets this server write fr/1/+/ack/+ (its access rules, docs/enforcement.md), and ask again',
          'unreachable',
          error,
        )
      }
      return { name }
    },
  }
}
