// One device's identity on Node and Bun: the agent of agent/agent.ts with this runtime's crypto, network and clock lent to it, promises
// instead of callbacks, and PEM where people bring PEM. No decision is made here.

import type { SecureContext } from 'node:tls'
import { createAgent } from '../../agent/agent.ts'
import type { Agent, AgentEvents, AgentState, AgentStatus } from '../../agent/agent-interface.ts'
import { type Identity as SlotIdentity, slotOf } from '../../agent/identity-slots.ts'
import type { Bus, Clock, Http, NoticeReceiver, Rng, Store, Verify } from '../../agent/ports.ts'
import { keepAskingForReadmission } from '../../agent/readmission.ts'
import type { TimeStatus, TimeTrust, TrustedClock } from '../../agent/time-trust.ts'
import { encodeDeviceName } from '../../core/distinguished-name.ts'
import type { BasicSecret } from '../../core/est-request.ts'
import { defaultAlgorithms } from '../../core/validate-path.ts'
import { type Anchors, certificates } from './anchors.ts'
import { systemClock } from './clock.ts'
import { nodeHash, nodeRng, nodeVerify } from './crypto.ts'
import { BirthmarkError, birthmarkError } from './errors.ts'
import { nodeHttp, pemChain, tlsCredentials } from './http.ts'
import type { NodeKeyStore } from './keys.ts'
import { listenToNotices } from './notices.ts'
import { type RenewalHints, renewalHints } from './renewal-hint.ts'
import { nodeTime, timeSigners } from './time.ts'

/** pino fits, and so does `console` but for the order of its arguments. */
export interface Log {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
}

/** For tls.connect, https.request, mqtt.connect. It holds the private key: JSON and util.inspect show it redacted, a spread copy does not. */
export interface TlsOptions {
  key?: string
  privateKeyEngine?: string
  privateKeyIdentifier?: string
  /** Of a TPM's key, in place of it: made once for an identity and whom it trusts, so that a `ca` of yours beside it would say nothing. */
  secureContext?: SecureContext
  cert: string
  ca: string[]
  minVersion: 'TLSv1.2'
  rejectUnauthorized: true
  allowPartialTrustChain: true
}

export interface CallOptions {
  /** Ends this call with `aborted`. What was recorded stays, and the next call carries on from it. */
  signal?: AbortSignal | undefined
}

export interface IdentityOptions {
  /** `fileKeys(folder)`, `memoryKeys()`, or a NodeKeyStore over a secure element. The birth key is in slot `birth`. */
  keys: NodeKeyStore
  /** `fileStore(folder)`, `memoryStore()` or any Store. Record `birth.chain`: the birth certificate and its chain, concatenated DER, leaf first. */
  store: Store
  server: { /** `https://host[:port]` */ url: string /** EST label (RFC 7030 3.2.2) */; label?: string | undefined }
  trust: {
    /** Whom the server's TLS certificate must chain to. There is no default: a device does not trust the web's CAs. */
    server: Anchors
    /** The manufacturer's CA, to check our own birth certificate. Absent: whatever birth.chain ends in; that its key is here is checked anyway. */
    birth?: Anchors | undefined
    /** Whom an issued certificate must chain to. Absent: what /cacerts of the authenticated server says, asked each time. */
    operational?: Anchors | undefined
  }
  clock?: Clock | undefined
  /**
   * Which time to go by; `network`, the machine's clock, unless told. For `signed`: the fleet, and the public keys whose word is taken (the server's
   * `device` folder names them), SPKI as DER or PEM.
   */
  time?:
    | {
        trust: TimeTrust
        fleet?: string
        signers?: readonly (string | Uint8Array)[] /** For tests: seconds that only grow. */
        elapsed?: () => number
      }
    | undefined
  log?: Log | undefined
  /** Closes the identity. */
  signal?: AbortSignal | undefined
  /** Answers an HTTP Basic challenge once; `user` is the device id. With birth.chain present it is only asked for if the server does. */
  secret?: BasicSecret | undefined
  /**
   * `birth`: when revoked, ask again with the birth certificate after ten minutes, then ever less often; the server's profile decides
   * (`readmission: birth`). After `start()`. Absent: a person calls `enroll({ readmitted: true })`.
   */
  readmission?: 'birth' | undefined
  /** Revocation notices: a receiver (`@birthmark/fleet-revocation/device`) and the bus they come by. Listened to after `start()`. */
  notices?: NoticeReceiver | undefined
  bus?: Bus | undefined
  /**
   * Proves a new identity before the old one is let go, such as by connecting to your broker with it; rejects to have it tried again later,
   * with a BirthmarkError `est_refused` to have it thrown away. Default: /cacerts over mutual TLS.
   */
  prove?: ((tls: TlsOptions) => Promise<void>) | undefined
  /** A moment that has surely passed, seconds since 1970. Default: this SDK's release. A clock before it is not trusted. */
  timeFloor?: number | undefined
  /**
   * `channel`: every CSR names the TLS connection that carries it (RFC 7030 3.5: tls-exporter of RFC 9266, in TLS 1.2 tls-unique), so that nobody
   * can send it elsewhere. Absent: from the moment that the server demands it.
   */
  possession?: 'channel' | undefined
  /** Signature algorithms accepted in certificate paths, as named in `./core`. */
  algorithms?: string[] | undefined
  /** Longest wait for one answer, at most 60. */
  timeoutSeconds?: number | undefined
  /** Replacements for tests and odd engines. */
  http?: Http | undefined
  rng?: Rng | undefined
  verify?: Verify | undefined
}

