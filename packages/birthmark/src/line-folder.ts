// A line as one folder: the manufacturer's certificates and keys, `line.json` (what its birth certificates say) and the journal.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Bytes, decodePem } from '@birthmark/device-sdk/core'
import {
  type Authority,
  type BirthProfile,
  createManufacturer,
  FactoryError,
  openManufacturer,
  openStation,
  type Station,
  UNASSIGNED_HARDWARE,
  writeDurably,
} from '@birthmark/factory-line'
import { z } from 'zod'
import { CommandError } from './command-error.ts'
import { lineKey } from './line-token.ts'

export const systemClock = { now: () => Math.floor(Date.now() / 1000) }

const LineFile = z.strictObject({
  organization: z.string().min(1).max(64),
  hardwareType: z
    .string()
    .regex(/^([0-9a-f]{2}){1,64}$/)
    .nullable(),
})

export interface Line {
  station: Station
  root: Bytes
  organization: string
  /** Seals the journal, signs manifests. */
  signer: Authority
}

export async function createLine(folder: string, organization: string): Promise<void> {
  await createManufacturer(folder, organization, systemClock)
  writeLineFile(folder, organization)
}

/** What the folder's birth certificates say. */
export function writeLineFile(folder: string, organization: string): void {
  writeDurably(
    join(folder, 'line.json'),
    `${JSON.stringify({ organization, hardwareType: UNASSIGNED_HARDWARE }, null, 2)}\n`,
    0o644,
  )
}

/** Makes the line when there is none. True when it was made. A start that was cut off is completed. */
export async function ensureLine(folder: string, organization: string): Promise<boolean> {
  if (!existsSync(join(folder, 'root.pem'))) {
    await createLine(folder, organization)
    return true
  }
  if (!existsSync(join(folder, 'line.json'))) writeLineFile(folder, organization)
  return false
}

/** Opens the journal too: one process at a time. */
export function openLine(folder: string): Line {
  if (existsSync(join(folder, 'manifest.key.pem')) && !existsSync(join(folder, 'issuing.pem')))
    throw new CommandError(
      'authority_missing',
      `${folder} has asked for its issuing CA and has not got it yet`,
      'carry the request to the root’s desk (birthmark line sign), and bring the grant back: birthmark line accept',
    )
  const issuingKey = lineKey(folder, 'issuing')
  const maker = openManufacturer(folder, issuingKey)
  const { organization, hardwareType } = readLineFile(folder)
  const profile: BirthProfile = { organization, commonName: true, hardwareType }
  const station = openStation({ folder, issuing: maker.issuing, manifestSigner: maker.manifest, profile, clock: systemClock })
  const close = (): void => {
    station.close()
    issuingKey.close()
  }
  return { station: { ...station, close }, root: maker.root.certificate, organization, signer: maker.manifest }
}

function readLineFile(folder: string): z.infer<typeof LineFile> {
  const file = join(folder, 'line.json')
  try {
    return LineFile.parse(JSON.parse(readFileSync(file, 'utf8')))
  } catch (error) {
    throw new FactoryError('authority_missing', `cannot use ${file}`, error)
  }
}

/** A PKCS#10 request from a file, PEM or DER. */
export function csrOf(content: Bytes): Bytes {
  const text = Buffer.from(content).toString('latin1')
  for (const label of ['CERTIFICATE REQUEST', 'NEW CERTIFICATE REQUEST'])
    if (text.includes(`-----BEGIN ${label}-----`)) return decodePem(text, label, 1)[0]
  return content
}
