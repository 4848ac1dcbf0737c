// The devices of one fleet, as operators and the factory see them: manifests in, one-time secrets out, groups and lists. What a caller hands in
// is judged here, row by row, before the store sees it.

import { EstServerError } from '../errors.ts'
import type { Clock, RandomBytes } from '../ports.ts'
import { isDeviceId, isGroupName } from '../registrar/profile.ts'
import { secretBytes, secretHash } from '../registrar/secret.ts'
import { createManifestPacker, type EntryJudge } from '../store/packed-manifest.ts'
import {
  type DeviceQuery,
  type DeviceRow,
  type GroupRecord,
  groupsPerDeviceMax,
  type ManifestEntry,
  type ManifestReport,
  manifestEntriesMax,
  type Store,
} from '../store/store.ts'

/** Refused rows that a report lists; the rest are counted. A manifest that is wrong throughout must not be answered with itself. */
const refusedListedMax = 1000

/** A secret lies around until it is used: a week for the one who carries it to the device. */
const secretSecondsMax = 7 * 86_400

/** Entries that are taken before others get their turn: about a millisecond. */
const entriesPerTurn = 256

const turn = () => new Promise<void>(done => setImmediate(done))

export interface ManifestResult extends ManifestReport {
  refusedCount: number
}

export interface Registry {
  /**
   * Takes entries of a manifest whose signature the caller has verified. Repeating it changes nothing; an import that broke off is repeated
   * whole. Rows that cannot be taken are reported, the others are in. Given at once rather than asynchronously they cost least.
   */
  importManifest(entries: Iterable<ManifestEntry> | AsyncIterable<ManifestEntry>, by: string): Promise<ManifestResult>
  /**
   * A secret for one enrollment of one device. It is shown now and never again: the store has its hash. Groups are those of a device that is
   * not known yet; throws `group_not_joined` when it is and lacks one.
   */
  mintSecret(request: {
    deviceId: string
    groups?: string[]
    lifetimeSeconds: number
    by: string
  }): Promise<{ user: string; password: string; expiresAt: number }>
  /** For an operator who has seen to a device that was suspected to be two. False for an unknown device. */
  liftSuspicion(request: { deviceId: string; by: string; reason: string }): Promise<boolean>
  device(id: string): Promise<DeviceRow | null>
  devices(query: Omit<DeviceQuery, 'fleet'>): Promise<DeviceRow[]>
  groups(): Promise<GroupRecord[]>
  isClosed(gids: number[]): Promise<boolean>
}

function groupsProblem(groups: unknown): string | null {
  return Array.isArray(groups) && groups.length <= groupsPerDeviceMax && groups.every(g => typeof g === 'string' && isGroupName(g))
    ? null
    : `groups are not at most ${groupsPerDeviceMax} names of printable ASCII without spaces`
}

function serialProblem(serial: unknown): string | null {
  return typeof serial === 'string' && isDeviceId(serial) ? null : 'serial is not 1 to 64 of A-Z a-z 0-9 . _ : -'
}

function kindProblem({ groups, keyOrigin, issuerSubject }: ManifestEntry): string | null {
  if (issuerSubject !== undefined && (typeof issuerSubject !== 'string' || issuerSubject.length > 4096))
    return 'issuerSubject is too long'
  if (keyOrigin !== 'device' && keyOrigin !== 'host') return 'keyOrigin is neither device nor host'
  return groupsProblem(groups)
}

const judge: EntryJudge = { serial: serialProblem, kind: kindProblem }

export function createRegistry({
  store,
  fleet,
  clock,
  random,
}: {
  store: Store
  fleet: string
  clock: Clock
  random: RandomBytes
}): Registry {
  const at = () => Math.floor(clock.now())
  return {
    async importManifest(entries, by) {
      const total: ManifestResult = { added: 0, updated: 0, unchanged: 0, refused: [], refusedCount: 0 }
      const refuse = (rows: { serial: string; reason: string }[]) => {
        total.refusedCount += rows.length
        total.refused.push(...rows.slice(0, refusedListedMax - total.refused.length))
      }
      const packer = createManifestPacker(judge)
      // One chunk is written and one waits while the next is read: the store's work and the reader's fall together.
      const away: Promise<void>[] = []
      const write = async () => {
        if (away.length === 2) await away.shift()
        if (packer.count === 0) return
        const audit = { at: at(), kind: 'manifest_imported', requestId: '', fleet, device: '', by, code: '', detail: '' } as const
        const writing = store.importManifest(fleet, packer.take(), audit).then(report => {
          total.added += report.added
          total.updated += report.updated
          total.unchanged += report.unchanged
          refuse(report.refused)
        })
        // Heard at a later await, or at the end.
        writing.catch(() => {})
        away.push(writing)
      }
      const take = (entry: ManifestEntry): Promise<void> | null => {
        const problem = packer.add(entry)
        if (problem) refuse([{ serial: String(entry.serial).slice(0, 64), reason: problem }])
        return packer.count === manifestEntriesMax ? write() : null
      }
      if (Symbol.asyncIterator in entries) for await (const entry of entries) await take(entry)
      else {
        let n = 0
        for (const entry of entries) {
          const full = take(entry)
          if (full) await full
          // A promise for each of a million would cost more than the parsing; enrollments get their turn all the same.
          else if (++n % entriesPerTurn === 0) await turn()
        }
      }
      await write()
      for (const writing of away) await writing
      return total
    },

    async mintSecret({ deviceId, groups = [], lifetimeSeconds, by }) {
      const problem = serialProblem(deviceId) ?? groupsProblem(groups)
      if (problem) throw new EstServerError('manifest_invalid', problem)
      if (!(lifetimeSeconds > 0 && lifetimeSeconds <= secretSecondsMax))
        throw new EstServerError('manifest_invalid', 'a secret lives at most a week')
      const password = Buffer.from(random(secretBytes)).toString('base64url')
      const expiresAt = at() + Math.floor(lifetimeSeconds)
      const audit = {
        at: at(),
        kind: 'secret_minted',
        requestId: '',
        fleet,
        device: deviceId,
        by,
        code: '',
        detail: `until ${expiresAt}`,
      } as const
      const hash = secretHash(fleet, deviceId, password)
      const outcome = await store.mintSecret({ hash, fleet, deviceId, groups, expiresAt, at: at(), audit })
      if (outcome.kind === 'groups_full') throw new EstServerError('manifest_invalid', 'the fleet has no room for another group')
      if (outcome.kind === 'not_in_group')
        throw new EstServerError('group_not_joined', `device ${deviceId} is known already, and not in group ${outcome.group}`)
      return { user: deviceId, password, expiresAt }
    },

    liftSuspicion({ deviceId, by, reason }) {
      const audit = {
        at: at(),
        kind: 'suspicion_lifted',
        requestId: '',
        fleet,
        device: deviceId,
        by,
        code: '',
        detail: reason,
      } as const
      return store.setSuspicion(fleet, deviceId, false, audit)
    },

    device: id => store.device(fleet, id),
    devices: query => store.devices({ ...query, fleet }),
    groups: () => store.groups(fleet),
    isClosed: gids => store.isClosed(fleet, gids),
  }
}
