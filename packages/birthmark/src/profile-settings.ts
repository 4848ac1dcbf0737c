// The `profiles` part of a configuration: one bundle of policy a label, written in place or in a file of its own. Every complaint names file and
// line; what passes here makes a profile, or the server does not start.

import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type Bytes, COMMON_NAME, decodePem, encodeName, type TrustAnchor } from '@birthmark/device-sdk/core'
import {
  type EnrollmentProfile,
  EstServerError,
  enrollmentProfile,
  isGroupName,
  isLabel,
  keyTypes,
  parseNameTemplate,
  parsePattern,
  parseSubjectTemplate,
  purposesOf,
  readIssuerCertificate,
  readSecret,
  SecretError,
  tokenAlgorithms,
} from '@birthmark/est-server'
import { z } from 'zod'
import { fromDisk, type ReadFile } from './configuration-files.ts'
import { judged, parseYaml, wrong, type YamlDocument } from './yaml-document.ts'

const File = z.string().min(1).max(4096)
const Secret = z.union([z.strictObject({ file: File }), z.strictObject({ credential: z.string().min(1).max(255) })], {
  error: 'is {file: PATH} or {credential: NAME}',
})
const unitSeconds: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 }
/** Seconds. */
const Duration = z
  .string()
  .regex(/^(?:0|[1-9]\d{0,4}[smhd])$/, 'is like 90d, 12h, 10m or 0')
  .transform(text => (text === '0' ? 0 : Number(text.slice(0, -1)) * unitSeconds[text.slice(-1)]))
/** A fraction of a life. */
const Share = z
  .string()
  .regex(/^(?:[0-9]|[1-8][0-9]|90)%$/, 'is like 50%, at most 90%')
  .transform(text => Number(text.slice(0, -1)) / 100)
const Label = z.string().refine(isLabel, 'is 1 to 64 of A-Z a-z 0-9 . _ - and no EST operation')

/** What the maker of profiles would say, at the line it is about. */
function parsable<T>(schema: z.ZodType<T>, parse: (value: T) => unknown): z.ZodType<T> {
  return schema.superRefine((value, context) => {
    try {
      parse(value)
    } catch (error) {
      context.addIssue({ code: 'custom', message: (error as Error).message.replace(/^profile_invalid: /, '') })
    }
  })
}
const Pattern = z.union([parsable(z.string(), parsePattern), parsable(z.array(z.string()).min(1).max(16), parsePattern)], {
  error: issue => unionComplaint(issue, 'is a pattern such as "GW-2026-*", or a list of them'),
})

const Webhook = z.strictObject({
  url: z.string(),
  secret: Secret,
  timeout: Duration.optional(),
  allowLoopback: z.boolean().optional(),
  anchors: File.optional(),
})

const Profile = z.strictObject({
  label: Label.nullable().default(null),
  // Without it: whoever the whole server admits. With it: what is not named is not admitted.
  admit: z
    .strictObject({
      birth: z
        .strictObject({
          anchors: z.array(File).min(1).max(16).optional(),
          manifest: z.boolean().default(true),
          serial: Pattern.optional(),
          uri: Pattern.optional(),
        })
        .optional(),
      secrets: z.boolean().default(false),
      tokens: z
        .strictObject({
          keys: File,
          issuer: z.string(),
          audience: z.string(),
          algorithms: z.array(z.enum(tokenAlgorithms)).min(1).optional(),
          deviceClaim: z.string().optional(),
          lifetime: Duration.optional(),
          oneUse: z.boolean().optional(),
        })
        .optional(),
      webhook: Webhook.optional(),
    })
    .optional(),
  groups: z.array(z.string().refine(isGroupName, 'is 1 to 128 printable ASCII characters without spaces')).max(8).default([]),
  certificate: z
    .strictObject({
      subject: z
        .union([z.literal('device'), parsable(z.array(z.string()), parseSubjectTemplate)], {
          error: issue => unionComplaint(issue, 'is "device" or a list such as ["CN={id}", "O=Acme"]'),
        })
        .default('device'),
      names: z.array(parsable(z.string(), parseNameTemplate)).max(8).default([]),
      spiffe: z.string().nullable().default(null),
      lifetime: Duration.optional(),
      backdate: Duration.default(300),
      keys: z
        .array(z.string().refine(key => keyTypes.includes(key), `is one of ${keyTypes.join(', ')}`))
        .min(1)
        .optional(),
      purposes: z.array(parsable(z.string(), purpose => purposesOf([purpose]))).default([]),
    })
    .prefault({}),
  renewal: z
    .strictObject({
      window: Share.default(0),
      grace: Duration.default(0),
      nameMayChange: z.boolean().default(false),
      labels: z.array(Label.nullable()).min(1).max(64).optional(),
      issuers: z.array(File).min(1).max(16).optional(),
      byEnrolling: z.enum(['always', 'expired', 'never']).default('always'),
    })
    .prefault({}),
  approval: z.enum(['none', 'first', 'every']).default('none'),
  gateways: z
    .array(z.string().refine(isGroupName, 'is 1 to 128 printable ASCII characters without spaces'))
    .min(1)
    .max(8)
    .optional(),
  readmission: z.enum(['none', 'birth']).default('none'),
  possession: z.enum(['csr', 'channel']).default('csr'),
  serverKeys: z.union([z.boolean(), z.literal('plain')]).default(false),
  base64: z.enum(['wrapped', 'one-line']).default('wrapped'),
  scep: z
    .union([z.boolean(), z.strictObject({ tripleDes: z.boolean().default(false), webhook: Webhook.optional() })])
    .default(false),
  supersede: z.strictObject({ times: z.int().min(0).max(1000).default(1), within: Duration.default(7 * 86_400) }).prefault({}),
})

