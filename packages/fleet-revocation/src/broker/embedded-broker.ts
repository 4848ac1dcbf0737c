// The broker in the process: aedes over mutual TLS, told at every step who may do what. It promises that what the status function calls
// revoked can't connect, publish, subscribe or be delivered to from that moment on, and that `enforce` ends what is connected; that a
// stranger costs little; and that a subscriber who doesn't read delays the others by a second at most. It keeps nothing: notices live in
// the server's store, and the publisher shows them again to a broker that starts.

import type { TLSSocket } from 'node:tls'
import { anchorOf, type Bytes, type Membership, parseCertificate } from '@birthmark/device-sdk/core'
import { Aedes, type AuthenticateError, type Client, type PublishPacket } from 'aedes'
import { RevocationError } from '../errors.ts'
import type { Bus, Clock, Log } from '../ports.ts'
import { repeat } from '../repeat.ts'
import type { Status } from '../rule-set.ts'
import { nodeVerify } from '../verify.ts'
import { accessOf, filtersMax, mayPublish, mayRead, maySubscribe } from './access.ts'
import { createAftermath } from './aftermath.ts'
import { boundSessions, type SessionStore } from './bounded-sessions.ts'
import { type BrokerLimits, defaultLimits } from './limits.ts'
import { listenMutualTls, type MutualTlsListener, type MutualTlsOptions } from './mutual-tls.ts'
import { createNoticeFanout, type NoticeBroker, type NoticeClient, type NoticeFanout, settled } from './notice-fanout.ts'
import { guardPackets } from './packet-guard.ts'
import type { Peer, PeerRules, ServiceRole } from './peer.ts'

export interface EmbeddedBrokerOptions {
  host: string
  /** 0 takes any free one. */
  port: number
  /** PEM. `cert`: leaf, then intermediates. */
  tls: { key: string | Buffer; cert: string | Buffer; minVersion?: 'TLSv1.2' | 'TLSv1.3' }
  /** DER certificates of the authorities that issue operational device certificates. */
  deviceAnchors: Bytes[]
  /** DER certificates of the authorities for services; apart from the devices'. */
  serviceAnchors?: Bytes[]
  /** Which service certificates are admitted, by common name, and as what. */
  services?: { [commonName: string]: ServiceRole }
  fleet: string
  /** Asked for every CONNECT, PUBLISH, SUBSCRIBE and delivery of a device, so it must be quick. `unknown` refuses CONNECT. */
  status(membership: Membership, issuerKeyId: Bytes | null): Status
  limits?: Partial<BrokerLimits>
  /** A device with a certificate of this idx was refused at CONNECT because it is revoked or in quarantine: it knows now. */
  onRefused?: (idx: number) => void
  clock: Clock
  log: Log
}

export interface SessionFacts {
  id: string
  kind: 'device' | 'service'
  address: string
  /** Seconds since 1970. */
  since: number
  connected: boolean
  /** Of a device's certificate; null for a service. */
  idx: number | null
}

export interface Enforcement {
  /** Sessions ended. */
  cut: number
  /** Milliseconds until the last was. */
  ms: number
}

export interface EmbeddedBroker extends Bus {
  readonly port: number
  /** Ends every session that the status function now calls revoked or quarantined, or whose certificate has expired. */
  enforce(): Promise<Enforcement>
  sessions(): SessionFacts[]
  close(): Promise<void>
}

interface Session {
  peer: Peer
  access: ReturnType<typeof accessOf>
  socket: TLSSocket
  address: string
  since: number
  connected: boolean
  /** From here on nothing of this session is listened to or delivered, its Will included. */
  ended: boolean
  will: { topic: string; retain: boolean } | null
  filters: Set<string>
  /** Aedes' side of it, from CONNECT on. */
  client: NoticeClient | null
}

// Sockets destroyed before the event loop serves everybody else: ~0.1 s of work; counted, since time passes on a busy machine without us.
const sliceSize = 2500
// A certificate that ran out is noticed this late at most.
const sweepSeconds = 60

const IDENTIFIER_REJECTED = 2
const NOT_AUTHORIZED = 5

function refusal(returnCode: number, detail: string): AuthenticateError {
  return Object.assign(new Error(detail), { returnCode })
}

