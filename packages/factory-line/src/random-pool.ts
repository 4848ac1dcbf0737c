// Octets of the CSPRNG, asked for by the page: a call for ten of them costs as much as one for four thousand. For numbers that will be public,
// such as certificate serials: what lies ahead in the page is in this process's memory before it is used.

import { randomFillSync } from 'node:crypto'
import type { Bytes } from '@birthmark/device-sdk/core'

const pageBytes = 4096

/** Each octet is given once. What is asked for at once has at most a page. */
export function pooledRandom(): (length: number) => Bytes {
  let page = new Uint8Array(pageBytes)
  let used = pageBytes
  return length => {
    if (used + length > pageBytes) {
      // A page of its own: what was given of the last one belongs to whoever holds it.
      page = randomFillSync(new Uint8Array(pageBytes))
      used = 0
    }
    used += length
    return page.subarray(used - length, used)
  }
}