export interface IdentityStatus extends Omit<AgentStatus, 'lastError' | 'state'> {
  state: AgentState | 'closed'
  lastError: BirthmarkError | null
  /** Which trust in the time is in force, and why, where it is not the one that was wanted. */
  time: Omit<TimeStatus, 'error'> & { error: BirthmarkError | null }
}

/** What one recorded identity says of itself. Times are seconds since 1970; `notAfter` is 0 until a certificate was issued. */
interface Generation {
  generation: number
  notAfter: number
}

export interface IdentityEvents {
  /** The birth certificate was checked and its key is here. */
  birth: { deviceId: string }
  /** A certificate is asked for. The same generation again: the request was recorded by an earlier attempt. */
  request: Generation
  /** It was validated and stored; it is not in use yet. */
  issued: Generation
  /** The new identity is proven and in use from now on: connect again with `tlsOptions()`. */
  active: Generation & { deviceId: string; renewAt: number }
  /** It was refused when it was to prove itself, and thrown away. */
  dropped: Generation
  /** An attempt ended; nothing about the identity in use has changed. */
  failed: { error: BirthmarkError }
  /** A revocation notice was refused, which changes nothing. */
  notice: { error: BirthmarkError }
  revoked: { by: 'notice' | 'server' }
  /** After `start()`: seconds until the next attempt or look at the clock. */
  scheduled: { seconds: number }
}

export interface Identity {
  /**
   * Resolves when the device holds a valid, proven operational identity: at once when it does already, otherwise after one attempt.
   * Rejects with a BirthmarkError that says whether to try again. `readmitted`: ask once more although this identity was revoked.
   */
  enroll(options?: CallOptions & { readmitted?: boolean }): Promise<IdentityStatus>
  /** One attempt to replace the operational identity, due or not. The old one stays until the new one is proven. */
  renew(options?: CallOptions): Promise<IdentityStatus>
  status(): IdentityStatus
  /** Returns how to stop listening. */
  on<T extends keyof IdentityEvents>(type: T, listener: (event: IdentityEvents[T]) => void): () => void
  /**
   * The operational identity for TLS. Ask again at every connection: it changes at renewal. `trust`: whom the other end must chain to, such as a broker
   * under a CA of its own; `trust.server` unless told. Throws `identity_missing`, `identity_expired`, `revoked`.
   */
  tlsOptions(options?: { trust?: Anchors | undefined }): TlsOptions
  /** The operational certificate and its intermediates, DER, leaf first; [] without an identity in use. */
  chain(): Uint8Array[]
  /** From here on by itself: enrolls, renews when the server said (`Renew-After`) or at two thirds of the life, retries with backoff, listens for notices. Never throws; see the events. */
  start(): Identity
  /** Ends what runs and all timers. Calls that wait reject with `aborted`. */
  close(): void
}

