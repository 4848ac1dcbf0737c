// How much one key alone may take back: a number of devices, a share of the fleet, or both, whichever is reached first.

import type { GroupRecord, NoticeInput } from '@birthmark/est-server'
import { z } from 'zod'

/** `devices`: at most as many. `share`: of the devices that are known, 0 to 1. */
export interface CountersignAbove {
  devices: number | null
  share: number | null
}

const Devices = z.int().min(0)
const Share = z
  .string()
  .regex(/^(\d{1,2}(\.\d{1,4})?|100)%$/, { error: 'a share is written as 5%' })
  .transform(text => Number(text.slice(0, -1)) / 100)

/** `1000`, `5%`, or both by name. */
export const CountersignInput = z
  .union(
    [
      Devices.transform(devices => ({ devices })),
      Share.transform(share => ({ share })),
      z.strictObject({ devices: Devices.optional(), share: Share.optional() }),
    ],
    { error: 'a number of devices, a share such as 5%, or {devices: …, share: …}' },
  )
  .transform(
    (given: { devices?: number | undefined; share?: number | undefined }): CountersignAbove => ({
      devices: given.devices ?? null,
      share: given.share ?? null,
    }),
  )

/** Whether taking back `devices` takes two keys. `known`: how many there are; asked only where a share is configured. */
export async function takesTwoKeys(
  above: CountersignAbove | null,
  devices: number,
  known: () => Promise<number>,
): Promise<boolean> {
  if (above === null || devices === 0) return false
  if (above.devices !== null && devices > above.devices) return true
  return above.share !== null && devices > above.share * (await known())
}

/** How many devices a notice names in all, to somebody who has heard nothing before. */
export async function namedBy({ devices, rules, floor }: NoticeInput, groups: () => Promise<GroupRecord[]>): Promise<number> {
  const gids = new Set(rules.flatMap(rule => (rule.kind === 'group' ? [rule.gid] : [])))
  const members = gids.size === 0 ? [] : (await groups()).filter(({ gid }) => gids.has(gid))
  const single = rules.some(({ kind }) => kind !== 'group') ? devices : 0
  return members.reduce((sum, group) => sum + group.devices, 0) + single + floor
}
