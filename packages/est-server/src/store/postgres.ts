// The store in PostgreSQL, for a fleet that several machines serve. It promises what store.ts says. All writes of all servers stand in one
// line: each transaction locks one row first (postgres-writer.ts), so every precondition that it has read still holds at its COMMIT. When the
// server goes away, writes fail as what they are, and the store connects again by itself; it goes on only where the audit chain still ends
// at or behind the last record that was acknowledged here.

import type { Client } from 'pg'
import { EstServerError } from '../errors.ts'
import { createIdxBlocks } from './idx-blocks.ts'
import { packManifest } from './packed-manifest.ts'
import { postgresApprovalReads, postgresApprovalWrites } from './postgres-approvals.ts'
import { postgresCampaignReads, postgresCampaignWrites, postgresHolds } from './postgres-campaigns.ts'
import { postgresCheck } from './postgres-check.ts'
import { connectPostgres, type PostgresAddress, requireDurable, tunePostgres } from './postgres-connection.ts'
import { postgresCrlReads, postgresCrlWrites } from './postgres-crl.ts'
import { postgresIssuancePages } from './postgres-issuance-pages.ts'
import { postgresIssuerReads, recordPostgresIssuers } from './postgres-issuers.ts'
import { postgresNoticeWrites } from './postgres-notice.ts'
import { postgresNumberReads, postgresNumberWrites } from './postgres-numbers.ts'
import { announcePostgresProfiles, postgresProfileSetReads } from './postgres-profile-sets.ts'
import { postgresReads } from './postgres-reads.ts'
import { postgresRevokedListReads, postgresRevokedListWrites } from './postgres-revoked-lists.ts'
import { postgresScepReads, postgresScepWrites } from './postgres-scep.ts'
import { migratePostgres } from './postgres-schema.ts'
import { freezePostgresSelection, labelPostgresDevices, postgresSelectionReads } from './postgres-selection.ts'
import { spendPostgresToken } from './postgres-token.ts'
import { type AuditHead, type IntentResult, postgresWriter, type Transaction } from './postgres-writer.ts'
import { postgresWrites } from './postgres-writes.ts'
import type { Store } from './store.ts'

export type { PostgresAddress } from './postgres-connection.ts'

export interface PostgresStoreOptions extends PostgresAddress {
  /** Writes that may wait, beyond which `store_busy`. */
  queueMax?: number
  /** Told of each transaction of the writer: its writes, seconds to its commit, and how many writes wait behind it. */
  onBatch?: (jobs: number, seconds: number, waiting: number) => void
  /** Told once when the store stops for good: the database is not the one it was. */
  onStopped?: (error: EstServerError) => void
  /** Told when the server goes away and when it is back (null). */
  onAway?: (error: EstServerError | null) => void
}

/** Milliseconds between attempts to connect again: at once after a restart that takes a second, rarely in a long outage. */
const retryMs = [100, 200, 400, 800, 1600, 3000]

interface Link {
  writing: Client
  reading: Client
}

async function openLink(address: PostgresAddress): Promise<Link> {
  const writing = await connectPostgres(address, 'writer')
  try {
    await requireDurable(writing)
    await migratePostgres(writing, address.schema)
    await tunePostgres(writing, address.schema)
    const reading = await connectPostgres(address, 'reader')
    await tunePostgres(reading, address.schema)
    return { writing, reading }
  } catch (error) {
    void writing.end().catch(() => {})
    throw error instanceof EstServerError ? error : new EstServerError('store_unusable', (error as Error).message, error)
  }
}

/** Whether the record that was acknowledged last is still there. */
async function stillHas(client: Client, head: AuditHead): Promise<boolean> {
  if (head.n === 0) return true
  const { rows } = await client.query('SELECT hash FROM audit WHERE n = $1', [head.n])
  return rows.length === 1 && Buffer.compare(rows[0].hash, head.hash) === 0
}

/**
 * Opens the store, and makes its tables in a schema that has none. Throws `store_unusable` where PostgreSQL does not answer, would not keep
 * what it acknowledges, or holds tables of another program or of a newer version.
 */
