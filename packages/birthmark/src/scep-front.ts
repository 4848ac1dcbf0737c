// SCEP's part of the front: the RA, the story and the plain HTTP listener, beside EST and over the same enrollment.

import { randomUUID } from 'node:crypto'
import { type Bytes, equalBytes, parseCertificate } from '@birthmark/device-sdk/core'
import {
  createScep,
  createScepListener,
  type Enrollment,
  EstServerError,
  type Limits,
  type RaKey,
  type ScepObserver,
  type ScepOptions,
  softwareRa,
} from '@birthmark/est-server'
import { CommandError } from './command-error.ts'
import type { Settings } from './configuration.ts'
import { named } from './listening.ts'

export interface ScepFront {
  port: number
  close(graceMs: number): Promise<void>
}

export interface ScepFrontParts
  extends Pick<ScepOptions, 'issuers' | 'store' | 'status' | 'nextCertificates' | 'crl' | 'clock' | 'random' | 'log'> {
  enrollment: Enrollment
  limits?: Partial<Limits>
  observer: ScepObserver
  shared: boolean
}

/** Null where the configuration has none. */
export async function openScepFront(
  settings: Settings,
  { shared, limits, observer, ...parts }: ScepFrontParts,
): Promise<ScepFront | null> {
  const { scep, profiles } = settings
  if (scep === null) return null
  const ras: RaKey[] = []
  try {
    for (const { certificate, key } of [scep.ra, ...scep.previous]) ras.push(softwareRa({ certificate, privateKeyPem: key }))
    const [ra, ...previousRas] = ras
    requireIssuedBy(ra, parts.enrollment.caCertificates(profiles.find(profile => profile.scep !== null)?.label ?? null))
    const service = createScep({ ...parts, ra, previousRas, profiles })
    const listener = createScepListener({ service, log: parts.log, requestId: randomUUID, observer, ...(limits && { limits }) })
    const { port } = await named('scep', scep.host, scep.port, () => listener.listen(scep.host, scep.port, { shared }))
    return {
      port,
      async close(graceMs) {
        await listener.close(graceMs)
        await service.close()
      },
    }
  } catch (error) {
    for (const ra of ras) await ra.close()
    if (!(error instanceof EstServerError) || error.code !== 'issuer_unusable') throw error
    const detail = error.message.replace(/^issuer_unusable: /, '')
    throw new CommandError('scep_ra', detail, 'make an RA under the issuing CA: birthmark init FOLDER … --scep', 'usage', error)
  }
}

/** An RA of another CA is one that no client would take for ours. */
function requireIssuedBy(ra: RaKey, authorities: Bytes[]): void {
  const subjects = authorities.map(der => parseCertificate(der).subject)
  if (!subjects.some(subject => equalBytes(subject, ra.certificate.issuer)))
    throw new EstServerError('issuer_unusable', 'RA: its certificate is not of an issuer of this configuration')
}