/** The words of the one alternative that came close, or else what is expected. */
function unionComplaint(issue: { errors?: { message: string }[][] }, expected: string): string {
  const custom = issue.errors?.flat().find(error => !error.message.startsWith('Invalid'))
  return custom ? custom.message : expected
}

type RawProfile = z.infer<typeof Profile>

/** Profiles are a page each; more labels than this are a generated list, and that is a manifest's business. */
export const profilesMax = 64
/** Entries: profiles, or names of files with one profile or a list of them. */
export const ProfilesConfiguration = z
  .array(z.union([File, z.record(z.string(), z.unknown())]))
  .min(1)
  .max(profilesMax)

export interface ProfileParts {
  fleet: string
  /** Of `birth.anchors`, for profiles that name none; null for a file that is judged without its configuration. */
  birthAnchors: Bytes[] | null
  /** Of `certificates.lifetime`, for profiles that name none. */
  lifetimeSeconds: number
  base: string
  readFile: ReadFile
  /** Certificates of a PEM file; complains with the place named. */
  certificates(where: string, file: string): Bytes[]
}

interface Placed {
  document: YamlDocument
  path: PropertyKey[]
  content: unknown
}

/** Throws `configuration`. `anchors`: DER certificates of manufacturers that profiles name by themselves. */
export function settleProfiles(
  entries: unknown[],
  document: YamlDocument,
  parts: ProfileParts,
): { profiles: EnrollmentProfile[]; anchors: Bytes[] } {
  const placed = entries.flatMap((entry, i): Placed[] =>
    typeof entry === 'string'
      ? profilesOfFile(entry, document.at(['profiles', i]), parts)
      : [{ document, path: ['profiles', i], content: entry }],
  )
  return settlePlaced(placed, document, parts)
}

function settlePlaced(
  placed: Placed[],
  document: YamlDocument,
  parts: ProfileParts,
): { profiles: EnrollmentProfile[]; anchors: Bytes[] } {
  if (placed.length > profilesMax)
    throw wrong(`${document.at(['profiles'])}: ${placed.length} profiles; at most ${profilesMax}`, 'use fewer labels')
  const anchors: Bytes[] = []
  const profiles = placed.map(one => settleProfile(one, parts, anchors))
  const labels = new Map<string | null, Placed>()
  profiles.forEach(({ label }, i) => {
    const { document: where, path } = placed[i]
    if (labels.has(label)) {
      const first = labels.get(label) as Placed
      const other = first.document.at(first.path).split(': ')[0]
      throw wrong(
        `${where.at([...path, 'label'])}: ${label === null ? 'a second profile without a label' : `the label ${label} is taken`} (${other})`,
        'give each profile its own label',
      )
    }
    labels.set(label, placed[i])
  })
  // Beside a lone file there may be others.
  if (parts.birthAnchors === null) return { profiles, anchors }
  profiles.forEach(({ renewal }, i) => {
    const unknown = renewal.labels.findIndex(label => !labels.has(label))
    if (unknown >= 0)
      throw wrong(
        `${placed[i].document.at([...placed[i].path, 'renewal', 'labels', unknown])}: no profile has the label ${renewal.labels[unknown]}`,
        'name labels of this configuration, null for the one without',
      )
  })
  return { profiles, anchors }
}

