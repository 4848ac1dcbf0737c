// The issuers as an operator sees and moves them.

import { hexOf, nameText } from '@birthmark/device-sdk/core'
import { EstServerError, type IssuerReport, type RollOver } from '@birthmark/est-server'
import type { IssuerMove, IssuerView } from './administration.ts'
import { CommandError } from './command-error.ts'

export function issuerOperations(rollOver: RollOver, by: string, onMoved: () => Promise<void>) {
  const views = async () => ({ issuers: (await rollOver.report()).map(viewOf) })
  return {
    issuers: views,
    async moveIssuers({ step, issuer, force, rehearse }: IssuerMove): Promise<{ moved: string; issuers: IssuerView[] }> {
      try {
        const keyId = issuer === undefined ? {} : { keyId: Buffer.from(issuer, 'hex') }
        const moved = await rollOver.move(step, by, { force, rehearse, ...keyId })
        if (!rehearse) await onMoved()
        return { moved, ...(await views()) }
      } catch (error) {
        if (!(error instanceof EstServerError) || error.code !== 'roll_over_refused') throw error
        throw new CommandError(
          'roll_over_refused',
          error.message.replace(/^roll_over_refused: /, ''),
          'see where the roll-over stands: birthmark ca status',
          'refused',
          error,
        )
      }
    },
  }
}

function viewOf({ keyId, state, since, devices, certificate }: IssuerReport): IssuerView {
  const c = certificate?.certificate
  return {
    issuer: hexOf(keyId),
    state,
    since,
    devices,
    certificate: c
      ? { subject: nameText(c.subject), keyAlgorithm: c.keyAlgorithm, notBefore: c.notBefore, notAfter: c.notAfter }
      : null,
  }
}
