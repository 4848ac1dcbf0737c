// The users of a nats-server node (2.9 and later) that admits MQTT clients by certificate: a file that its configuration includes, with the
// devices and services that may be there and the topics of each. Who is revoked loses its topics and then its place in the file; the node reads
// it again at a SIGHUP, ends the connections of whoever is missing, and refuses them from then on. Neighbours keep theirs.

import type { Bytes, Membership } from '@birthmark/device-sdk/core'
import type { CertificateStatus } from '../enforcement/device-peer.ts'
import { RevocationError } from '../errors.ts'
import type { Clock, Log } from '../ports.ts'
import { repeat } from '../repeat.ts'
import { accessOf } from './access.ts'
import { createBrokerFile } from './broker-file.ts'
import { deviceIdForm, type Peer, type ServiceRole } from './peer.ts'

/** A device with its newest certificate. */
export interface NatsDevice {
  id: string
  membership: Membership
  issuerKeyId: Bytes | null
}

export interface NatsUsersOptions {
  /** The file of one node, which includes it in an account: `accounts { fleet { jetstream: enabled, include "users.conf" } }`. */
  path: string
  fleet: string
  /** Every device that has a certificate. */
  devices(): Promise<NatsDevice[]> | NatsDevice[]
  status: CertificateStatus
  /** Service certificates by common name, which holds an `@` so that no device can have it. */
  services?: { [commonName: string]: ServiceRole }
  /** Makes the node read its configuration again: `signalReload` for one on this machine. */
  reload(): Promise<void> | void
  /** From the end of one look to the next without being asked; a look that took somebody off lasts as long as enforce() says. So late at most a new device is admitted, and a node told that could not be. */
  everySeconds?: number
  clock: Clock
  log: Log
}

export interface NatsUsers {
  /**
   * Brings the file up to date and tells the node, at once whatever another call waits for; hand it to the relying party. Resolves when whoever has to go
   * is off the file: that takes the quarter of a second for every thousand users that the node is given to read it. Rejects as the file can't be written
   * or the node not be told. `cut`: those that no earlier call has counted.
   */
  enforce(): Promise<{ cut: number }>
  close(): void
}

/** A level of a topic is a token of a subject there, so a dot can't be in one. */
const subjectOf = (topic: string): string => topic.replaceAll('/', '.').replaceAll('+', '*').replaceAll('#', '>')

/** `a/#` covers `a` as well (MQTT 4.7.1.2), and the node asks for both. */
const heardAs = (topic: string): string[] =>
  topic.endsWith('/#') ? [subjectOf(topic.slice(0, -2)), subjectOf(topic)] : [subjectOf(topic)]

/** Where a node delivers what it keeps at QoS 1: it subscribes there in the client's name, and lets no client do so itself. */
const deliveries = '$MQTT.sub.>'

/** One line. By certificate alone: the same name at the node's own protocol would need no password. */
const userLine = (subject: string, permissions: object): string =>
  JSON.stringify({ user: subject, allowed_connection_types: ['MQTT'], permissions })

function lineOf(subject: string, peer: Peer, fleet: string): string {
  const { write, read } = accessOf(peer, fleet)
  return userLine(subject, {
    publish: { allow: write.map(subjectOf) },
    subscribe: { allow: [...read.flatMap(heardAs), deliveries] },
  })
}

/**
 * Of one who has to go: it may do nothing any more, and neither may its Will, which the node publishes when it ends the connection. It goes so
 * many seconds later: ten times what a node needs to read a file of so many users, 25 µs of CPU each.
 */
const mutedLine = (subject: string): string => userLine(subject, { publish: { deny: '>' }, subscribe: { deny: '>' } })
const mutedSeconds = (users: number): number => 0.5 + users * 0.000_25

/** One who has to go. */
interface Leaving {
  /** Resolves when the node has had its time to read that it is muted; null until it was told. */
  read: Promise<void> | null
  /** It has resolved. */
  over: boolean
  counted: boolean
}

/** Resolves when the file is there, which a node wants before it starts; one that does not run yet is told nothing. */
export async function createNatsUsers(options: NatsUsersOptions): Promise<NatsUsers> {
  const { path, fleet, status, services = {}, everySeconds = 30, clock, log } = options
  let listed = 0
  /** By subject: muted in the file that stands, or is being written. */
  let leaving = new Map<string, Leaving>()

  async function content(standing: string): Promise<string> {
    const before = new Set(standing.split('\n'))
    const lines = Object.entries(services).map(([name, role]) =>
      lineOf(`CN=${name}`, { kind: 'service', id: name, role, notAfter: Number.POSITIVE_INFINITY }, fleet),
    )
    const still = new Map<string, Leaving>()
    for (const { id, membership, issuerKeyId } of await options.devices()) {
      if (!deviceIdForm.test(id) || id.includes('.') || membership.fleet !== fleet) continue
      const subject = `SERIALNUMBER=${id},CN=${id}`
      const line = lineOf(subject, { kind: 'device', id, membership, issuerKeyId, notAfter: Number.POSITIVE_INFINITY }, fleet)
      const verdict = status(membership, issuerKeyId)
      // Unknown: nothing proves that no revocation was missed. Nobody new comes in, and who is in stays.
      if (verdict === 'good' || (verdict === 'unknown' && before.has(line))) {
        lines.push(line)
        continue
      }
      const muted = mutedLine(subject)
      if (!before.has(line) && !before.has(muted)) continue
      // Muted by nobody here: by a process that ended before it was done, and the node may not have read it.
      const one = leaving.get(subject) ?? { read: null, over: false, counted: false }
      still.set(subject, one)
      if (!one.over) lines.push(muted)
    }
    leaving = still
    listed = lines.length
    return ['users: [', ...lines, ']', ''].join('\n')
  }

  /** From here on the node is given its time for those that it had not been told of. */
  async function tell(): Promise<void> {
    const untold = [...leaving.values()].filter(({ read }) => read === null)
    await options.reload()
    if (untold.length === 0) return
    const read = new Promise<void>(resolve => {
      clock.setTimer(mutedSeconds(listed), () => {
        for (const one of untold) one.over = true
        resolve()
      })
    })
    for (const one of untold) one.read = read
  }

  const file = await createBrokerFile({ path, mode: 0o600, content, reload: tell })

  // Each writing is of what is so by then, and one comes after the other: no denial is lost, and none is written over by an older file.
  async function enforce(): Promise<{ cut: number }> {
    await file.refresh()
    const muted = [...leaving.values()].filter(({ read }) => read !== null)
    const cut = muted.filter(({ counted }) => !counted).length
    if (muted.length === 0) return { cut }
    for (const one of muted) one.counted = true
    await Promise.all(muted.map(({ read }) => read))
    await file.refresh()
    if (cut > 0) log.info({ cut, path }, 'revoked devices taken off a node’s users')
    return { cut }
  }

  await enforce().catch((error: unknown) => {
    if (!(error instanceof RevocationError && error.code === 'enforcement_refused')) throw error
    log.warn({ path }, 'the node does not run yet, or may not be signalled')
  })
  const close = repeat(clock, everySeconds, enforce, error => log.error({ err: error, path }, 'a node’s users are not up to date'))
  return { enforce, close }
}
