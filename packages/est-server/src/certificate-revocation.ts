// The second story where no group says it: devices one by one, a range of certificates, all below a floor, all of an issuer. As with a group, one
// transaction holds the rules, the closed devices, the record and the signed notices, of which a long list takes several.

import { createHash } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { type Bytes, hexOf } from '@birthmark/device-sdk/core'
import { EstServerError } from './errors.ts'
import type { ListCoder, NoticeInput, NoticeRule, RecordedRules, SignedNotice } from './notice-input.ts'
import type { Clock, Failpoint, Log } from './ports.ts'
import { type BitBlock, blocksOf, blocksOfRange, countNumbers, eachNumber, joinBlocks, withoutKnown } from './store/bit-blocks.ts'
import { unpackNumbers } from './store/number-set.ts'
import type { ListDraft, RevokedSet, SignedNoticeRecord } from './store/revoked-lists.ts'
import { pageRowsMax, type Store } from './store/store.ts'

interface Why {
  /** CRLReason (RFC 5280 5.3.1). */
  reason?: number
  by: string
  /** The campaign that it belongs to, for the record. */
  campaign?: string
}

export interface DevicesRequest extends Why {
  /** By id: each with all its certificates, closed until it is admitted again. */
  devices?: readonly string[]
  /** Certificates by idx: these and no others. The device of one that is its last is closed too. */
  indices?: Iterable<number>
}

/** What a campaign has frozen (packed numbers): its devices are held, so that nothing has been issued to them since. */
export interface FrozenRequest extends Why {
  /** Row keys. */
  devices: Bytes
  /** Indices of all certificates they have. */
  certificates: Bytes
}

export interface SetRevocation {
  /** Of the last notice. */
  seq: number
  notices: Bytes[]
  /** Certificates that this took back. */
  certificates: number
  /** Devices that were named and are known. */
  devices: number
  /** Ids that are not known. */
  unknown: string[]
  /** All of it was revoked before, and nothing was said anew. */
  again: boolean
}

export interface CertificateRevocation {
  /**
   * Throws `device_unknown` when none of the ids is known, `idx_unknown` for an idx that was not given out, `revocation_contended`, and the store's
   * errors, as `revokeGroup`.
   */
  revokeDevices(request: DevicesRequest): Promise<SetRevocation>
  /** The same for what was frozen, with nothing looked up again. Asked again it says nothing anew. */
  revokeFrozen(request: FrozenRequest): Promise<SetRevocation>
  /** As much of it as was given out. Throws `idx_unknown` where nothing was. */
  revokeRange(request: Why & { start: number; length: number }): Promise<SetRevocation>
  /** `issuer`: its subject key identifier. Throws `issuer_signs` for one that signs now or will. */
  revokeIssuer(request: Why & { issuer: Bytes }): Promise<SetRevocation>
  /** Every certificate with a lower idx, as far as they were given out. There is no way to lower it again. */
  raiseFloor(request: Why & { floor: number }): Promise<SetRevocation>
  /** A revoked device may ask for a certificate again, and not with a revoked one. False: unknown, or not revoked by itself. */
  readmitDevice(request: { device: string; by: string; reason: string }): Promise<boolean>
}

export interface CertificateRevocationParts {
  store: Store
  fleet: string
  signNotice(input: NoticeInput): Promise<SignedNotice>
  coder: ListCoder
  onRecorded(what: RecordedRules): void
  clock: Clock
  log: Log
  failpoint: Failpoint | undefined
  /** One revocation of the fleet at a time. */
  inTurn<T>(work: () => Promise<T>): Promise<T>
  standingRulesMax: number
}

/** Notices of one revocation: 4 MB, which name some ten million single certificates. */
const noticesMax = 512
/** Others may record a notice, or issue to a named device, while these are signed. */
const attemptsMax = 8

interface Asked extends Why {
  set: RevokedSet
  /** In place of those of a list, which are encoded. */
  rules: NoticeRule[]
  floor: number
  devices: { keys: BitBlock[]; known: number; digest: string; unknown: string[] }
  certificates: number
}

const nobody: Asked['devices'] = { keys: [], known: 0, digest: '', unknown: [] }