/** 2026-01-01: no device runs this SDK earlier. */
const releaseTime = 1767225600
/** What is wrong with the arguments themselves is a TypeError or, for a certificate, a BirthmarkError; nothing is sent or written yet. */
export function createIdentity(options: IdentityOptions): Identity {
  const { keys, store, server, trust, log } = options
  if (!keys || !store || !server?.url || !trust?.server)
    throw new TypeError('createIdentity needs keys, store, server.url and trust.server')
  const anchors = (name: 'server' | 'birth' | 'operational') => {
    const given = trust[name]
    try {
      return given === undefined ? [] : certificates(`trust.${name}`, given)
    } catch (error) {
      throw error instanceof TypeError ? error : birthmarkError(error)
    }
  }
  const serverAnchors = anchors('server')
  const signers = timeSigners(options.time?.signers ?? [])
  if (options.time?.trust === 'signed' && (signers.length === 0 || !options.time.fleet))
    throw new TypeError('time: signed needs fleet and signers')
  const listeners = new Map<keyof IdentityEvents, Set<(event: never) => void>>()
  let closed = false

  const tell = <T extends keyof IdentityEvents>(type: T, event: IdentityEvents[T]) => {
    if (type === 'failed' || type === 'dropped' || type === 'revoked' || type === 'notice') log?.warn(event, `identity ${type}`)
    else log?.info(event, `identity ${type}`)
    for (const listener of [...(listeners.get(type) ?? [])]) {
      try {
        listener(event as never)
      } catch (error) {
        // A listener's fault is not the agent's: it surfaces as an uncaught error, as EventTarget does it.
        queueMicrotask(() => {
          throw error
        })
      }
    }
  }
  const generationOf = ({ generation, chain }: SlotIdentity): Generation => ({ generation, notAfter: chain[0]?.notAfter ?? 0 })
  const shapes: { [T in keyof AgentEvents]: (value: AgentEvents[T]) => void } = {
    birth: deviceId => tell('birth', { deviceId }),
    request: identity => tell('request', generationOf(identity)),
    issued: identity => {
      hints.issued(identity.generation)
      tell('issued', generationOf(identity))
    },
    active: identity =>
      tell('active', { ...generationOf(identity), deviceId: agent.status().deviceId, renewAt: agent.status().renewAt }),
    dropped: identity => tell('dropped', generationOf(identity)),
    failed: error => tell('failed', { error: told(error) }),
    revoked: by => {
      tell('revoked', { by: by === 'server' ? 'server' : 'notice' })
      if (started) readmission?.revoked()
    },
    scheduled: seconds => tell('scheduled', { seconds }),
  }

  const tlsOf = (identity: SlotIdentity, anchors = serverAnchors): TlsOptions => {
    const chain = identity.chain.map(certificate => certificate.der)
    const tls = tlsCredentials(anchors, keys, { slot: slotOf(identity), chain }) as TlsOptions
    const shown = () => ({ cert: tls.cert, key: '[private key]' })
    return Object.defineProperties(tls, {
      toJSON: { value: shown },
      [Symbol.for('nodejs.util.inspect.custom')]: { value: shown },
    })
  }

  const timeoutSecondsMax = options.timeoutSeconds ?? 60
  const { possession } = options
  // Until the store was read, and where that fails, the machine's clock.
  let time: TrustedClock
  const serverTime = () => {
    const { trust, floor } = time.status()
    return trust === 'network' ? null : { now: time.now(), floor }
  }
  const http = options.http ?? nodeHttp(server.url, serverAnchors, keys, { timeoutSecondsMax, possession, time: serverTime })
  let agent: Agent
  let started = false
  let hints: RenewalHints
  try {
    time = nodeTime({
      ...options,
      ...{ trust: options.time?.trust ?? 'network', fleet: options.time?.fleet ?? '', signers, elapsed: options.time?.elapsed },
      ...{ http, floor: options.timeFloor ?? releaseTime, clock: options.clock ?? systemClock },
    })
    hints = renewalHints(store)
    agent = createAgent(
      {
        keys,
        store,
        hash: nodeHash,
        verify: options.verify ?? nodeVerify,
        rng: options.rng ?? nodeRng,
        http: hints.watch(http),
        clock: time,
      },
      {
        label: server.label ?? null,
        birthAnchors: anchors('birth'),
        operationalAnchors: anchors('operational'),
        secret: options.secret ?? null,
        name: options.secret ? encodeDeviceName(options.secret.user) : new Uint8Array([0x30, 0]),
        algorithms: options.algorithms ?? defaultAlgorithms,
        timeFloor: time.status().floor,
        renewAt: hints.renewAt,
        prove: options.prove
          ? (identity, done) => {
              const prove = options.prove as NonNullable<typeof options.prove>
              Promise.resolve()
                .then(() => prove(tlsOf(identity)))
                .then(
                  () => done(null),
                  // A hook's own error is taken for the network's: the new identity is kept and proven again later.
                  error =>
                    done(error instanceof BirthmarkError ? error : new BirthmarkError('network', 'prove failed', { cause: error })),
                )
            }
          : null,
      },
      (type, value) => shapes[type](value),
    )
  } catch (error) {
    // The store cannot be read.
    throw birthmarkError(error)
  }

  const readmission = options.readmission === 'birth' ? keepAskingForReadmission(agent, time, options.rng ?? nodeRng) : null

  /** What went wrong, and by which time it was judged where time matters. */
  const told = (error: unknown): BirthmarkError => {
    const out = birthmarkError(error)
    const { trust, wanted } = time.status()
    if (trust === 'network' || !/^(path_(expired|not_yet_valid|time_untrusted)|server_untrusted|identity_expired)$/.test(out.code))
      return out
    const message = `${out.message} (time trust: ${trust}${wanted === trust ? '' : `, ${wanted} wanted`})`
    return new BirthmarkError(out.code, message, { cause: out.cause, retryAfterSeconds: out.retryAfterSeconds })
  }

  const status = (): IdentityStatus => {
    const { lastError, ...rest } = agent.status()
    const { error, ...trust } = time.status()
    const out: IdentityStatus = {
      ...rest,
      lastError: lastError && told(lastError),
      time: { ...trust, error: error && birthmarkError(error) },
    }
    if (closed) out.state = 'closed'
    return out
  }

  // How many calls wait. The last one that is aborted ends the operation, unless start() wants it anyway.
  let waiting = 0
  let stopListening = () => {}
  const call = (signal: AbortSignal | undefined, begin: (done: (error: unknown) => void) => void) =>
    new Promise<IdentityStatus>((resolve, reject) => {
      const aborted = () => new BirthmarkError('aborted', 'aborted by the caller', { cause: signal?.reason })
      if (closed) return reject(new BirthmarkError('aborted', 'this identity is closed'))
      if (signal?.aborted) return reject(aborted())
      let ended = false
      const end = (settle: () => void) => {
        if (ended) return
        ended = true
        waiting--
        signal?.removeEventListener('abort', onAbort)
        settle()
      }
      const onAbort = () => {
        end(() => reject(aborted()))
        if (waiting === 0 && !started) agent.abort()
      }
      waiting++
      signal?.addEventListener('abort', onAbort)
      begin(error => end(() => (error ? reject(told(error)) : resolve(status()))))
    })

  /** Asks for a signed time first, where one is wanted and none came yet; without an answer the floor is in force, and status() says so. */
  const timed = (next: () => void): void => {
    if (time.status().wanted === 'signed' && time.now() < 0) time.ask(next)
    else next()
  }

  const identity: Identity = {
    enroll: ({ signal, readmitted } = {}) => call(signal, done => timed(() => agent.enroll(readmitted === true, done))),
    renew: ({ signal } = {}) => call(signal, done => timed(() => agent.renew(done))),
    status,
    on(type, listener) {
      const set = listeners.get(type) ?? new Set()
      listeners.set(type, set.add(listener as (event: never) => void))
      return () => void set.delete(listener as (event: never) => void)
    },
    tlsOptions({ trust } = {}) {
      const { state } = agent.status()
      const active = agent.identity()
      if (state === 'revoked') throw new BirthmarkError('revoked', 'this identity was revoked')
      if (!active) throw new BirthmarkError('identity_missing', 'not enrolled yet')
      if (agent.status().notAfter < time.now()) throw new BirthmarkError('identity_expired', 'the operational certificate is over')
      try {
        return tlsOf(active, trust === undefined ? serverAnchors : certificates('trust', trust))
      } catch (error) {
        throw error instanceof TypeError ? error : birthmarkError(error)
      }
    },
    chain: () => (agent.identity()?.chain ?? []).map(certificate => certificate.der),
    start() {
      if (closed) throw new BirthmarkError('aborted', 'this identity is closed')
      if (started) return identity
      started = true
      const { notices, bus } = options
      if (notices && bus)
        stopListening = listenToNotices(
          notices,
          bus,
          () => agent.revoke('notice'),
          error => tell('notice', { error: birthmarkError(error) }),
        )
      if (agent.status().state === 'revoked') readmission?.revoked()
      if (time.status().wanted !== 'signed' || time.now() >= 0) agent.start()
      else
        time.start(() => {
          if (!closed) agent.start()
        })
      return identity
    },
    close() {
      closed = true
      options.signal?.removeEventListener('abort', identity.close)
      stopListening()
      readmission?.stop()
      time.stop()
      agent.stop()
    },
  }
  if (options.signal?.aborted) identity.close()
  else options.signal?.addEventListener('abort', identity.close)
  return identity
}

/** What record `birth.chain` holds: certificates (leaf first) as PEM or DER, checked and concatenated. For a line that fills a store. */
export function birthChain(chain: Anchors): Uint8Array {
  return new Uint8Array(Buffer.concat(certificates('birth chain', chain)))
}

/** The chain as PEM: what TLS servers, logs and people read. */
export { pemChain }