export async function openPostgresStore(options: PostgresStoreOptions): Promise<Store> {
  const { schema, onStopped = () => {}, onAway = () => {} } = options
  let link: Link | null = await openLink(options)
  let unusable: EstServerError | null = null
  let closing: Promise<void> | null = null
  let reconnecting: Promise<void> | null = null
  let wait: { timer: NodeJS.Timeout; done: () => void } | null = null

  const held = postgresHolds()
  const writer = postgresWriter({
    holds: held,
    queueMax: options.queueMax ?? 8192,
    onBatch: options.onBatch,
    onBroken: (error, fork) => lose(error, fork),
  })

  function lose(error: EstServerError, fork: boolean): void {
    if (link === null) return
    const { writing, reading } = link
    link = null
    for (const client of [writing, reading]) void client.end().catch(() => {})
    writer.detach(error)
    if (closing) return
    if (fork) {
      unusable = error
      onStopped(error)
      return
    }
    onAway(error)
    reconnecting = reconnect()
  }

  async function reconnect(): Promise<void> {
    for (let attempt = 0; !closing; attempt++) {
      await new Promise<void>(done => {
        wait = { timer: setTimeout(done, retryMs[Math.min(attempt, retryMs.length - 1)]), done }
      })
      if (closing) return
      try {
        const next = await openLink(options)
        const head = writer.acknowledged
        if (head && !(await stillHas(next.writing, head))) {
          link = next
          return lose(
            new EstServerError(
              'store_closed',
              `the database has lost audit record ${head.n}, which was acknowledged: an older copy or a fork`,
            ),
            true,
          )
        }
        attach(next)
        return onAway(null)
      } catch {
        // Said once, at the loss; the next attempt follows.
      }
    }
  }

  function attach(next: Link): void {
    link = next
    for (const client of [next.writing, next.reading])
      client.on('error', error => {
        // Only the present link counts; one that was given up breaks in its own time.
        if (link === next) lose(new EstServerError('store_failed', `PostgreSQL: ${error.message}`, error), false)
      })
    writer.attach(next.writing)
  }
  attach(link)

  const rows = async <Row>(name: string, sql: string, values: unknown[] = []): Promise<Row[]> => {
    if (closing) throw new EstServerError('store_closed', 'the store was closed')
    if (link === null) throw unusable ?? new EstServerError('store_failed', 'read: PostgreSQL does not answer')
    try {
      return (await link.reading.query({ name, text: sql, values })).rows as Row[]
    } catch (error) {
      throw new EstServerError('store_failed', `read: ${(error as Error).message}`, error)
    }
  }
  const { lastTime, ...reads } = postgresReads(rows, held)
  const work = <T>(job: (tx: Transaction) => Promise<T> | T): Promise<T> => writer.write({ kind: 'work', work: job }) as Promise<T>
  const blocks = createIdxBlocks((fleet, count) => work(tx => postgresWrites.leaseIdx(tx, fleet, count)))

  /** On a connection of its own, for what takes long. */
  const alone = async <T>(purpose: string, job: (client: Client) => Promise<T>): Promise<T> => {
    const client = await connectPostgres(options, purpose)
    try {
      await client.query(`SET search_path = ${client.escapeIdentifier(schema)}`)
      return await job(client)
    } catch (error) {
      throw error instanceof EstServerError
        ? error
        : new EstServerError('store_failed', `${purpose}: ${(error as Error).message}`, error)
    } finally {
      await client.end()
    }
  }

  return {
    ...reads,
    lastTime,
    ...postgresCrlReads(rows),
    ...postgresNumberReads(rows),
    ...postgresScepReads(rows),
    ...postgresIssuerReads(rows),
    ...postgresProfileSetReads(rows),
    ...postgresIssuancePages(rows),
    ...postgresApprovalReads(rows),
    ...postgresCampaignReads(rows, held),
    ...postgresSelectionReads(rows),
    ...postgresRevokedListReads(rows, reads.rules),
    reserveIdx: fleet => blocks.reserve(fleet),
    admitDevice: device => work(tx => postgresWrites.admitDevice(tx, device, held)),
    async recordIntent(intent) {
      const result = (await writer.write({ kind: 'intent', argument: intent })) as IntentResult
      // What is left of the block lies below somebody else's: draw another.
      if (result.kind === 'conflict' && result.on === 'idx') blocks.drop(intent.fleet)
      return result
    },
    recordCertificate: issued => writer.write({ kind: 'certificate', argument: issued }) as Promise<'recorded' | 'conflict'>,
    voidIntent: (issuer, serial, audit) => work(tx => postgresWrites.voidIntent(tx, issuer, serial, audit)),
    setSuspicion: (fleet, id, suspected, audit) => work(tx => postgresWrites.setSuspicion(tx, fleet, id, suspected, audit)),
    raiseFloor: (fleet, id, idx, audit) => work(tx => postgresWrites.raiseFloor(tx, fleet, id, idx, audit)),
    acceptTime: audit => work(tx => postgresWrites.acceptTime(tx, audit)),
    async importManifest(fleet, entries, audit) {
      const packed = 'serials' in entries ? entries : packManifest(entries)
      return work(tx => postgresWrites.importManifest(tx, fleet, packed, audit))
    },
    mintSecret: secret => work(tx => postgresWrites.mintSecret(tx, secret)),
    // Of the certificates below its bound it takes those of its group, of which there will be no more: what is left of a block stays good.
    recordRevocation: revocation => work(tx => postgresWrites.recordRevocation(tx, revocation)),
    async recordSet(record) {
      const result = await work(tx => postgresRevokedListWrites.recordSet(tx, record))
      blocks.drop(record.fleet)
      return result
    },
    readmitDevice: (fleet, id, audit) => work(tx => postgresRevokedListWrites.readmitDevice(tx, fleet, id, audit)),
    recordNotice: notice => work(tx => postgresNoticeWrites.recordNotice(tx, notice)),
    outboxDelivered: (fleet, seq, at) => work(tx => postgresWrites.outboxDelivered(tx, fleet, seq, at)),
    appendAudit: entry => work(tx => tx.record(entry)),
    reserveCrlNumber: (issuer, at) => work(tx => postgresCrlWrites.reserveCrlNumber(tx, issuer, at)),
    recordCrl: crl => work(tx => postgresCrlWrites.recordCrl(tx, crl)),
    raiseCrlNumber: (issuer, number) => work(tx => postgresCrlWrites.raiseCrlNumber(tx, issuer, number)),
    async raiseNumbers(raised) {
      await work(tx => postgresNumberWrites.raiseNumbers(tx, raised))
      for (const { fleet } of raised.fleets) blocks.drop(fleet)
    },
    async adoptNotice(adopted) {
      const result = await work(tx => postgresNumberWrites.adoptNotice(tx, adopted))
      blocks.drop(adopted.fleet)
      return result
    },
    recordScepTransaction: transaction => work(tx => postgresScepWrites.recordScepTransaction(tx, transaction)),
    announceProfiles: (set, again, audit) => work(tx => announcePostgresProfiles(tx, set, again, audit)),
    recordIssuers: change => work(tx => recordPostgresIssuers(tx, change)),
    spendToken: token => work(tx => spendPostgresToken(tx, token)),
    awaitApproval: (request, waitingMax) => work(tx => postgresApprovalWrites.awaitApproval(tx, request, waitingMax)),
    recordCampaign: (campaign, plansMax) => work(tx => postgresCampaignWrites.recordCampaign(tx, campaign, plansMax)),
    moveCampaign: move => work(tx => postgresCampaignWrites.moveCampaign(tx, move)),
    labelDevices: (fleet, changes, audit) => work(tx => labelPostgresDevices(tx, { fleet, changes, audit })),
    freeze: query => alone('freeze', client => freezePostgresSelection(client, query)),
    decideApproval: decision => work(tx => postgresApprovalWrites.decideApproval(tx, decision)),
    check: () => alone('check', postgresCheck),
    close() {
      closing ??= (async () => {
        await writer.close()
        if (wait) {
          clearTimeout(wait.timer)
          wait.done()
        }
        await reconnecting
        const last = link
        link = null
        if (last) await Promise.all([last.writing.end(), last.reading.end()])
      })()
      return closing
    },
  }
}
