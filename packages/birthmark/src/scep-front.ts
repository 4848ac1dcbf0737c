// SCEP's part of the front: the RA, the story and the plain HTTP listener, beside EST and over the same enrollment.

import { randomUUID } from 'node:crypto'
import { type Bytes, equalBytes, parseCertificate } from '@birthmark/device-sdk/core'
import {
  createScep,
  createScepListener,
  type Enrollment,
  EstServerError,
  type Issuer,
  type Limits,
  type RaKey,
  type ScepObserver,
  type ScepOptions,
} from '@birthmark/est-server'
import type { Clock } from '@birthmark/fleet-revocation'
import { CommandError } from './command-error.ts'
import type { Settings } from './configuration.ts'
import type { SignerSettings } from './issuer-settings.ts'
import { named } from './listening.ts'
import { tokenFailure } from './open-issuer.ts'
import { openRa } from './open-ra.ts'
import { createScepLists } from './scep-lists.ts'

export interface ScepFront {
  port: number
  /** Why no message could be answered now, or null. */
  unready(): string | null
  close(graceMs: number): Promise<void>
}

export interface ScepFrontParts
  extends Pick<ScepOptions, 'issuers' | 'store' | 'status' | 'nextCertificates' | 'webhook' | 'loopTurns' | 'random' | 'log'> {
  clock: Clock
  enrollment: Enrollment
  /** Whose keys this process has: they sign the lists of GetCRL. */
  opened: readonly Issuer[]
  limits: Partial<Limits> & Pick<Limits, 'processes'>
  observer: ScepObserver
}

/** Null where the configuration has none. */
export async function openScepFront(
  settings: Settings,
  { limits, observer, opened, ...parts }: ScepFrontParts,
): Promise<ScepFront | null> {
  const { scep, profiles } = settings
  if (scep === null) return null
  const ras: RaKey[] = []
  try {
    const open = async (one: SignerSettings) => {
      const ra = await openRa(one, { state: settings.state, ...parts })
      ras.push(ra)
      return ra
    }
    const ra = await open(scep.ra)
    const nextRa = scep.next && (await open(scep.next))
    const previousRas: RaKey[] = []
    for (const one of scep.previous) previousRas.push(await open(one))
    const { issuer } = settings
    requireIssuedBy(ra, parts.enrollment.caCertificates(profiles.find(profile => profile.scep !== null)?.label ?? null))
    if (nextRa)
      requireIssuedBy(
        nextRa,
        [issuer, ...(issuer.next ? [issuer.next] : [])].map(({ certificates }) => certificates[0]),
      )
    const lists = createScepLists(settings, { ...parts, issuers: opened })
    const service = createScep({ ...parts, processes: limits.processes, ra, nextRa, previousRas, profiles, crl: lists.listOf })
    const listener = createScepListener({ service, log: parts.log, requestId: randomUUID, observer, limits })
    const { port } = await named('scep', scep.host, scep.port, () =>
      listener.listen(scep.host, scep.port, { shared: limits.processes > 1 }),
    )
    return {
      port,
      unready: service.unready,
      async close(graceMs) {
        await listener.close(graceMs)
        await service.close()
        await lists.close()
      },
    }
  } catch (error) {
    for (const ra of ras) await ra.close()
    if (!(error instanceof EstServerError) || error.code !== 'issuer_unusable') throw tokenFailure(error)
    const detail = error.message.replace(/^issuer_unusable: /, '')
    throw new CommandError(
      'scep_ra',
      detail,
      'make an RA under the issuing CA: birthmark ca ra FOLDER --config FILE',
      'usage',
      error,
    )
  }
}

/** An RA of another CA is one that no client would take for ours. */
function requireIssuedBy(ra: RaKey, authorities: Bytes[]): void {
  const subjects = authorities.map(der => parseCertificate(der).subject)
  if (!subjects.some(subject => equalBytes(subject, ra.certificate.issuer)))
    throw new EstServerError('issuer_unusable', 'RA: its certificate is not of an issuer of this configuration')
}
