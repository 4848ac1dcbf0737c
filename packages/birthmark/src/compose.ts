// The composition root: settings in, a running server out. The one place that knows every part, reads no configuration and decides
// nothing. What the parts are lent (clock, randomness, log) comes from here.
//
//   store → rule set → status ─┬→ enrollment → EST listener (enrollment-front.ts)
//                              └→ broker (CONNECT, PUBLISH, delivery)
//   revocation → notice signer → outbox → publisher → broker

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Bytes, equalBytes, type Membership } from '@birthmark/device-sdk/core'
import {
  aggregateMetrics,
  createMetrics,
  createRegistry,
  createRevocation,
  type Failpoint,
  type Log,
  type Metrics,
  type RecordedRules,
  type RollOver,
  resolveOpenIntents,
} from '@birthmark/est-server'
import {
  type Clock,
  createHeartbeats,
  createPublisher,
  createResponder,
  type Outbox,
  type PublishBus,
  type ResponderOptions,
  type Status,
  statusOf,
} from '@birthmark/fleet-revocation'
import { type AdminSocket, openAdminSocket } from './admin-socket.ts'
import type { Administration } from './administration.ts'
import { type CampaignDesk, openCampaignDesk } from './campaign-desk.ts'
import { type CertificateStatus, openCertificateStatus } from './certificate-status.ts'
import type { Settings } from './configuration.ts'
import type { ConfigurationFile } from './configuration-files.ts'
import {
  openConfiguredIssuers,
  openConfiguredRollOver,
  operationalAnchorsOf,
  warnOfEnd,
  watchRollOver,
} from './configured-issuers.ts'
import { namedBy, takesTwoKeys } from './countersigning.ts'
import { type DeviceFolder, writeDeviceFolder } from './device-folder.ts'
import { type EnrollmentFront, type FrontParts, openEnrollmentFront, type Standing } from './enrollment-front.ts'
import { watchHead } from './head-watch.ts'
import { type OpenBroker, openBroker, reachableName } from './listening.ts'
import { openMetricsListener } from './metrics-listener.ts'
import { type MosquittoEnforcement, openMosquittoEnforcement } from './mosquitto-enforcement.ts'
import { snapshotsOf } from './notice-pull.ts'
import { heartbeatSecret, noticeKeysOf, noticeSigner, noticeSpki, outboxOf } from './notice-signing.ts'
import { openStore } from './open-store.ts'
import { operationsOf } from './operations.ts'
import { keepPublished, refuseOlderStore } from './published.ts'
import { createPublishedRoot } from './published-root.ts'
import { publishingThrough } from './publishing-through.ts'
import { createQuarantineView } from './quarantine-view.ts'
import { freeBytesOf, watchReadiness } from './readiness.ts'
import { listCoder, mergeRecorded, storedRules } from './recorded-rules.ts'
import { intentSeconds, tendSharedStore } from './shared-store.ts'
import { announceProfiles } from './standing-profiles.ts'
import { startWorkers } from './workers.ts'

export interface Ports {
  clock: Clock
  random: (length: number) => Uint8Array
  log: Log
  /** Where the settings come from; needed for workers, which are given the same. */
  source?: { config: string; files: Map<string, ConfigurationFile> }
  /** The store stopped after a disk error, so nothing more can be promised: end the process. */
  onFatal: (error: Error) => void
  /** Called at the steps of a revocation and of a campaign. */
  failpoint?: Failpoint
}

export interface Running {
  est: string
  mqtt: string
  /** URL for SCEP clients; null where it is not offered. */
  scep: string | null
  administration: Administration
  admin: AdminSocket
  /** Also written to `device/` in the state folder. */
  device: DeviceFolder
  close(): Promise<void>
}