function profilesOfFile(file: string, where: string, parts: Pick<ProfileParts, 'base' | 'readFile'>): Placed[] {
  const path = resolve(parts.base, file)
  let text: string
  try {
    text = parts.readFile(path).text
  } catch (error) {
    throw wrong(
      `${where}: cannot read ${path} (${(error as NodeJS.ErrnoException).code})`,
      'put the file there or correct the line',
    )
  }
  const document = parseYaml(path, text)
  const { content } = document
  if (!Array.isArray(content)) return [{ document, path: [], content }]
  return content.map((one, i) => ({ document, path: [i], content: one }))
}

/**
 * The profiles of a file of its own, judged without a configuration around it; null when the file is a whole configuration. Fleet, lifetime and
 * anchors that only a configuration has are stand-ins.
 */
export function checkProfileFile(file: string, base: string, readFile: ReadFile = fromDisk): EnrollmentProfile[] | null {
  const placed = profilesOfFile(file, file, { base, readFile })
  const { content, document } = placed[0] ?? {}
  if (typeof content === 'object' && content !== null && 'fleet' in content) return null
  if (placed.length === 0) throw wrong(`${file} holds no profile`, 'write one: docs/profiles.md')
  const certificates = (where: string, name: string) => {
    try {
      const found = decodePem(readFile(resolve(base, name)).text, 'CERTIFICATE', 16)
      if (found.length > 0) return found
    } catch (error) {
      throw wrong(
        `${where}: cannot read ${resolve(base, name)} (${(error as Error).message})`,
        'put the file there or correct the line',
      )
    }
    throw wrong(`${where}: ${name} holds no certificate`, 'give PEM certificates')
  }
  const parts = { fleet: 'fleet', birthAnchors: null, lifetimeSeconds: 90 * 86_400, base, readFile, certificates }
  return settlePlaced(placed, document as YamlDocument, parts).profiles
}

// Names that the maker of profiles gives to what it refuses, as places of the file.
const places: Record<string, PropertyKey[]> = {
  label: ['label'],
  lifetimeSeconds: ['certificate', 'lifetime'],
  backdateSeconds: ['certificate', 'backdate'],
  keys: ['certificate', 'keys'],
  trustDomain: ['certificate', 'spiffe'],
  subject: ['certificate', 'subject'],
  alternativeNames: ['certificate', 'names'],
  extendedKeyUsage: ['certificate', 'purposes'],
  serialPattern: ['admit', 'birth', 'serial'],
  uriPattern: ['admit', 'birth', 'uri'],
  // Read from a file each; what is left to say is that there is no way in.
  birthAnchors: ['admit'],
  tokens: ['admit', 'tokens'],
  webhook: ['admit', 'webhook'],
  groups: ['groups'],
  serverKeys: ['serverKeys'],
  approval: ['approval'],
  readmission: ['readmission'],
  gateways: ['gateways'],
  possession: ['possession'],
  'renewal.windowFraction': ['renewal', 'window'],
  'renewal.graceSeconds': ['renewal', 'grace'],
  'renewal.labels': ['renewal', 'labels'],
  'renewal.issuers': ['renewal', 'issuers'],
}

/** Stands where a lone file relies on its configuration. */
const anchorElsewhere: TrustAnchor = {
  subject: encodeName([{ oid: COMMON_NAME, value: 'birth.anchors of the configuration' }]),
  spki: new Uint8Array(),
  keyAlgorithm: '',
  subjectKeyId: null,
  certificate: null,
}

function settleProfile({ document, path, content }: Placed, parts: ProfileParts, anchors: Bytes[]): EnrollmentProfile {
  const raw = judged(Profile, document, content, path)
  const at = (more: PropertyKey[]) => document.at([...path, ...more])
  try {
    const profile = enrollmentProfile(optionsOf(raw, at, parts, anchors))
    const lacksAnchors = parts.birthAnchors === null && profile.birthAnchors.length === 0 && (!raw.admit || raw.admit.birth)
    return lacksAnchors ? { ...profile, birthAnchors: [anchorElsewhere], admitSecrets: raw.admit?.secrets ?? true } : profile
  } catch (error) {
    if (!(error instanceof EstServerError)) throw error
    const [, name, detail] = /^profile_invalid: ([A-Za-z.]+): (.*)$/s.exec(error.message) ?? []
    const place = places[name ?? ''] ?? []
    // Said about the part, it is the part's own word that the reader looks for: `tokens: issuer: …`.
    throw wrong(`${at(place)}: ${detail ?? error.message}`, 'correct that line')
  }
}

