// The profiles of a server as one hash, by which servers of one fleet tell whether they would decide alike. It covers every rule and no
// secret. What is off (null, false, an empty list) counts as not there, so that a new version's new rule changes nothing until it is used.

import { createHash } from 'node:crypto'
import type { Bytes } from '@birthmark/device-sdk/core'
import type { EnrollmentProfile } from './profile.ts'

type Plain = string | number | boolean | null | Plain[] | { [name: string]: Plain }

const hex = (bytes: Bytes) => Buffer.from(bytes).toString('hex')

/** Keys in order, and what is off left out. */
function settle(value: unknown): Plain {
  if (value === undefined || value === null || value === false) return null
  if (Array.isArray(value)) return value.length === 0 ? null : value.map(settle)
  if (value instanceof Uint8Array) return hex(value)
  if (value instanceof URL) return value.href
  if (typeof value !== 'object') return value as string | number | true
  const entries = Object.entries(value)
    .map(([name, held]) => [name, settle(held)] as const)
    .filter(([, held]) => held !== null)
    .sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(entries)
}

function ruleOf(profile: EnrollmentProfile): unknown {
  // What is derived from another field, or refers to the present machine, is not said; all else is, also what is added later.
  const { birthAnchors, serialPattern, uriPattern, subject, alternativeNames, namesNeedGroups, webhook, scep, ...plain } = profile
  return {
    ...plain,
    birthAnchors: birthAnchors.map(({ subject, spki }) => `${hex(subject)} ${hex(spki)}`).sort(),
    serialPattern: serialPattern?.source,
    uriPattern: uriPattern?.source,
    subject: subject === 'device' ? null : subject.source,
    alternativeNames: alternativeNames.map(({ source }) => source),
    webhook: webhook && { ...webhook, secret: null },
    scep: scep && {
      on: true,
      tripleDes: scep.tripleDes,
      staticChallenge: scep.staticChallenge !== null,
      ...(scep.webhook && { webhook: { ...scep.webhook, secret: null } }),
    },
  }
}

/** SHA-256, the same for the same rules in whatever order the profiles stand. */
export function profileSetHash(profiles: readonly EnrollmentProfile[]): Bytes {
  const text = profiles.map(profile => JSON.stringify(settle(ruleOf(profile)))).sort()
  return new Uint8Array(createHash('sha256').update(JSON.stringify(text)).digest())
}