export async function compose(settings: Settings, ports: Ports): Promise<Running> {
  const { clock, random, log, failpoint } = ports
  const { fleet, state, workers } = settings
  mkdirSync(state, { recursive: true, mode: 0o700 })
  // Undone in reverse when a later part cannot start, and at the end.
  const closers: (() => Promise<unknown> | unknown)[] = []
  const close = async (): Promise<void> => {
    administration = null
    for (let closer = closers.pop(); closer; closer = closers.pop()) await closer()
  }
  let administration: Administration | null = null
  let stopped: string | null = null
  let certificateStatus: CertificateStatus | null = null
  let desk: CampaignDesk | null = null
  let outside: MosquittoEnforcement | null = null
  try {
    const admin = await openAdminSocket(
      state,
      () => administration,
      error => log.error({ err: error }, 'admin request failed'),
    )
    closers.push(() => admin.close())

    const onStopped = (error: Error): void => {
      stopped = error.message
      ports.onFatal(error)
    }
    const metrics = createMetrics({ profiles: settings.profiles.map(({ label }) => label), process: true })
    const store = await openStore(settings, { shared: workers > 1, checkPages: true, onStopped, log, metrics })
    closers.push(() => store.close())
    await refuseOlderStore(settings, store)
    const published = await keepPublished({ state, store, fleets: [fleet], clock, log, onFatal: onStopped })
    closers.push(() => published.close())

    // Before the rules: a revocation that another server records in between is looked at again (shared-store.ts).
    const newest = (await store.newestNotice(fleet))?.seq ?? 0
    const rules = await storedRules(store, fleet)
    const quarantine = await createQuarantineView(store, fleet)
    const status = quarantine.over(statusOf(rules, fleet))

    // A crash may have left intents that are neither issued nor void; they are settled before anybody asks.
    // In a database that other servers may be using, the young ones are theirs.
    await resolveOpenIntents({ store, clock }, settings.store.kind === 'sqlite' ? 0 : intentSeconds)
    // A SQLite file is this server's alone: what it is started with stands. Elsewhere an old file must not take a fleet back.
    const again = settings.store.kind === 'sqlite'
    await announceProfiles(settings, { store, clock, again, by: 'the start of a server' })
    const registry = createRegistry({ store, fleet, clock, random })

    const rollOver = await openConfiguredRollOver(settings, { store, clock, log })
    closers.push(warnOfEnd(rollOver, { clock, log }))
    // Not the roots: they may sign other CAs, for another fleet or purpose, and none of those is ours to admit.
    const { certificates, next, previous } = settings.issuer
    const issuers = [certificates, ...(next ? [next.certificates] : []), ...previous].map(([issuing]) => issuing)
    const {
      broker,
      external,
      bus,
      url: mqtt,
      close: closeBroker,
    } = await openBroker(settings, issuers, issuedBy(rollOver, status), ports, idx => desk?.onRefused(idx))
    closers.push(closeBroker)
    // Before the publisher writes its own head there.
    const watch = external && watchHead({ bus: external, settings, store, published, clock, log, onFatal: onStopped })
    if (watch) closers.push(() => watch.close())

    const noticeKeys = noticeKeysOf(settings.notices.keys)
    const secret = heartbeatSecret(join(state, 'heartbeat.key'))
    const heartbeats = createHeartbeats(secret, fleet)
    // Made before anybody waits for it.
    await heartbeats.chain(newest + 1)
    const root = createPublishedRoot({
      ...{ store, fleet, clock, log },
      async seal() {
        await revocation.renew('this server, to publish the root')
        publisher.wake()
      },
    })
    closers.push(() => root.close())
    const signNotice = noticeSigner(noticeKeys, heartbeats, {
      countersign: devices => takesTwoKeys(settings.notices.countersignAbove, devices, () => store.deviceCount(fleet)),
      namedBy: input => namedBy(input, () => store.groups(fleet)),
      rootOf: root.rootFor,
    })
    const onRecorded = (what: RecordedRules): void => {
      mergeRecorded(rules, what)
      root.later()
    }
    const revocation = createRevocation({
      ...{ store, fleet, signNotice, coder: listCoder, onRecorded, clock, log },
      ...(failpoint && { failpoint }),
    })
    const publisher = createPublisher({
      outbox: countedOutbox(outboxOf(store, fleet, clock.now, published), metrics),
      bus: countedBus(watch?.behind(bus) ?? bus, metrics),
      fleet,
      clock,
      log,
      heartbeats,
      snapshots: snapshotsOf(settings, store, clock),
      renew: async () => {
        const seq = await revocation.renew('this server, to carry heartbeats on')
        log.info({ seq }, 'notice renewed')
      },
    })
    closers.push(async () => {
      // Once more what is recorded and not delivered; what the broker does not take now goes out at the next start.
      publisher.wake()
      await Promise.race([
        publisher.drained().catch(() => {}),
        new Promise(resolve => clock.setTimer(drainSeconds, () => resolve(null))),
      ])
      publisher.close()
    })
    await answerQuestions(bus, { fleet, newest: () => store.newestNotice(fleet), prove: root.prove, keys: noticeKeys, clock, log })

    // Not what certificate status lacks: anybody can ask it about anything, and enrollments are served all the same. The doctor says it.
    const readiness = await watchReadiness({ store, fleet, clock, freeBytes: freeBytesOf(state) })
    closers.push(() => readiness.close())
    const unready = () => stopped ?? readiness.unready()
    const est = alsoOutside(await openFront(settings, ports, { store, rules, metrics, unready }), () => outside)
    closers.push(() => est.close())
    if (settings.status) {
      // Workers have keys of their own; this process then opens the issuer for lists and answers alone.
      const own = est.issuers === null ? await openConfiguredIssuers(settings, { store, clock, log, metrics }) : null
      if (own) closers.push(() => own.close())
      const issuers = own?.opened ?? est.issuers ?? []
      certificateStatus = await openCertificateStatus(settings.status, { store, issuers, state, clock, log, metrics })
      closers.push(() => certificateStatus?.close())
    }
    if (settings.mqtt.kind === 'external' && settings.mqtt.enforce && external) {
      const { url, anchors, enforce } = settings.mqtt
      outside = openMosquittoEnforcement(enforce, {
        ...{ url, anchors, bus: external, store, fleet, rules, clock, log },
        status: issuedBy(rollOver, status),
        lists: certificateStatus?.wholeLists ?? null,
        alone: settings.store.kind === 'sqlite',
      })
      closers.push(() => outside?.close())
    }
    const enforce = () => {
      root.later()
      return Promise.all([broker?.enforce(), est.enforce()])
    }
    const tending = tendSharedStore({ store, fleet, rules, newest, enforce, clock, log })
    closers.push(() => tending.close())

    const standing = est.standing
    metrics.gauge('outbox', async () => (await store.outboxPending(fleet, 64)).length)
    metrics.gauge('workers', () => standing().serving)
    metrics.gauge('ready', () => (unready() === null && est.unready() === null ? 1 : 0))
    if (broker)
      metrics.gauge('sessions', () => broker.sessions().filter(({ connected, kind }) => connected && kind === 'device').length)
    // With workers the front speaks of them alone.
    const whyNot = () => unready() ?? est.unready()
    if (settings.metrics) {
      const { host, port } = settings.metrics
      const text = async () => (workers > 1 ? aggregateMetrics([await metrics.json(), ...(await est.metrics())]) : metrics.text())
      const state = () =>
        healthOf({
          standing: standing(),
          unready: whyNot(),
          stopped,
          lines: readiness.lines(),
          status: certificateStatus?.problem() ?? null,
          broker: outside?.problem() ?? null,
        })
      const watching = await openMetricsListener(host, port, { text, unready: whyNot, state })
      closers.push(() => watching.close())
    }

    const urls = { est: `https://${reachableName(settings.est.host, settings.est.certificate)}:${est.port}`, mqtt }
    const { serverAnchors, birthAnchors } = settings
    const known = { fleet, ...urls, serverAnchors, birthAnchors, noticeKeys: settings.notices.keys.map(noticeSpki) }
    const tellDevices = (): DeviceFolder => {
      const told = { ...known, operationalAnchors: operationalAnchorsOf(rollOver) }
      writeDeviceFolder(join(state, 'device'), told)
      return told
    }
    const device = tellDevices()
    const onMoved = async () => {
      tellDevices()
      await enforce()
    }
    closers.push(watchRollOver(rollOver, ports, () => void onMoved().catch(error => log.error({ err: error }, 'issuers moved'))))
    desk = openCampaignDesk({
      ...{
        settings: settings.revocation,
        fleet,
        store,
        revocation,
        rules,
        quarantine,
        front: est,
        publisher,
        broker,
        certificateStatus,
      },
      relyingParties: relyingPartiesOf(settings),
      ...{ noticeKey: settings.notices.keys[0], clock, log, ...(failpoint && { failpoint }) },
    })
    closers.push(() => desk?.close())
    const campaigns = desk.operations
    const parts = {
      campaigns,
      settings,
      store,
      registry,
      revocation,
      rules,
      front: est,
      publisher,
      broker,
      certificateStatus,
      clock,
      urls,
    }
    administration = operationsOf({ ...parts, rollOver, onIssuersMoved: onMoved })
    // What was recorded before a crash and not delivered goes out now.
    publisher.wake()
    const scep = settings.scep
      ? `http://${reachableName(settings.scep.host, settings.est.certificate)}:${est.scepPort ?? settings.scep.port}/scep`
      : null
    return { ...urls, scep, administration, admin, device, close }
  } catch (error) {
    await close()
    throw error
  }
}