function peerRules(options: EmbeddedBrokerOptions): PeerRules {
  const anchors = (list: Bytes[]) => list.map(der => anchorOf(parseCertificate(der)))
  try {
    return {
      deviceAnchors: anchors(options.deviceAnchors),
      serviceAnchors: anchors(options.serviceAnchors ?? []),
      services: options.services ?? {},
      verify: nodeVerify(),
    }
  } catch (error) {
    throw new RevocationError('configuration_invalid', 'an anchor of the broker is no certificate', error)
  }
}

type Told = (error?: Error) => void

/** Aedes as it is, beside its types. */
interface AedesDoors {
  publish(packet: PublishPacket, client: Client | Told | null, done?: Told): void
  subscribe(filter: string, deliver: (packet: PublishPacket, done: () => void) => void, done: () => void): void
  unsubscribe(filter: string, deliver: (packet: PublishPacket, done: () => void) => void, done: () => void): void
}

/** Notices of any client, and clients' subscriptions to them, go the direct way; everything else aedes'. Returns its own doors. */
function takeNoticesAside(broker: AedesDoors, fanout: Pick<NoticeFanout<Session>, 'covers' | 'publish'>): AedesDoors {
  const own: AedesDoors = {
    publish: broker.publish.bind(broker),
    subscribe: broker.subscribe.bind(broker),
    unsubscribe: broker.unsubscribe.bind(broker),
  }
  broker.publish = (packet, client, done) => {
    const { topic, payload, qos, retain } = packet
    if (!fanout.covers(topic)) return own.publish(packet, client, done)
    const told = (typeof client === 'function' ? client : done) ?? (() => {})
    fanout.publish(topic, Buffer.from(payload as Buffer), { qos: qos === 0 ? 0 : 1, retain }).then(() => told(), told)
  }
  broker.subscribe = (filter, deliver, done) => (fanout.covers(filter) ? done() : own.subscribe(filter, deliver, done))
  broker.unsubscribe = (filter, deliver, done) => (fanout.covers(filter) ? done() : own.unsubscribe(filter, deliver, done))
  return own
}

/**
 * Resolves when the broker listens. Rejects with `configuration_invalid` for unusable anchors, keys or addresses. `listen` may bring peers
 * another way: whoever gives it answers for who they are.
 */