function optionsOf(raw: RawProfile, at: (path: PropertyKey[]) => string, parts: ProfileParts, anchors: Bytes[]) {
  const { admit, certificate, renewal, supersede } = raw
  const birth = admit ? admit.birth : { anchors: undefined, manifest: true, serial: undefined, uri: undefined }
  const own = birth?.anchors?.flatMap((file, i) => parts.certificates(at(['admit', 'birth', 'anchors', i]), file))
  if (own) anchors.push(...own)
  const issuers = renewal.issuers?.flatMap((file, i) => {
    const where = at(['renewal', 'issuers', i])
    const [certificate] = parts.certificates(where, file)
    try {
      return Buffer.from(readIssuerCertificate({ certificate }).keyId).toString('hex')
    } catch (error) {
      throw wrong(`${where}: ${file}: ${(error as Error).message}`, 'name the certificate of an issuing CA')
    }
  })
  return {
    fleet: parts.fleet,
    label: raw.label,
    birthAnchors: birth ? (own ?? parts.birthAnchors ?? []) : [],
    requireManifest: birth?.manifest ?? true,
    serialPattern: birth?.serial ?? null,
    uriPattern: birth?.uri ?? null,
    // Alone, a profile may rely on anchors that are not at hand: nobody then says that it admits nobody.
    admitSecrets: admit ? admit.secrets || (birth !== undefined && !own && parts.birthAnchors === null) : true,
    tokens: tokensOf(admit?.tokens, parts),
    webhook: webhookOf(admit?.webhook, at(['admit', 'webhook', 'secret']), parts),
    groups: raw.groups,
    subject: certificate.subject,
    alternativeNames: certificate.names,
    trustDomain: certificate.spiffe,
    lifetimeSeconds: certificate.lifetime ?? parts.lifetimeSeconds,
    backdateSeconds: certificate.backdate,
    ...(certificate.keys ? { keys: certificate.keys } : {}),
    extendedKeyUsage: certificate.purposes,
    approval: raw.approval,
    readmission: raw.readmission,
    gateways: raw.gateways ?? null,
    renewal: {
      windowFraction: renewal.window,
      graceSeconds: renewal.grace,
      nameMayChange: renewal.nameMayChange,
      byEnrolling: renewal.byEnrolling,
      ...(renewal.labels ? { labels: renewal.labels } : {}),
      ...(issuers ? { issuers } : {}),
    },
    possession: raw.possession,
    serverKeys: raw.serverKeys,
    scep: scepOf(raw.scep, at(['scep', 'webhook', 'secret']), parts),
    bodyInOneLine: raw.base64 === 'one-line',
    supersedesMax: supersede.times,
    supersedeWindowSeconds: supersede.within,
  }
}

type RawAdmit = NonNullable<RawProfile['admit']>

function tokensOf(raw: RawAdmit['tokens'], { base }: ProfileParts) {
  if (!raw) return null
  const { lifetime, keys, algorithms, deviceClaim, oneUse, issuer, audience } = raw
  return {
    keys: /^[a-z]+:/.test(keys) ? keys : pathToFileURL(resolve(base, keys)),
    issuer,
    audience,
    ...(algorithms ? { algorithms } : {}),
    ...(deviceClaim === undefined ? {} : { deviceClaim }),
    ...(lifetime === undefined ? {} : { lifetimeSecondsMax: lifetime }),
    ...(oneUse === undefined ? {} : { oneUse }),
  }
}

function scepOf(raw: RawProfile['scep'], where: string, parts: ProfileParts) {
  if (typeof raw === 'boolean') return raw ? {} : null
  return { tripleDes: raw.tripleDes, webhook: webhookOf(raw.webhook, where, parts) }
}

/** `where` its secret is named. */
function webhookOf(raw: z.infer<typeof Webhook> | undefined, where: string, { base, readFile }: ProfileParts) {
  if (!raw) return null
  const { url, timeout, allowLoopback, anchors } = raw
  let secret: Uint8Array
  try {
    secret = readSecret('file' in raw.secret ? { file: resolve(base, raw.secret.file) } : raw.secret)
  } catch (error) {
    if (error instanceof SecretError) throw wrong(`${where}: ${error.message}`, error.next)
    throw error
  }
  return {
    url,
    secret,
    ...(timeout === undefined ? {} : { timeoutSeconds: timeout }),
    ...(allowLoopback === undefined ? {} : { allowLoopback }),
    ...(anchors === undefined ? {} : { anchors: readFile(resolve(base, anchors)).text }),
  }
}