/** Where the bus can't be read, or the broker doesn't let this server read questions, devices without a clock get no answers and all else goes on. */
async function answerQuestions(bus: OpenBroker['bus'], rest: Omit<ResponderOptions, 'bus'>): Promise<void> {
  const { subscribe } = bus
  if (!subscribe) return
  await createResponder({ ...rest, bus: { publish: bus.publish, subscribe } }).catch((error: unknown) =>
    rest.log.warn({ err: error }, 'devices’ questions for the newest notice can not be heard'),
  )
}

/** Whoever is cut here is cut at a broker elsewhere as well. */
function alsoOutside(front: EnrollmentFront, outside: () => MosquittoEnforcement | null): EnrollmentFront {
  return Object.assign(Object.create(front) as EnrollmentFront, {
    enforce: async () => (await Promise.all([front.enforce(), outside()?.enforce()]))[0],
  })
}

/**
 * Those that the embedded broker lets in under a name. The head is not shown again for one that is away: a million devices would hear it, and whoever
 * comes back finds it retained, and confirms it.
 */
function relyingPartiesOf({ mqtt }: Settings): string[] {
  const services = mqtt.kind === 'embedded' ? Object.entries(mqtt.services) : []
  return services.filter(([, role]) => role === 'relying-party').map(([name]) => name)
}

