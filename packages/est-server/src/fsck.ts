// The whole store, proven again: each certificate verifies under its issuer and says what its record says, every intent is settled, notices
// verify and follow one another, kept revocation lists are signed, and every invariant that the driver itself knows holds, the audit chain among them. It reads page by page and
// changes nothing, so it may run beside a server; what is not yet settled there is young, and young things are left alone.

import { type Bytes, bytesOfHex, equalBytes, hexOf, membershipOf, parseCertificate } from '@birthmark/device-sdk/core'
import { keptLists, listProblem } from './fsck-lists.ts'
import { importKey, sha256, verifyWith } from './node-crypto.ts'
import type { IssuanceRow } from './store/issuance-pages.ts'
import { type NoticeRecord, pageRowsMax, type Store } from './store/store.ts'

export interface Finding {
  code:
    | 'store'
    | 'certificate_malformed'
    | 'certificate_differs'
    | 'certificate_signature'
    /** Its issuer was not given, so nothing could be said about its signature. */
    | 'issuer_unknown'
    | 'intent_open'
    | 'notice_wrong'
    | 'list_wrong'
  detail: string
}

export interface FsckParts {
  store: Store
  fleets: string[]
  /** DER certificates of every CA whose certificates are in the store. */
  issuers: Bytes[]
  /** What is wrong with a notice of a fleet, or null: its signature, its number, its hash. */
  checkNotice(fleet: string, notice: NoticeRecord & { previousSha256: Bytes | null }): Promise<string | null>
  /** Seconds since 1970. */
  now: number
  progress(done: { certificates: number; notices: number }): void
}

export interface FsckReport {
  certificates: number
  voided: number
  notices: number
  /** Revocation lists of shards. */
  lists: number
  /** At most findingsMax; `broken` counts all. */
  findings: Finding[]
  broken: number
}

/** More would be the same trouble again. */
const findingsMax = 1000
/** An intent of a running server is settled within seconds; a server gives up what a dead one left within minutes. */
const intentSecondsMax = 300

export async function fsck({ store, fleets, issuers, checkNotice, now, progress }: FsckParts): Promise<FsckReport> {
  const report: FsckReport = { certificates: 0, voided: 0, notices: 0, lists: 0, findings: [], broken: 0 }
  const find = (code: Finding['code'], detail: string) => {
    report.broken++
    if (report.findings.length < findingsMax) report.findings.push({ code, detail })
  }
  for (const sentence of await store.check()) find('store', sentence)

  const keys = new Map(
    issuers.map(der => {
      const { subjectKeyId, spki } = parseCertificate(der)
      return [hexOf(subjectKeyId ?? sha256(spki).subarray(0, 20)), importKey(spki)]
    }),
  )
  const judge = (row: IssuanceRow): Finding | null => {
    const name = `serial ${hexOf(row.serial)} of device ${row.deviceId}`
    let certificate: ReturnType<typeof parseCertificate>
    try {
      certificate = parseCertificate(row.der)
    } catch {
      return { code: 'certificate_malformed', detail: `${name} is no certificate` }
    }
    const membership = membershipOf(certificate)
    const differs = [
      [equalBytes(certificate.serial, row.serial), 'serial'],
      [membership?.fleet === row.fleet && membership.idx === row.idx, 'fleet or idx'],
      [String(membership?.gids) === String(row.gids), 'groups'],
      [equalBytes(sha256(certificate.spki), row.spkiSha256), 'key'],
      [certificate.notBefore === row.notBefore && certificate.notAfter === row.notAfter, 'validity'],
    ].flatMap(([same, what]) => (same ? [] : [what]))
    if (differs.length > 0) return { code: 'certificate_differs', detail: `${name}: ${differs.join(', ')} differ from its record` }
    const key = keys.get(hexOf(row.issuer))
    if (!key) return { code: 'issuer_unknown', detail: `${name} was signed by ${hexOf(row.issuer)}, which is not configured` }
    return verifyWith(key, certificate.signatureAlgorithm, certificate.tbs, certificate.signature)
      ? null
      : { code: 'certificate_signature', detail: `${name} does not verify under its issuer` }
  }
  for (let after = 0; ; ) {
    const page = await store.issuances(after, pageRowsMax)
    for (const row of page) {
      if (row.state === 'issued') {
        report.certificates++
        const found = judge(row)
        if (found) find(found.code, found.detail)
      } else if (row.state === 'void') report.voided++
      else if (row.startedAt < now - intentSecondsMax)
        find('intent_open', `serial ${hexOf(row.serial)} is open since ${row.startedAt}`)
    }
    progress(report)
    if (page.length < pageRowsMax) break
    after = page[page.length - 1].key
    // A page is some 100 ms of verifying; a server in the same process would have its turn here.
    await new Promise(done => setImmediate(done))
  }
  for (const fleet of fleets)
    for (let after = 0; ; ) {
      const page = await store.notices(fleet, after, pageRowsMax)
      for (const notice of page) {
        report.notices++
        const wrong = await checkNotice(fleet, notice)
        if (wrong !== null) find('notice_wrong', `notice ${notice.seq} of ${fleet}: ${wrong}`)
      }
      progress(report)
      if (page.length < pageRowsMax) break
      after = page[page.length - 1].seq
    }
  for (const [name, key] of keys)
    if (key !== null)
      for await (const kept of keptLists(store, bytesOfHex(name), fleets)) {
        report.lists++
        const wrong = listProblem(kept, key)
        if (wrong !== null) find('list_wrong', `list ${kept.list} of ${name}: ${wrong}`)
      }
  return report
}
