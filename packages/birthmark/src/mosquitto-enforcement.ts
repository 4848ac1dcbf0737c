// A mosquitto elsewhere, kept in line with what this server's store says: every device that got a certificate is known to its plugin, whoever is denied
// is cut and kept out, and its TLS layer has the newest revocation lists. The broker may be away: what could not be done is done when it is back, and
// all of it again after each of its restarts, since its files may be older than our word.

import { type Bytes, decodePem, encodePem, type Membership } from '@birthmark/device-sdk/core'
import type { IssuanceRow, Log, Store } from '@birthmark/est-server'
import type { Clock, RuleSet, Status } from '@birthmark/fleet-revocation'
import {
  type Admission,
  type CrlFile,
  connectMqttBus,
  createCrlFile,
  createMosquittoEnforcer,
  type MosquittoEnforcer,
  type MqttBus,
  signalReload,
} from '@birthmark/fleet-revocation/broker'
import { createIssuanceFeed } from './issuance-feed.ts'
import type { MosquittoSettings } from './mosquitto-settings.ts'

export interface MosquittoEnforcementParts {
  url: string
  /** PEM. */
  anchors: string
  /** The publisher's connection, for a broker that takes commands from it. */
  bus: MqttBus
  store: Pick<Store, 'issuances'>
  fleet: string
  rules: RuleSet
  status(membership: Membership, issuerKeyId: Bytes | null): Status
  /** DER of the revocation lists; null where there are none. */
  lists: (() => Promise<Bytes[]>) | null
  /** No other server writes to the store. */
  alone: boolean
  clock: Clock
  log: Log
}

export interface MosquittoEnforcement {
  /** Resolves when the broker does what rules and status say, or is known not to for now. Never rejects. */
  enforce(): Promise<void>
  /** Why the broker is not in line, or null. */
  problem(): string | null
  close(): Promise<void>
}

const lookSeconds = 1
/** A connection takes a moment; until then nobody is told that there is none. */
const connectSeconds = 3
const retrySecondsMax = 60
/** A revocation waits so long for a broker that is silent. */
const answerSeconds = 5