export function createCertificateRevocation(parts: CertificateRevocationParts): CertificateRevocation {
  const { store, fleet, signNotice, coder, clock, log, failpoint, inTurn, standingRulesMax } = parts

  async function sign(draft: ListDraft, rules: NoticeRule[], asked: Asked, at: number): Promise<SignedNoticeRecord[]> {
    const pages = rules.length > 1 ? coder.byNotice(rules) : [[...rules, ...draft.rules]]
    if (pages.length > noticesMax)
      throw new EstServerError(
        'revocation_too_large',
        `it takes ${pages.length} notices; revoke in parts, or by group, range or floor`,
      )
    const out: SignedNoticeRecord[] = []
    let { previousSha256 } = draft
    for (const [i, page] of pages.entries()) {
      const seq = draft.seq + i
      const floor = Math.max(draft.floor, asked.floor)
      const devices = Math.max(asked.certificates, asked.devices.known)
      const followed = i < pages.length - 1
      const signed = await signNotice({ fleet, seq, previousSha256, issuedAt: at, devices, rules: page, floor, followed })
      out.push({ seq, previousSha256, notice: signed.notice, noticeSha256: signed.sha256 })
      previousSha256 = signed.sha256
    }
    return out
  }

  /** The rules of a list; a long one in slices of a few milliseconds. */
  async function encoded(blocks: BitBlock[]): Promise<NoticeRule[]> {
    const indices: number[] = []
    eachNumber(blocks, idx => indices.push(idx))
    const rules: NoticeRule[] = []
    for (const rule of coder.rulesOf(indices)) {
      rules.push(rule)
      await nextTurn()
    }
    return rules
  }

  async function record(first: ListDraft, asked: Asked): Promise<SetRevocation> {
    let draft = first
    let { issued } = first
    const { devices, by } = asked
    let rules = asked.set.kind === 'list' ? await encoded(asked.set.blocks) : asked.rules
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const at = Math.floor(clock.now())
      const notices = await sign(draft, rules, asked, at)
      await failpoint?.('notice-signed')
      const { seq } = notices[notices.length - 1]
      const detail = detailOf(asked, draft.seq, seq)
      const audit = { at, kind: 'certificates_revoked', requestId: '', fleet, device: '', by, code: '', detail } as const
      const { set, reason = null } = asked
      const outcome = await store.recordSet({ fleet, set, reason, devices: devices.keys, issued, notices, at, audit })
      // A crash before this leaves signed notices that nobody has seen; after it, the outbox has them.
      if (outcome.kind === 'recorded') {
        await failpoint?.('revocation-recorded')
        const blocks = set.kind === 'range' ? blocksOfRange(set.start, set.length) : set.blocks
        parts.onRecorded({ rules: asked.rules.filter(({ kind }) => kind === 'issuer'), floor: asked.floor, blocks })
        log.info(
          { fleet, kind: set.kind, seq, certificates: asked.certificates, devices: devices.known, by },
          'certificates revoked',
        )
        return {
          ...{ seq, notices: notices.map(({ notice }) => notice), certificates: asked.certificates },
          ...{ devices: devices.known, unknown: devices.unknown, again: false },
        }
      }
      if (outcome.kind === 'late') {
        asked.set.blocks = joinBlocks(set.blocks, blocksOf(outcome.indices))
        asked.certificates = countNumbers(asked.set.blocks)
        rules = await encoded(asked.set.blocks)
        issued = outcome.issued
      }
      draft = await store.draftSet(fleet, standingRulesMax)
    }
    throw new EstServerError('revocation_contended', 'notices or certificates are made faster than these notices are signed')
  }

  const again = (draft: ListDraft, devices = nobody): SetRevocation => ({
    ...{ seq: draft.seq - 1, notices: [], certificates: 0, devices: devices.known, unknown: devices.unknown, again: true },
  })

  async function lookUp(ids: readonly string[]) {
    const now = Math.floor(clock.now())
    const keys: number[] = []
    const indices: number[] = []
    const unknown: string[] = []
    const digest = createHash('sha256')
    let open = 0
    const sorted = [...new Set(ids)].sort()
    // A quarter of a page is a few milliseconds, and enrollments read in between.
    for (let at = 0; at < sorted.length; at += pageRowsMax / 4) {
      const page = sorted.slice(at, at + pageRowsMax / 4)
      const found = await store.revocableDevices(fleet, page, now)
      const known = new Set(found.map(({ id }) => id))
      for (const id of page) if (!known.has(id)) unknown.push(id)
      for (const device of found) {
        digest.update(`${device.id}\n`)
        keys.push(device.key)
        for (const idx of device.indices) indices.push(idx)
        if (!device.closed) open++
      }
      await nextTurn()
    }
    return {
      devices: { keys: blocksOf(keys), known: keys.length, digest: digest.digest('hex'), unknown },
      indices,
      open,
    }
  }

  async function revokeDevices({ devices: ids = [], indices = [], ...why }: DevicesRequest): Promise<SetRevocation> {
    // Before the devices are read: what they are given from here on is looked at again when it is recorded.
    const draft = await store.draftSet(fleet, standingRulesMax)
    const { devices, indices: theirs, open } = await lookUp(ids)
    if (ids.length > 0 && devices.known === 0)
      throw new EstServerError('device_unknown', `fleet ${fleet} knows none of these devices`)
    const named = [...indices]
    const wrong = named.find(idx => !Number.isInteger(idx) || idx < 1 || idx >= draft.idxNext)
    if (wrong !== undefined) throw new EstServerError('idx_unknown', `fleet ${fleet} has no certificate with idx ${wrong}`)
    const { blocks: known, floor } = await store.standingSets(fleet)
    const above = (all: number[]) => all.filter(idx => idx >= floor)
    const blocks = withoutKnown(blocksOf([...above(theirs), ...above(named)]), known)
    if (blocks.length === 0 && open === 0) return again(draft, devices)
    const set: RevokedSet = { kind: 'list', start: 0, length: 0, issuer: null, blocks }
    return record(draft, { ...why, set, rules: [], floor: 0, devices, certificates: countNumbers(blocks) })
  }

  /** Asked page by page, and only where every certificate is revoked already. */
  async function areClosed(devices: Bytes): Promise<boolean> {
    for (let after: number | null = -1; after !== null; ) {
      const page: { ids: string[]; next: number | null } = await store.deviceIds(devices, after, pageRowsMax / 4)
      const found = await store.revocableDevices(fleet, page.ids, 0)
      if (found.some(device => !device.closed)) return false
      after = page.next
      await nextTurn()
    }
    return true
  }

  async function revokeFrozen({ devices: packed, certificates, ...why }: FrozenRequest): Promise<SetRevocation> {
    const draft = await store.draftSet(fleet, standingRulesMax)
    const { blocks: known, floor } = await store.standingSets(fleet)
    const keys = unpackNumbers(packed)
    const devices = { keys: blocksOf(keys), known: keys.length, digest: '', unknown: [] }
    const blocks = withoutKnown(blocksOf(unpackNumbers(certificates).filter(idx => idx >= floor)), known)
    if (blocks.length === 0 && (await areClosed(packed))) return again(draft, devices)
    const set: RevokedSet = { kind: 'list', start: 0, length: 0, issuer: null, blocks }
    return record(draft, { ...why, set, rules: [], floor: 0, devices, certificates: countNumbers(blocks) })
  }

  return {
    revokeDevices: request => inTurn(() => revokeDevices(request)),
    revokeFrozen: request => inTurn(() => revokeFrozen(request)),

    revokeRange: ({ start, length, ...why }) =>
      inTurn(async () => {
        const draft = await store.draftSet(fleet, standingRulesMax)
        const end = Math.min(start + length, draft.idxNext)
        if (!Number.isInteger(start) || start < 1 || !(end > start))
          throw new EstServerError(
            'idx_unknown',
            `fleet ${fleet} has no certificate with an idx from ${start} to ${start + length - 1}`,
          )
        const known = await store.standingSets(fleet)
        const fresh = withoutKnown(blocksOfRange(start, end - start), known.blocks)
        if (fresh.length === 0 || end <= known.floor) return again(draft)
        const set: RevokedSet = { kind: 'range', start, length: end - start, issuer: null, blocks: [] }
        const rules: NoticeRule[] = [{ kind: 'range', start, length: end - start }]
        return record(draft, { ...why, set, rules, floor: 0, devices: nobody, certificates: countNumbers(fresh) })
      }),

    raiseFloor: ({ floor: asked, ...why }) =>
      inTurn(async () => {
        const draft = await store.draftSet(fleet, standingRulesMax)
        const floor = Math.min(asked, draft.idxNext)
        if (!Number.isInteger(asked) || asked < 2 || floor < 2)
          throw new EstServerError('idx_unknown', `fleet ${fleet} has no certificate with an idx below ${asked}`)
        if (floor <= draft.floor) return again(draft)
        const set: RevokedSet = { kind: 'floor', start: floor, length: 0, issuer: null, blocks: [] }
        const certificates = floor - Math.max(draft.floor, 1)
        return record(draft, { ...why, set, rules: [], floor, devices: nobody, certificates })
      }),

    revokeIssuer: ({ issuer, ...why }) =>
      inTurn(async () => {
        const standing = (await store.issuerStandings()).find(({ keyId }) => hexOf(keyId) === hexOf(issuer))
        if (standing?.state === 'signing' || standing?.state === 'next')
          throw new EstServerError('issuer_signs', 'this issuer signs, or is about to: switch to another first, then revoke it')
        const draft = await store.draftSet(fleet, standingRulesMax)
        const { issuers } = await store.standingSets(fleet)
        if (issuers.some(one => hexOf(one) === hexOf(issuer))) return again(draft)
        const set: RevokedSet = { kind: 'issuer', start: 0, length: 0, issuer, blocks: [] }
        // How many it ever signed is not counted: more than any share that one signature may speak for.
        const certificates = draft.idxNext - 1
        return record(draft, { ...why, set, rules: [{ kind: 'issuer', keyId: issuer }], floor: 0, devices: nobody, certificates })
      }),

    readmitDevice({ device, by, reason }) {
      const at = Math.floor(clock.now())
      return store.readmitDevice(fleet, device, {
        ...{ at, kind: 'device_readmitted', requestId: '', fleet, device, by, code: '', detail: reason },
      })
    },
  }
}

function detailOf({ set, devices, certificates, campaign }: Asked, first: number, last: number): string {
  const what = {
    list: `${certificates} certificates${devices.known > 0 ? ` of ${devices.known} devices${devices.digest && ` (SHA-256 of their ids ${devices.digest})`}` : ''}`,
    range: `certificates ${set.start} to ${set.start + set.length - 1}`,
    floor: `certificates below ${set.start}`,
    issuer: `certificates of issuer ${set.issuer ? hexOf(set.issuer) : ''}`,
  }[set.kind]
  const notices = first === last ? `notice ${last}` : `notices ${first} to ${last}`
  return `${what}, ${notices}${campaign === undefined ? '' : `, campaign ${campaign}`}`
}
