// What an operator can take back besides a group: devices by id, certificates by idx, a range of them, all below one, all of an issuer; and letting
// a device in again. The same order as for a group: the reason on record, then recorded and signed, denied, cut, told.

import type { Revocation, SetRevocation, Store } from '@birthmark/est-server'
import { z } from 'zod'
import { CommandError } from './command-error.ts'

const Idx = z.int().min(1).max(0x7fffffff)
/** As many ids as fit into one request to the socket; who means more means a group or a campaign. */
const namedMax = 500

export const SingleRevocationInput = z.strictObject({
  what: z.discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('devices'), devices: z.array(z.string().min(1).max(64)).min(1).max(namedMax) }),
    z.strictObject({ kind: z.literal('indices'), indices: z.array(Idx).min(1).max(namedMax) }),
    z.strictObject({ kind: z.literal('range'), from: Idx, to: Idx }),
    z.strictObject({ kind: z.literal('below'), idx: Idx }),
    z.strictObject({ kind: z.literal('issuer'), issuer: z.string().regex(/^([0-9a-f]{2}){1,64}$/) }),
  ]),
  reason: z.string().min(1).max(200),
  /** Only says what would be done. */
  rehearse: z.boolean(),
})
export type SingleRevocationRequest = z.infer<typeof SingleRevocationInput>

export interface SingleRevocationReceipt {
  /** Devices that were named and are known; null where certificates were named. */
  devices: number | null
  /** Ids that the fleet does not know. */
  unknown: string[]
  /** Certificates that are or would be revoked; null in a rehearsal about an issuer. */
  certificates: number | null
  /** All of it was revoked before. */
  again: boolean
  /** Absent in a rehearsal. */
  done?: { seq: number; notices: number; noticeBytes: number; sessionsCut: number | null; connectionsClosed: number }
}

export interface SingleRevocationParts {
  store: Store
  fleet: string
  revocation: Revocation
  by: string
  now(): number
  /** Refuses what one person may not take back at once. `named`: for the message. */
  requireFew(devices: number, named: string, instead: string): Promise<void>
  /** Denies, cuts, and has the publisher tell. */
  enact(): Promise<{ sessionsCut: number | null; connectionsClosed: number }>
}

export function singleRevocations(parts: SingleRevocationParts) {
  const { store, fleet, revocation, by } = parts

  async function rehearsed({ what }: SingleRevocationRequest): Promise<SingleRevocationReceipt> {
    const { idxNext } = await store.draftSet(fleet, 0)
    const plain = { devices: null, unknown: [], again: false }
    switch (what.kind) {
      case 'devices': {
        const found = await store.revocableDevices(fleet, what.devices, Math.floor(parts.now()))
        const known = new Set(found.map(({ id }) => id))
        const certificates = found.reduce((sum, { indices }) => sum + indices.length, 0)
        return { ...plain, devices: known.size, unknown: what.devices.filter(id => !known.has(id)), certificates }
      }
      case 'indices':
        return { ...plain, certificates: what.indices.filter(idx => idx < idxNext).length }
      case 'range':
        return { ...plain, certificates: Math.max(0, Math.min(what.to + 1, idxNext) - what.from) }
      case 'below':
        return { ...plain, certificates: Math.min(what.idx, idxNext) - 1 }
      case 'issuer':
        return { ...plain, certificates: null }
    }
  }

  function carriedOut({ what }: SingleRevocationRequest): Promise<SetRevocation> {
    switch (what.kind) {
      case 'devices':
        return revocation.revokeDevices({ devices: what.devices, by })
      case 'indices':
        return revocation.revokeDevices({ indices: what.indices, by })
      case 'range':
        return revocation.revokeRange({ start: what.from, length: what.to - what.from + 1, by })
      case 'below':
        return revocation.raiseFloor({ floor: what.idx, by })
      case 'issuer':
        return revocation.revokeIssuer({ issuer: new Uint8Array(Buffer.from(what.issuer, 'hex')), by })
    }
  }

  return {
    async revokeSingle(request: SingleRevocationRequest): Promise<SingleRevocationReceipt> {
      const { what, reason } = request
      if (what.kind === 'range' && what.to < what.from)
        throw new CommandError('range_empty', `no idx from ${what.from} to ${what.to}`, 'name the lower one first', 'usage')
      const rehearsal = await rehearsed(request)
      if (request.rehearse) return rehearsal
      // An issuer that signs no more is exempt: what is left of it is revoked in an emergency, and no campaign says that.
      if (rehearsal.certificates !== null)
        await parts.requireFew(rehearsal.certificates, `these ${rehearsal.certificates} certificates`, "--select '…'")
      // On record before the effect; a crash in between leaves a reason without a revocation, never the reverse.
      const at = Math.floor(parts.now())
      const detail = `${what.kind} ${'devices' in what ? what.devices.join(' ').slice(0, 400) : ''}: ${reason}`
      await store.appendAudit({
        ...{ at, kind: 'certificates_revoked', requestId: '', fleet, device: '', by, code: 'requested', detail },
      })
      const { seq, notices, certificates, devices, unknown, again } = await carriedOut(request)
      const enacted = await parts.enact()
      const noticeBytes = notices.reduce((sum, { length }) => sum + length, 0)
      return {
        ...{ devices: what.kind === 'devices' ? devices : null, unknown, certificates, again },
        done: { seq, notices: notices.length, noticeBytes, ...enacted },
      }
    },

    async readmitDevice({ device, reason }: { device: string; reason: string }): Promise<{ device: string }> {
      if (await revocation.readmitDevice({ device, by, reason })) return { device }
      throw new CommandError(
        'not_revoked',
        `nothing is held against '${device}' that could be lifted: it is unknown, or not revoked by itself`,
        `see how it stands: birthmark devices --id ${device}`,
        'refused',
      )
    },
  }
}

export type SingleRevocations = ReturnType<typeof singleRevocations>
