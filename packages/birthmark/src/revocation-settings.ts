// `revocation:` in the configuration: who may agree to a large revocation, what is large, and how long it can be undone.

import { createPublicKey } from 'node:crypto'
import { type CampaignRules, peopleProblem, personKeyProblem } from '@birthmark/est-server'
import { z } from 'zod'
import type { FileReader } from './issuer-settings.ts'
import { wrong } from './yaml-document.ts'

/** What a fleet's operators would call many, where the configuration does not say. */
const usualDevices = 1000
const usualShare = 0.1
const usualWindow = '15m'

const Name = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$/, 'is a name of letters, digits and . _ @ -')
const Label = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$/, 'is the name of a label')

export const RevocationConfiguration = z.strictObject({
  /** Two at least, or nobody: one person can approve nothing. */
  people: z
    .array(z.strictObject({ name: Name, key: z.string().min(1).max(4096) }))
    .max(64)
    .default([]),
  approval: z
    .strictObject({
      devices: z.int().min(0).max(100_000_000).default(usualDevices),
      share: z.number().min(0).max(1).default(usualShare),
    })
    .default({ devices: usualDevices, share: usualShare }),
  /** An hour and a weekend are both in use. */
  window: z
    .string()
    .regex(/^\d{1,4}[smhd]$/, 'is like 15m, 2h or 1d')
    .default(usualWindow),
  labels: z
    .strictObject({
      site: Label.default('site'),
      owner: Label.default('owner'),
      gateway: z
        .string()
        .regex(/^[^=\s]{1,63}=[^=\s]{1,63}$/, 'is name=value')
        .default('role=gateway'),
    })
    .default({ site: 'site', owner: 'owner', gateway: 'role=gateway' }),
})

export type RevocationSettings = CampaignRules

export function settleRevocation(raw: z.infer<typeof RevocationConfiguration> | undefined, files: FileReader): RevocationSettings {
  const { people, approval, window, labels } = raw ?? RevocationConfiguration.parse({})
  const known = people.map(({ name, key }, i) => {
    const where = files.at(['revocation', 'people', i, 'key'])
    const spki = spkiOf(files.read(['revocation', 'people', i, 'key'], key))
    const problem = spki === null ? 'is no public key' : personKeyProblem(spki)
    if (spki === null || problem !== null)
      throw wrong(
        `${where}: ${key} ${problem}`,
        'openssl genpkey -algorithm ed25519 -out alice.key; openssl pkey -in alice.key -pubout',
      )
    return { name, spki }
  })
  const problem = peopleProblem(known)
  if (problem !== null)
    throw wrong(`${files.at(['revocation', 'people'])}: ${problem}`, 'give each person one name and a key of their own')
  if (known.length === 1)
    throw wrong(
      `${files.at(['revocation', 'people'])}: one person cannot approve what they submit`,
      'name two people at least, or nobody',
    )
  return { people: known, threshold: approval, windowSeconds: secondsOf(window), radius: radiusOf(labels) }
}

/** For `birthmark dev`: nothing is large, and nothing waits. */
export const developmentRevocation: RevocationSettings = {
  people: [],
  threshold: null,
  windowSeconds: 0,
  radius: radiusOf({ site: 'site', owner: 'owner', gateway: 'role=gateway' }),
}

function radiusOf({ site, owner, gateway }: { site: string; owner: string; gateway: string }): RevocationSettings['radius'] {
  const [name, value] = gateway.split('=')
  return { site, owner, gateway: { name, value } }
}

/** A public key's bytes; of a private key given by mistake too, whose file is the person's and stays unread otherwise. */
function spkiOf(pem: string): Uint8Array | null {
  try {
    if (pem.includes('PRIVATE KEY')) return null
    return new Uint8Array(createPublicKey(pem).export({ type: 'spki', format: 'der' }))
  } catch {
    return null
  }
}

export function secondsOf(duration: string): number {
  return Number(duration.slice(0, -1)) * ({ s: 1, m: 60, h: 3600, d: 86_400 }[duration.slice(-1)] ?? 0)
}
