// The second story: closing a group for good. One signed notice takes the identity of every device in it, however many; from the commit on
// no certificate of the group is issued or renewed here, and the outbox holds the notice until it is delivered. There is no way back.

import type { Bytes } from '@birthmark/device-sdk/core'
import { type CertificateRevocation, createCertificateRevocation } from './certificate-revocation.ts'
import { createTurns } from './device-turns.ts'
import { EstServerError } from './errors.ts'
import type { ListCoder, NoticeInput, RecordedRules, SignedNotice } from './notice-input.ts'
import type { Clock, Failpoint, Log } from './ports.ts'
import type { GroupRule, NoticeRecord, Store } from './store/store.ts'

export interface RevocationOptions {
  store: Store
  fleet: string
  signNotice(input: NoticeInput): Promise<SignedNotice>
  /** For lists of certificates. Without it only groups, ranges, floors and issuers can be revoked. */
  coder?: ListCoder
  /** Called as soon as a revocation is recorded, before anybody is told: from here the rules in memory deny. */
  onRecorded?(what: RecordedRules): void
  clock: Clock
  log: Log
  failpoint?: Failpoint
}

export interface GroupRevocation {
  seq: number
  gid: number
  /** Certificates of the group with an idx below are revoked; no certificate of the group has another. */
  bound: number
  /** Members of the group, enrolled or not. */
  devices: number
  notice: Bytes
  /** The group was closed before; this is what was said then, and nothing new was. */
  again: boolean
}

export interface Revocation extends CertificateRevocation {
  /**
   * Throws `group_unknown`; `group_not_covered` while members hold certificates that lack the group (nothing was revoked: wait until those
   * have ended, or revoke a group that is in them); `revocation_contended` when certificates of the group are issued faster than a notice can be signed (nothing was
   * revoked, try again); and the store's errors, of which `store_unknown` means: ask again, and `again` tells.
   */
  revokeGroup(request: { group: string; reason?: number; by: string }): Promise<GroupRevocation>
  /**
   * Signs and records a notice that revokes nothing: it repeats standing rules and begins new heartbeats. Returns its number. Throws as
   * `revokeGroup`.
   */
  renew(by: string): Promise<number>
  /** Every rule of the fleet, for a rule set that starts. */
  rules(): Promise<GroupRule[]>
  /** For the publisher. */
  outbox: { pending(limit: number): Promise<NoticeRecord[]>; delivered(seq: number): Promise<void> }
}

/**
 * A notice repeats standing rules as far as they fit beside the new one: at some nine bytes a rule, 63 keep it below a kilobyte, which a device
 * takes in one MQTT packet. Who has missed more closes the gap from the ring of notices.
 */
const standingRulesMax = 63

/**
 * A certificate of the group that is recorded while its notice is being signed lies beyond the drafted bound, and the draft is void. The next
 * draft puts its bound further ahead; the idx in between go to devices of other groups. Four attempts outrun some 4,000 issuances of one group a signature.
 */
const boundsAhead = [0, 64, 1024, 4096]

export function createRevocation(options: RevocationOptions): Revocation {
  const { store, fleet, signNotice, clock, log, failpoint } = options
  // One notice of a fleet at a time: each names the one before. The store's check of seq and hash is what two processes meet at.
  const turns = createTurns()

  async function revoke(group: string, reason: number | undefined, by: string): Promise<GroupRevocation> {
    for (const ahead of boundsAhead) {
      const at = Math.floor(clock.now())
      const draft = await store.draftRevocation(fleet, group, standingRulesMax, at)
      if (draft === null) throw new EstServerError('group_unknown', `fleet ${fleet} has no group ${JSON.stringify(group)}`)
      const { gid, devices, closed, seq, previousSha256 } = draft
      // Said once, said for ever: the group was closed in the same transaction, so nothing of it can have been issued since.
      if (closed) return { seq: closed.notice.seq, gid, bound: closed.bound, devices, notice: closed.notice.notice, again: true }
      // Better a refusal than a notice that claims more than it takes.
      if (draft.uncovered > 0)
        throw new EstServerError(
          'group_not_covered',
          `${draft.uncovered} certificates of devices in ${group} were made before these joined it, and revoking it would not reach them`,
        )
      const bound = draft.idxNext + ahead
      const rule: GroupRule = { kind: 'group', gid, bound, ...(reason === undefined ? {} : { reason }) }
      const { floor } = await store.draftSet(fleet, 0)
      const rules = [rule, ...draft.rules]
      const signed = await signNotice({ fleet, seq, previousSha256, issuedAt: at, devices, rules, floor, followed: false })
      const { notice } = signed
      await failpoint?.('notice-signed')
      const detail = `group ${group}, gid ${gid}, bound ${bound}, ${devices} devices, notice ${seq}`
      const audit = { at, kind: 'group_revoked', requestId: '', fleet, device: '', by, code: '', detail } as const
      const record = {
        fleet,
        gid,
        bound,
        reason: reason ?? null,
        seq,
        previousSha256,
        notice,
        noticeSha256: signed.sha256,
        at,
        audit,
      }
      // A crash before this leaves a signed notice that nobody has seen; its seq will be another's. After it, the outbox has it.
      if ((await store.recordRevocation(record)) === 'recorded') {
        await failpoint?.('revocation-recorded')
        options.onRecorded?.({ rules: [rule], floor: 0, blocks: [] })
        log.info({ fleet, group, gid, bound, seq, devices, by }, 'group revoked')
        return { seq, gid, bound, devices, notice, again: false }
      }
    }
    throw new EstServerError('revocation_contended', `group ${group}: certificates are issued faster than its notice is signed`)
  }

  async function renew(by: string): Promise<number> {
    for (let attempt = 0; attempt < boundsAhead.length; attempt++) {
      const at = Math.floor(clock.now())
      const before = await store.newestNotice(fleet)
      const seq = (before?.seq ?? 0) + 1
      const previousSha256 = before?.sha256 ?? null
      const { rules, floor } = await store.draftSet(fleet, standingRulesMax)
      const { notice, sha256 } = await signNotice({
        fleet,
        seq,
        previousSha256,
        issuedAt: at,
        devices: 0,
        rules,
        floor,
        followed: false,
      })
      const audit = { at, kind: 'notice_renewed', requestId: '', fleet, device: '', by, code: '', detail: `notice ${seq}` } as const
      const outcome = await store.recordNotice({ fleet, seq, previousSha256, notice, noticeSha256: sha256, at, audit })
      if (outcome === 'recorded') return seq
      // Another process signed a notice meanwhile, which may be all that was wanted.
    }
    throw new EstServerError('revocation_contended', 'other notices are recorded faster than this one is signed')
  }

  async function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = await turns.take(fleet, work)
    if (done === null) throw new EstServerError('store_busy', 'too many revocations are waiting')
    return done
  }

  return {
    renew: by => inTurn(() => renew(by)),
    revokeGroup: ({ group, reason, by }) => inTurn(() => revoke(group, reason, by)),
    ...createCertificateRevocation({
      ...{ store, fleet, signNotice, clock, log, failpoint, inTurn, standingRulesMax },
      coder: options.coder ?? noLists,
      onRecorded: what => options.onRecorded?.(what),
    }),
    rules: () => store.rules(fleet),
    outbox: {
      pending: limit => store.outboxPending(fleet, limit),
      delivered: seq => store.outboxDelivered(fleet, seq, Math.floor(clock.now())),
    },
  }
}

const noLists: ListCoder = {
  rulesOf() {
    throw new TypeError('single devices are revoked by a server that was given a coder of lists')
  },
  byNotice: rules => [rules],
}