export function openMosquittoEnforcement(settings: MosquittoSettings, parts: MosquittoEnforcementParts): MosquittoEnforcement {
  const { fleet, rules, status, clock, log } = parts
  const { own } = settings
  const ca = decodePem(parts.anchors, 'CERTIFICATE', 16).map(der => encodePem('CERTIFICATE', der))
  const bus = own
    ? connectMqttBus({
        url: parts.url,
        clientId: `birthmark-${fleet}-enforcer`,
        tls: { ca, cert: own.certificate, key: own.key },
        log,
      })
    : parts.bus
  const commands = answeredOnce(bus)
  const feed = createIssuanceFeed({ store: parts.store, fleet, alone: parts.alone, now: clock.now })
  const lists = parts.lists && settings.crl ? createLists(settings.crl, parts.lists, { clock, log }) : null
  const opened = clock.now()
  let enforcer: MosquittoEnforcer | null = null
  /** Something was denied that the broker was not told of. */
  let behind = false
  let problem: string | null = 'not connected yet'
  let pause = lookSeconds
  let closed = false
  let cancel = () => {}
  let working: Promise<void> | null = null

  function admissionsOf(issued: IssuanceRow[]): Admission[] {
    const newest = new Map<string, Admission>()
    for (const { deviceId, idx, gids, issuer, notAfter } of issued) {
      const known = enforcer?.admitted(deviceId)
      // What has ended can't connect; and the broker's own file remembers the others.
      if (notAfter <= clock.now() || (known?.issuerKeyId && known.membership.idx >= idx)) continue
      newest.set(deviceId, { deviceId, membership: { fleet, idx, gids }, issuerKeyId: issuer })
    }
    return [...newest.values()]
  }

  /** False: too early to say. */
  async function bringInLine(): Promise<boolean> {
    if (!bus.connected()) {
      if (clock.now() < opened + connectSeconds) return false
      throw new Error('the broker is not connected')
    }
    if (enforcer === null) {
      feed.rewind()
      behind = false
      const made = await createMosquittoEnforcer({ bus: commands, fleet, rules, status, clock, log, answerSeconds })
      if (closed) {
        made.close()
        return false
      }
      enforcer = made
    }
    const current: MosquittoEnforcer = enforcer
    if (behind) {
      behind = false
      await current.enforce()
    }
    const take = async (issued: IssuanceRow[]): Promise<void> => {
      const admissions = admissionsOf(issued)
      if (admissions.length > 0) await current.admitAll(admissions)
    }
    while (!closed && enforcer === current && (await feed.next(take)));
    return true
  }

  /** Said once a change: a broker that stays away says nothing new. */
  function found(now: string | null): void {
    if (now !== problem && !closed) {
      if (now !== null) log.warn({ problem: now }, 'the broker is not in line with this server')
      else log.info({}, 'the broker is in line with this server')
    }
    problem = now
    pause = now === null ? lookSeconds : Math.min(pause * 2, retrySecondsMax)
  }

  /** What is under way, or else from the start: connection, plugin, devices, lists. */
  function look(): Promise<void> {
    working ??= (async () => {
      const tried = await Promise.allSettled([bringInLine(), lists?.look()])
      const failed = tried.find(one => one.status === 'rejected')
      if (tried[0].status === 'rejected') behind = true
      if (failed) found(failed.reason instanceof Error ? failed.reason.message : String(failed.reason))
      else if (tried[0].status === 'fulfilled' && tried[0].value) found(null)
    })().finally(() => {
      working = null
    })
    return working
  }

  function lookLater(): void {
    cancel()
    if (closed) return
    cancel = clock.setTimer(pause, () => void look().finally(lookLater))
  }

  bus.onConnect(() => {
    // Another broker may answer under the name now, or the same one with files of yesterday.
    enforcer?.close()
    enforcer = null
    pause = lookSeconds
    void look().finally(lookLater)
  })
  void look().finally(lookLater)

  return {
    async enforce() {
      const current = enforcer
      behind = true
      const cut = async (): Promise<void> => {
        if (current === null) return
        await current.enforce()
        behind = false
      }
      const done = await Promise.allSettled([cut(), lists?.refresh()])
      for (const one of done) if (one.status === 'rejected') log.error({ err: one.reason }, 'a revocation waits for the broker')
      // And whoever was issued a certificate a moment ago.
      void look().finally(lookLater)
    },
    problem: () => problem,
    async close() {
      closed = true
      cancel()
      enforcer?.close()
      lists?.close()
      if (own) await bus.close()
      await working
    },
  }
}

/** The bus with one subscription for all enforcers that follow each other: the last one hears. */
function answeredOnce(bus: MqttBus): MqttBus {
  let heard: ((topic: string, payload: Bytes) => void) | null = null
  return {
    ...bus,
    async subscribe(filter, onMessage) {
      const first = heard === null
      heard = onMessage
      if (first) await bus.subscribe(filter, (topic, payload) => heard?.(topic, payload))
    },
  }
}

/** The file of revocation lists. A broker that could not be told of it is told at the next look. */
function createLists(
  crl: NonNullable<MosquittoSettings['crl']>,
  wanted: () => Promise<Bytes[]>,
  { clock, log }: { clock: Clock; log: Log },
) {
  const signal = signalReload(crl.pid)
  let file: CrlFile | null = null
  // A process before this one may have died between the file and the signal.
  let untold = true
  let closed = false
  const open = (): Promise<CrlFile> =>
    createCrlFile({
      ...{ path: crl.file, lists: wanted, clock, log },
      reload: () => {
        untold = true
      },
    })
  async function tell(): Promise<void> {
    if (!untold || closed) return
    await signal()
    untold = false
  }
  return {
    async look(): Promise<void> {
      if (file === null) {
        file = await open()
        if (closed) file.close()
      }
      await tell()
    },
    async refresh(): Promise<void> {
      await file?.refresh()
      await tell()
    },
    close(): void {
      closed = true
      file?.close()
    },
  }
}