export async function createEmbeddedBroker(
  options: EmbeddedBrokerOptions,
  listen: (options: MutualTlsOptions) => Promise<MutualTlsListener> = listenMutualTls,
): Promise<EmbeddedBroker> {
  const { fleet, clock, log } = options
  const limits = { ...defaultLimits, ...options.limits }
  const rules = peerRules(options)
  const sessions = new Set<Session>()
  const aftermath = createAftermath()
  /** By the stream that aedes knows a client by; aedes asks about a Will some turns after the socket is gone. */
  const sessionOf = new WeakMap<object, Session>()
  /** Devices whose session outlives its connection, with what a revocation needs to find them. */
  const stored = new Map<string, Peer>()

  function statusOf(peer: Peer): Status {
    if (peer.notAfter < clock.now()) return 'revoked'
    if (peer.kind === 'service') return 'good'
    return peer.membership.fleet === fleet ? options.status(peer.membership, peer.issuerKeyId) : 'unknown'
  }

  /** For good or for now. */
  function isDenied(peer: Peer): boolean {
    const status = statusOf(peer)
    return status === 'revoked' || status === 'quarantined'
  }

  /** The session behind an aedes client if it may still do anything. A status that became unknown keeps what stands. */
  function live(client: Client | null): Session | null {
    const session = client && sessionOf.get(client.conn)
    return session && !session.ended && !isDenied(session.peer) ? session : null
  }

  function clientIdFits(peer: Peer, clientId: string): boolean {
    if (clientId === peer.id) return true
    // A service may hold several connections: `name/1`, `name/2`. No device id has a slash.
    return (
      peer.kind === 'service' &&
      clientId.startsWith(`${peer.id}/`) &&
      /^[A-Za-z0-9._-]{1,32}$/.test(clientId.slice(peer.id.length + 1))
    )
  }

  function admit(session: Session, clientId: string): AuthenticateError | null {
    const { peer, access, will } = session
    // MQTT has no way to say this before CONNECT; the session is found by its certificate, never by the id it claims.
    if (!clientIdFits(peer, clientId)) return refusal(IDENTIFIER_REJECTED, 'the ClientId is not the certificate’s')
    const status = peer.notAfter < clock.now() ? 'expired' : statusOf(peer)
    if (status !== 'good') return refusal(NOT_AUTHORIZED, `the certificate’s status is ${status}`)
    if (will && !mayPublish(access, will.topic, will.retain)) return refusal(NOT_AUTHORIZED, 'the Will is not allowed')
    return null
  }

  const broker = await Aedes.createBroker({
    connectTimeout: limits.connectSeconds * 1000,
    drainTimeout: limits.drainSeconds * 1000,
    keepaliveLimit: limits.keepaliveSecondsMax,
    // A QoS 2 message is kept until it is released: 16 of them are a device's 1 MB at most.
    maxInflightInbound: 16,
    maxTopicLevels: 16,
    preConnect: (client, packet, done) => {
      const session = sessionOf.get(client.conn)
      if (!session) return done(new Error('no session'), false)
      session.will = packet.will ? { topic: packet.will.topic, retain: packet.will.retain === true } : null
      if (packet.clean === false && stored.size >= limits.storedSessionsMax && !stored.has(packet.clientId)) packet.clean = true
      done(null, true)
    },
    authenticate: (client, _username, _password, done) => {
      const session = sessionOf.get(client.conn)
      const problem = session ? admit(session, client.id) : refusal(NOT_AUTHORIZED, 'no session')
      if (!session || problem) {
        if (session?.peer.kind === 'device' && isDenied(session.peer)) options.onRefused?.(session.peer.membership.idx)
        log.warn({ peer: session?.peer.id, clientId: client.id.slice(0, 64), reason: problem?.message }, 'CONNECT refused')
        return done(problem, false)
      }
      session.connected = true
      session.client = client as unknown as NoticeClient
      if (client.clean) stored.delete(client.id)
      else stored.set(client.id, session.peer)
      done(null, true)
    },
    authorizePublish: (client, packet, done) => {
      const session = live(client)
      if (session && mayPublish(session.access, packet.topic, packet.retain)) return done(null)
      log.warn({ peer: session?.peer.id ?? client?.id, topic: packet.topic.slice(0, 128), retain: packet.retain }, 'PUBLISH denied')
      done(new Error('PUBLISH denied'))
    },
    authorizeSubscribe: (client, subscription, done) => {
      const session = live(client)
      const granted = session !== null && maySubscribe(session.access, subscription.topic)
      if (session && granted && (session.filters.has(subscription.topic) || session.filters.size < filtersMax)) {
        session.filters.add(subscription.topic)
        if (fanout.covers(subscription.topic)) fanout.subscribe(session, subscription.topic, subscription.qos)
        return done(null, subscription)
      }
      log.warn({ peer: session?.peer.id ?? client.id, filter: subscription.topic.slice(0, 128) }, 'SUBSCRIBE denied')
      // Null is a SUBACK with failure; the connection and its other filters stand.
      done(null, null)
    },
    authorizeForward: (client, packet) => {
      const session = live(client)
      return session && mayRead(session.access, packet.topic) ? packet : null
    },
  })
  broker.on('unsubscribe', (filters, client) => {
    const session = sessionOf.get(client.conn)
    if (!session) return
    for (const filter of filters) {
      session.filters.delete(filter)
      fanout.unsubscribe(session, filter)
    }
  })
  const fanout = createNoticeFanout<Session>({
    broker: broker as unknown as NoticeBroker,
    fleet,
    mayHear: session => !session.ended && !isDenied(session.peer),
    waitingBytesMax: limits.waitingBytesMax,
    onStalled: ({ peer, address }) => log.warn({ peer: peer.id, address }, 'a subscriber that does not read is cut'),
  })
  const aedes = takeNoticesAside(broker as unknown as AedesDoors, fanout)
  const store = (broker as unknown as { persistence: SessionStore }).persistence
  const bounded = boundSessions(store, {
    queueMax: limits.queueMax,
    // Services are few and ours; their messages may be larger than a device's whole queue.
    queueBytesMax: id => (stored.get(id)?.kind === 'service' ? limits.heldBytesMax : limits.queueBytesMax),
    heldBytesMax: limits.heldBytesMax,
    maySubscribe: (client, filter) => {
      const session = live(client as Client)
      return session !== null && maySubscribe(session.access, filter)
    },
    mayQueue: (id, topic) => {
      const peer = stored.get(id)
      return peer !== undefined && statusOf(peer) === 'good' && mayRead(accessOf(peer, fleet), topic)
    },
  })

  function onPeer(socket: TLSSocket, peer: Peer, address: string): void {
    const stream = guardPackets(
      socket,
      peer.kind === 'device' ? limits.devicePackets : limits.servicePackets,
      problem => log.warn({ peer: peer.id, address, reason: problem }, 'packet refused'),
      () => settled(session.client),
      forget => (session.ended ? aftermath.postpone(forget) : forget()),
    )
    const session: Session = {
      peer,
      access: accessOf(peer, fleet),
      socket,
      address,
      since: clock.now(),
      connected: false,
      ended: false,
      will: null,
      filters: new Set(),
      client: null,
    }
    sessions.add(session)
    sessionOf.set(stream, session)
    socket.once('close', () => {
      sessions.delete(session)
      fanout.leave(session, session.filters)
    })
    broker.handle(stream)
  }

  async function enforce(): Promise<Enforcement> {
    const started = performance.now()
    const doomed = [...sessions].filter(session => !session.ended && isDenied(session.peer))
    // All are deaf and mute before the first is cut.
    for (const session of doomed) session.ended = true
    let cut = 0
    const release = aftermath.hold()
    for (const [at, session] of doomed.entries()) {
      if (at > 0 && at % sliceSize === 0) await new Promise(resolve => setImmediate(resolve))
      if (!session.socket.destroyed && session.connected) cut++
      session.socket.destroy()
    }
    release()
    const ms = performance.now() - started
    const absent = [...stored].filter(([, peer]) => statusOf(peer) === 'revoked')
    for (const [id] of absent) {
      stored.delete(id)
      await bounded.drop(id)
    }
    if (cut > 0) log.info({ cut, ms: Math.round(ms), forgotten: absent.length }, 'revoked sessions ended')
    return { cut, ms }
  }

  const endSweeping = repeat(clock, sweepSeconds, enforce, error => log.error({ err: error }, 'sweep failed'))
  const closeAedes = () => new Promise<void>(resolve => broker.close(() => resolve()))
  broker.on('error' as 'closed', (...failure: unknown[]) => log.error({ err: failure[0] }, 'broker failure'))

  let listener: MutualTlsListener
  try {
    listener = await listen({
      host: options.host,
      port: options.port,
      tls: options.tls,
      limits,
      rules,
      clock,
      log,
      onPeer,
    })
  } catch (error) {
    endSweeping()
    await closeAedes()
    throw error
  }

  return {
    port: listener.port,
    publish: (topic, payload, { qos, retain }) =>
      new Promise<void>((resolve, reject) => {
        if (broker.closed) return reject(new RevocationError('bus_closed', topic))
        broker.publish({ cmd: 'publish', topic, payload: Buffer.from(payload), qos, retain, dup: false }, error =>
          error ? reject(new RevocationError('bus_failed', topic, error)) : resolve(),
        )
      }),
    subscribe: async (filter, onMessage) => {
      const hear = (topic: string, payload: Uint8Array | string): void => onMessage(topic, Buffer.from(payload as Uint8Array))
      await new Promise<void>(resolve =>
        aedes.subscribe(
          filter,
          (packet, done) => {
            hear(packet.topic, packet.payload)
            done()
          },
          resolve,
        ),
      )
      for await (const packet of store.createRetainedStream(filter)) hear(packet.topic, packet.payload)
    },
    // Never lost while the process lives, and the publisher fills a new broker by itself.
    onConnect: () => {},
    enforce,
    sessions: () =>
      [...sessions].map(({ peer, address, since, connected }) => ({
        id: peer.id,
        kind: peer.kind,
        address,
        since,
        connected,
        idx: peer.kind === 'device' ? peer.membership.idx : null,
      })),
    close: async () => {
      endSweeping()
      // First nobody new comes in, then who is there is sent off.
      const closed = listener.close()
      await closeAedes()
      await closed
    },
  }
}