type StatusOf = (membership: Membership, issuerKeyId: Bytes | null) => Status

/**
 * Unknown for what no admitted issuer signed: our index and our groups say nothing about it. For the broker, which knows a device by its
 * certificate alone; enrollment asks about the identity that the store recorded.
 */
function issuedBy(rollOver: RollOver, status: StatusOf): StatusOf {
  return (membership, issuerKeyId) =>
    issuerKeyId && rollOver.admitted().some(({ keyId }) => equalBytes(keyId, issuerKeyId))
      ? status(membership, issuerKeyId)
      : 'unknown'
}

/** One process answers devices, this one, or several others do. */
function openFront(
  settings: Settings,
  { clock, random, log, source }: Ports,
  parts: Pick<FrontParts, 'store' | 'rules' | 'metrics' | 'unready'>,
): Promise<EnrollmentFront> {
  const { workers: count, est } = settings
  if (count === 1) return openEnrollmentFront(settings, { ...parts, clock, random, log, port: est.port })
  if (!source) throw new TypeError('workers need the source of the settings')
  return startWorkers({ count, host: est.host, port: est.port, ...source, clock, log })
}

/** What a broker that is slow or away costs an orderly stop. */
const drainSeconds = 2

function countedBus(bus: PublishBus, metrics: Metrics): PublishBus {
  return publishingThrough(bus, async (topic, payload, options) => {
    // Heartbeats are no notices, nor is a word that is taken back.
    if (options.qos === 0 || payload.length === 0) return bus.publish(topic, payload, options)
    try {
      await bus.publish(topic, payload, options)
      metrics.notice('published')
    } catch (error) {
      metrics.notice('failed')
      throw error
    }
  })
}

function countedOutbox(outbox: Outbox, metrics: Metrics): Outbox {
  return {
    ...outbox,
    async delivered(seq) {
      await outbox.delivered(seq)
      metrics.notice('acknowledged')
    },
  }
}

/** For people who ask /readyz, a line each. */
function healthOf({
  standing,
  unready,
  lines,
  stopped,
  status,
  broker,
}: {
  standing: Standing
  unready: string | null
  lines: string[]
  stopped: string | null
  status: string | null
  broker: string | null
}): string[] {
  return [
    `store: ${stopped ?? 'takes records'}`,
    `workers: ${standing.serving} of ${standing.of} serve`,
    ...(status === null ? [] : [`certificate status: ${status}`]),
    ...(broker === null ? [] : [`enforcement at the broker: ${broker}`]),
    ...lines,
    ...(unready === null ? [] : [`reason: ${unready}`]),
  ]
}
