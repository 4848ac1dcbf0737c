// What certificates are to their fleets, remembered by issuer and serial: one line of a processor's cache for each, where a map of objects touches
// five, none of them warm after a signature. Promises: what is found is what was put in under just this issuer and serial; it never grows. What a
// full bucket forgets is looked up again.

import type { Bytes } from '@birthmark/device-sdk/core'

/** A fleet and the groups in it that certificates share. */
export interface Place {
  fleet: string
  gids: number[]
}

export interface StandingTable {
  /** The entry of a serial, its content octets from `from` to `to`; -1 for none. Holds until the next `set`. */
  find(issuer: number, bytes: Bytes, from: number, to: number): number
  idx(entry: number): number
  place(entry: number): Place
  set(issuer: number, bytes: Bytes, from: number, to: number, standing: Place & { idx: number }): void
}

/** Five words of serial, one of issuer and length, the index, the place: 32 octets. */
const words = 8
const serialOctetsMax = 20
/** Entries that one hash may have: two lines of cache. */
const ways = 4
/** Sets of groups in use at a time. With more the table starts afresh, so that what is gone from the fleet goes from here. */
const placesMax = 4096

/** `most`: entries, a power of two of at least four. `issuer` is the caller's number for one, below 2^24. */
export function standingTable(most: number): StandingTable {
  const entries = new Int32Array(most * words)
  const places: Place[] = []
  const placeOf = new Map<string, number>()
  const wanted = new Int32Array(words)
  let turn = 0

  /** The serial as words, and the word of issuer and length: never 0, so that an empty entry is nobody's. */
  function want(issuer: number, bytes: Bytes, from: number, to: number): boolean {
    const octets = to - from
    if (octets === 0 || octets > serialOctetsMax) return false
    const octet = (at: number) => (at < to ? bytes[at] : 0)
    for (let word = 0, at = from; word < 5; word++, at += 4)
      wanted[word] = (octet(at) << 24) | (octet(at + 1) << 16) | (octet(at + 2) << 8) | octet(at + 3)
    wanted[5] = (issuer << 8) | octets
    return true
  }

  /** A serial that we made has 64 random bits at least. Nobody else's is ever put in, so nobody can choose what falls together. */
  function bucket(): number {
    let hash = wanted[5]
    for (let word = 0; word < 5; word++) hash = Math.imul(hash ^ wanted[word], 0x9e3779b1) ^ (hash >>> 15)
    return ((hash ^ (hash >>> 16)) & (most / ways - 1)) * ways * words
  }

  const isWanted = (entry: number) =>
    entries[entry + 3] === wanted[3] &&
    entries[entry + 2] === wanted[2] &&
    entries[entry + 1] === wanted[1] &&
    entries[entry] === wanted[0] &&
    entries[entry + 4] === wanted[4] &&
    entries[entry + 5] === wanted[5]

  function found(): number {
    const first = bucket()
    for (let way = 0; way < ways; way++) if (isWanted(first + way * words)) return first + way * words
    return -1
  }

  function placeNumber({ fleet, gids }: Place): number {
    const name = `${fleet} ${gids.join()}`
    let number = placeOf.get(name)
    if (number === undefined) {
      if (places.length === placesMax) {
        entries.fill(0)
        places.length = 0
        placeOf.clear()
      }
      number = places.push({ fleet, gids }) - 1
      placeOf.set(name, number)
    }
    return number
  }

  /** An empty entry of the bucket, or in turn one that is forgotten. */
  function vacant(): number {
    const first = bucket()
    for (let way = 0; way < ways; way++) if (entries[first + way * words + 5] === 0) return first + way * words
    turn = (turn + 1) & (ways - 1)
    return first + turn * words
  }

  return {
    find: (issuer, bytes, from, to) => (want(issuer, bytes, from, to) ? found() : -1),
    idx: entry => entries[entry + 6],
    place: entry => places[entries[entry + 7]],
    set(issuer, bytes, from, to, standing) {
      if (!want(issuer, bytes, from, to)) return
      const place = placeNumber(standing)
      const known = found()
      const entry = known < 0 ? vacant() : known
      for (let word = 0; word < 6; word++) entries[entry + word] = wanted[word]
      entries[entry + 6] = standing.idx
      entries[entry + 7] = place
    },
  }
}
