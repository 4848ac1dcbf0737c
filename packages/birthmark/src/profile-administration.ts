// What an operator can ask of a running server about profiles and waiting requests: the shapes, what is accepted over the socket, and the
// operations themselves.

import { createHash } from 'node:crypto'
import { type Bytes, parseCertificate } from '@birthmark/device-sdk/core'
import {
  type ApprovalRecord,
  createApprovals,
  createExplanation,
  type Explanation,
  type RollOver,
  type Store,
} from '@birthmark/est-server'
import type { Clock } from '@birthmark/fleet-revocation'
import { z } from 'zod'
import type { Settings } from './configuration.ts'
import { type ProfileView, viewOfProfile } from './profile-view.ts'

export interface ApprovalView {
  id: number
  device: string
  label: string | null
  operation: string
  state: 'waiting' | 'approved' | 'denied'
  /** What the certificate would say. */
  summary: string
  /** Hex SHA-256 of the key's SubjectPublicKeyInfo. */
  key: string
  from: string
  askedAt: number
  expiresAt: number
  decidedAt: number | null
  decidedBy: string
  reason: string
}

export interface ApprovalFilter {
  state?: 'waiting' | 'approved' | 'denied'
  after?: number
  limit: number
}

export const ApprovalFilterInput = z.strictObject({
  state: z.enum(['waiting', 'approved', 'denied']).optional(),
  after: z.coerce.number().int().min(0).max(Number.MAX_SAFE_INTEGER).optional(),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
})
export const ApprovalDecisionInput = z.strictObject({
  id: z.int().min(1),
  approve: z.boolean(),
  by: z.string().min(1).max(100),
  reason: z.string().max(200).default(''),
})
// A CSR with an RSA-4096 or ML-DSA-65 key has 1 to 6 KB; a chain of three certificates half as much again.
const Der = z.base64().max(24_576)
const Device = z.string().min(1).max(64)
export const ExplanationInput = z.strictObject({
  label: z.string().max(64).nullable(),
  csr: Der,
  as: z.union([
    z.strictObject({ kind: z.literal('chain'), chain: z.array(Der).min(1).max(8) }),
    z.strictObject({ kind: z.enum(['secret', 'token', 'birth']), deviceId: Device }),
  ]),
})

export interface ProfileAdministration {
  profiles(): Promise<{ profiles: ProfileView[] }>
  explain(request: z.infer<typeof ExplanationInput>): Promise<Explanation>
  approvals(filter: ApprovalFilter): Promise<{ approvals: ApprovalView[] }>
  /** Throws `approval_unknown`. */
  decideApproval(decision: z.infer<typeof ApprovalDecisionInput>): Promise<ApprovalView>
}

export interface ProfileOperationParts {
  settings: Pick<Settings, 'fleet' | 'profiles'>
  store: Store
  rollOver: Pick<RollOver, 'admitted' | 'caCertificates'>
  status: Parameters<typeof createExplanation>[0]['status']
  clock: Clock
}

export function profileOperations({ settings, store, rollOver, status, clock }: ProfileOperationParts): ProfileAdministration {
  const { fleet, profiles } = settings
  const approvals = createApprovals({ store, fleet, clock })
  const sha256Of = (der: Bytes) => new Uint8Array(createHash('sha256').update(parseCertificate(der).spki).digest())
  const issuers = () => ({
    names: rollOver.admitted().map(({ certificate, keyId }) => ({ subject: certificate.subject, keyId })),
    caKeys: rollOver.caCertificates().map(sha256Of),
  })
  const explain = createExplanation({ store, profiles, issuers, status, clock })
  return {
    profiles: async () => ({ profiles: profiles.map(viewOfProfile) }),
    explain({ label, csr, as }) {
      const bytes = (text: string) => new Uint8Array(Buffer.from(text, 'base64'))
      return explain({ label, csr: bytes(csr), as: as.kind === 'chain' ? { kind: 'chain', chain: as.chain.map(bytes) } : as })
    },
    approvals: async filter => ({ approvals: (await approvals.list(filter)).map(viewOf) }),
    // Whoever may open the socket may name anybody: the file system let them in, and the name is theirs to answer for.
    decideApproval: async ({ by, ...decision }) =>
      viewOf(await approvals.decide({ ...decision, by: `${by}, at the local socket` })),
  }
}

function viewOf(a: ApprovalRecord): ApprovalView {
  const { id, label, operation, state, summary, from, expiresAt, decidedAt, decidedBy, reason } = a
  const key = Buffer.from(a.spkiSha256).toString('hex')
  return {
    id,
    device: a.deviceId,
    label,
    operation,
    state,
    summary,
    key,
    from,
    askedAt: a.at,
    expiresAt,
    decidedAt,
    decidedBy,
    reason,
  }
}
