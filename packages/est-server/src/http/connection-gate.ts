// Who may hold a socket, and for how long. Decides before TLS spends anything on a newcomer, and keeps one deadline per connection.
// Every phase has one duration, so that a phase's set in order of entry is in order of deadline: expiring, and finding the connection
// that has waited longest, look at the heads of the sets only. Knows nothing of TLS or HTTP; the clock is passed in.

import type { Peer } from '../enrollment-request.ts'
import { shareOf } from '../process-share.ts'
import type { Limits } from './limits.ts'
import { type ConnectionRefusal, type HttpObserver, nobody } from './observer.ts'

/** `head`: ready for a request, none complete. `body`: a request is arriving. `answer`: ours is the next move. */
export type Phase = 'handshake' | 'head' | 'body' | 'answer'

export interface Connection {
  /** Address group it is counted under. */
  readonly address: string
  phase: Phase | 'closed'
  /** When it entered the phase, in the clock's seconds. */
  since: number
  /** Set once TLS stands. */
  peer: Peer | null
  requests: number
  /** Takes the socket away at once. */
  readonly destroy: () => void
  /** What happens at a deadline where something better than `destroy` can be done: a body that came too slowly gets an answer. */
  expire: (() => void) | null
}

export interface ConnectionGate {
  /** The newcomer's record in phase `handshake`, or null: destroy the socket. */
  admit(remoteAddress: string, destroy: () => void): Connection | null
  enter(connection: Connection, phase: Phase): void
  /** Counts work that a connection caused as so many connections more of its address. */
  charge(connection: Connection, connections: number): void
  leave(connection: Connection): void
  /** Ends what is past its deadline. Call a few times a second. */
  sweep(): void
  connections(): Iterable<Connection>
  readonly size: number
}

interface AddressAccount {
  open: number
  /** Theoretical arrival time of GCRA: the bucket is full when this is in the past. */
  arrival: number
}

/** Addresses remembered at once, about 150 bytes each. Beyond it the oldest without a socket is forgotten, which only refills its bucket. */
const accountsMax = 65_536

/**
 * The group an address is counted under: IPv4 as it is (also when mapped into IPv6), IPv6 by its /64, because one host commands
 * all of it (RFC 6177).
 */
export function addressGroup(address: string): string {
  const mapped = address.lastIndexOf(':')
  if (address.includes('.')) return address.slice(mapped + 1)
  if (mapped < 0) return address
  const [head, tail] = address.split('%')[0].split('::')
  const groups = head === '' ? [] : head.split(':')
  if (tail !== undefined) {
    const after = tail === '' ? 0 : tail.split(':').length
    for (let i = groups.length + after; i < 8; i++) groups.push('0')
  }
  return groups.slice(0, 4).join(':') + '::/64'
}

/** A share that a plant behind one address is dealt by chance, and what it opens at once. */
const perAddressLeast = 16

/** `now`: seconds of a clock that never goes back. */
export function createConnectionGate(
  limits: Limits,
  now: () => number,
  observer: Pick<HttpObserver, 'connectionRefused' | 'connectionCut'> = nobody,
): ConnectionGate {
  const phases: Record<Phase, Set<Connection>> = { handshake: new Set(), head: new Set(), body: new Set(), answer: new Set() }
  const seconds: Record<Phase, number> = {
    handshake: limits.handshakeSeconds,
    head: limits.headSeconds,
    body: limits.bodySeconds,
    answer: limits.answerSeconds,
  }
  const accounts = new Map<string, AddressAccount>()
  const { processes } = limits
  const interval = processes / limits.connectionsPerSecondPerAddress
  const burst = shareOf(limits.connectionBurstPerAddress, processes, perAddressLeast)
  const perAddressMax = shareOf(limits.connectionsPerAddressMax, processes, perAddressLeast)
  let size = 0

  function accountOf(address: string, at: number): AddressAccount {
    const known = accounts.get(address)
    if (known) return known
    if (accounts.size >= accountsMax) {
      // A few looks are enough: an address with a socket is one of at most connectionsMax.
      let looks = 16
      for (const [name, account] of accounts) {
        if (account.open === 0) accounts.delete(name)
        if (--looks === 0) break
      }
    }
    const fresh = { open: 0, arrival: at }
    accounts.set(address, fresh)
    return fresh
  }

  function leave(connection: Connection): void {
    if (connection.phase === 'closed') return
    phases[connection.phase].delete(connection)
    connection.phase = 'closed'
    size--
    const account = accounts.get(connection.address)
    if (account && --account.open === 0 && account.arrival <= now()) accounts.delete(connection.address)
  }

  /** The connection that has waited longest for its client's next move, of those that are owed nothing. */
  function longestWaiting(): Connection | null {
    let longest: Connection | null = null
    // A body that is still arriving is owed nothing either: anybody can announce one and never send it.
    for (const phase of ['handshake', 'head', 'body'] as const) {
      const [first] = phases[phase]
      if (first && (longest === null || first.since < longest.since)) longest = first
    }
    return longest
  }

  function refuse(reason: ConnectionRefusal): null {
    observer.connectionRefused(reason)
    return null
  }

  function remove(connection: Connection): void {
    leave(connection)
    connection.destroy()
  }

  return {
    admit(remoteAddress, destroy) {
      const at = now()
      const address = addressGroup(remoteAddress)
      const account = accountOf(address, at)
      if (account.open >= perAddressMax) return refuse('address_full')
      const arrival = Math.max(account.arrival, at) + interval
      if (arrival - at > burst * interval) return refuse('address_rate')
      if (size >= limits.connectionsMax) {
        const victim = longestWaiting()
        if (!victim) return refuse('table_full')
        observer.connectionCut('pushed_out')
        remove(victim)
      }
      account.arrival = arrival
      account.open++
      size++
      // The account may have been dropped with the victim, when both are of one address.
      accounts.set(address, account)
      const connection: Connection = { address, phase: 'handshake', since: at, peer: null, requests: 0, destroy, expire: null }
      phases.handshake.add(connection)
      return connection
    },

    enter(connection, phase) {
      if (connection.phase === 'closed') return
      phases[connection.phase].delete(connection)
      connection.phase = phase
      connection.since = now()
      phases[phase].add(connection)
    },

    charge(connection, connections) {
      const account = accounts.get(connection.address)
      if (account) account.arrival = Math.max(account.arrival, now()) + connections * interval
    },

    leave,

    sweep() {
      const at = now()
      for (const phase of ['handshake', 'head', 'body', 'answer'] as const) {
        for (const connection of phases[phase]) {
          if (at - connection.since < seconds[phase]) break
          observer.connectionCut(phase)
          const expire = connection.expire
          if (expire) {
            // One more turn in the phase is all that an orderly end gets.
            connection.expire = null
            connection.since = at
            phases[phase].delete(connection)
            phases[phase].add(connection)
            expire()
          } else remove(connection)
        }
      }
    },

    *connections() {
      for (const phase of ['handshake', 'head', 'body', 'answer'] as const) yield* phases[phase]
    },

    get size() {
      return size
    },
  }
}
