// SCEP challenges minted in bulk: a row of a provisioning run in, a token out. The store gets hashes alone.

import { EstServerError } from '../errors.ts'
import type { Clock, RandomBytes } from '../ports.ts'
import { challengeBytes, challengeHash, challengeText } from '../registrar/challenge.ts'
import { isDeviceId, isGroupName } from '../registrar/profile.ts'
import { groupsPerDeviceMax, type Store } from '../store/store.ts'

/** A challenge is printed on a work order and typed into a router: a season of installations. */
export const challengeSecondsMax = 92 * 86_400
/** Rows of one call; a run of more comes in several. */
export const challengesMax = 1000

export interface ChallengeRow {
  deviceId: string
  /** Of a device that is not known yet. */
  groups?: string[]
}

export interface MintedChallenge {
  deviceId: string
  challenge: string
  expiresAt: number
}

export interface Challenges {
  /**
   * One challenge a row, each for one enrollment of one device under one profile, shown now and never again. Rows that cannot have one are
   * reported, the others stand. Throws `manifest_invalid` for what no row can be.
   */
  mint(request: {
    label: string | null
    rows: ChallengeRow[]
    lifetimeSeconds: number
    by: string
  }): Promise<{ minted: MintedChallenge[]; refused: { deviceId: string; reason: string }[] }>
}

export function createChallenges({
  store,
  fleet,
  clock,
  random,
}: {
  store: Pick<Store, 'mintSecret'>
  fleet: string
  clock: Clock
  random: RandomBytes
}): Challenges {
  return {
    async mint({ label, rows, lifetimeSeconds, by }) {
      if (rows.length > challengesMax) throw new EstServerError('manifest_invalid', `more than ${challengesMax} rows at once`)
      if (!(lifetimeSeconds >= 60 && lifetimeSeconds <= challengeSecondsMax))
        throw new EstServerError('manifest_invalid', 'a challenge lives a minute to 92 days')
      const at = Math.floor(clock.now())
      const expiresAt = at + Math.floor(lifetimeSeconds)
      const minted: MintedChallenge[] = []
      const refused: { deviceId: string; reason: string }[] = []
      const mintOne = async ({ deviceId, groups = [] }: ChallengeRow): Promise<void> => {
        const refuse = (reason: string) => void refused.push({ deviceId: deviceId.slice(0, 64), reason })
        if (!isDeviceId(deviceId)) return refuse('the device is not 1 to 64 of A-Z a-z 0-9 . _ : -')
        if (groups.length > groupsPerDeviceMax || !groups.every(isGroupName))
          return refuse(`groups are not at most ${groupsPerDeviceMax} names of printable ASCII without spaces`)
        const challenge = challengeText(random(challengeBytes))
        const hash = challengeHash(fleet, label, challenge)
        if (hash === null) return refuse('no challenge could be made')
        const audit = { at, kind: 'secret_minted', requestId: '', fleet, device: deviceId, by, code: '' } as const
        const detail = `SCEP challenge${label === null ? '' : ` for profile ${label}`}, until ${new Date(expiresAt * 1000).toISOString()}`
        const outcome = await store.mintSecret({ hash, fleet, deviceId, groups, expiresAt, at, audit: { ...audit, detail } })
        if (outcome.kind === 'minted') minted.push({ deviceId, challenge, expiresAt })
        else
          refuse(
            outcome.kind === 'groups_full' ? 'the fleet has no room for another group' : `the device is not in ${outcome.group}`,
          )
      }
      // Together, so that the store commits them together.
      await Promise.all(rows.map(mintOne))
      const order = new Map(rows.map(({ deviceId }, i) => [deviceId, i]))
      minted.sort((a, b) => (order.get(a.deviceId) ?? 0) - (order.get(b.deviceId) ?? 0))
      return { minted, refused }
    },
  }
}
