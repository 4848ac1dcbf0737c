import {
  attributesOf,
  type Bytes,
  COMMON_NAME,
  encodeName,
  ORGANIZATION,
  readWhole,
  SEQUENCE,
  SERIAL_NUMBER,
} from '@birthmark/device-sdk/core'
import { expect, it } from 'vitest'
import type { ProvenCsr } from './possession.ts'
import { contentRefusal } from './requested-content.ts'

const entitlement = (deviceId: string) => ({
  ...{ deviceId, names: { subject: null, alternativeNames: [] }, purposes: [], subject: null, renewal: false, lenientNames: false },
})
const judged = (subject: Bytes, deviceId: string) =>
  contentRefusal({ csr: { subject }, extensions: [] } as object as ProvenCsr, entitlement(deviceId))?.code ?? null

/** By the parser's reading of the name; undefined for what it does not read, which no ProvenCsr holds. */
function expected(subject: Bytes, deviceId: string): string | null | undefined {
  try {
    const own = ({ oid, text }: { oid: string; text: string }) =>
      (oid === COMMON_NAME || oid === SERIAL_NUMBER) && text === deviceId
    return attributesOf(readWhole(subject, SEQUENCE)).every(own) ? null : 'subject_not_own'
  } catch {
    return undefined
  }
}

const name = (...attributes: [string, string][]) => encodeName(attributes.map(([oid, value]) => ({ oid, value })))

it.each(['m', 'SN-0001', 'a_b', 'x'.repeat(53), 'y'.repeat(64)])('device %s may ask for its own name and no other', id => {
  const names = [
    name(),
    name([COMMON_NAME, id]),
    name([SERIAL_NUMBER, id]),
    name([COMMON_NAME, id], [SERIAL_NUMBER, id]),
    name([SERIAL_NUMBER, id], [COMMON_NAME, id], [COMMON_NAME, id]),
    name([COMMON_NAME, id], [ORGANIZATION, id]),
    name([COMMON_NAME, id.slice(1) + 'z'], [COMMON_NAME, id]),
    name([COMMON_NAME, id + id]),
  ]
  for (const subject of names) {
    expect(judged(subject, id)).toBe(expected(subject, id))
    // Every octet with each of its bits turned and by one up and down, as far as it is still a name.
    for (let at = 0; at < subject.length; at++) {
      const changed = subject.slice()
      for (const value of [1, 2, 4, 8, 16, 32, 64, 128].map(bit => subject[at] ^ bit).concat(subject[at] + 1, subject[at] - 1)) {
        changed[at] = value
        const verdict = expected(changed, id)
        if (verdict !== undefined) expect(judged(changed, id)).toBe(verdict)
      }
    }
  }
})
