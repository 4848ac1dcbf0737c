// The device's story: boot → birth check → enroll → renew → revoked. Event-driven and resumable at every step: whatever stands in the
// store when the power goes is where the next boot carries on. At any instant the store holds the old identity or the new one.
// One operation runs at a time. Sockets, keys and clocks are the ports'; what a certificate is worth is the core's.

import { readBirthIdentity } from '../core/birth-certificate.ts'
import { type Bytes, equalBytes } from '../core/bytes.ts'
import { type Certificate, parseCertificate } from '../core/certificate.ts'
import { csrAssemble, csrInfo } from '../core/csr.ts'
import { COMMON_NAME, nameAttribute, SERIAL_NUMBER } from '../core/distinguished-name.ts'
import { type DeviceError, type DeviceErrorCode, deviceError, fail } from '../core/errors.ts'
import { type BasicSecret, cacertsRequest, enrollRequest } from '../core/est-request.ts'
import { type EstVerdict, judgeCacerts, judgeEnroll } from '../core/est-response.ts'
import { anchorOf } from '../core/trust-anchor.ts'
import { validatePath } from '../core/validate-path.ts'
import type { Agent, AgentPorts, AgentSettings, Done, OnEvent } from './agent-interface.ts'
import { ACTIVE, decodeChain, encodedOf, type Identity, PENDING, REVOKED, readSlots, slotOf, writeSlot } from './identity-slots.ts'
import type { HttpRequest, HttpResponse } from './ports.ts'
import { renewalTime, retryDelay } from './schedule.ts'

/** How the server says that this device, or the group it belongs to, was revoked. */
const REVOKED_REFUSAL = /^403 [dg][a-z]+_revoked/
/** A new identity that ends so when it is to prove itself is thrown away. */
const REFUSED = 'est_unauthorized,key_unavailable,est_refused'
/** id-kp-clientAuth, 1.3.6.1.5.5.7.3.2: what an operational certificate is for. */
const CLIENT_AUTH = '2b06010505070302'
/** Leaf, two intermediates and a cross-certificate, twice over. */
const pathDepthMax = 6
const pathSignaturesMax = 16
/** Engines count timers in 31 bits of milliseconds; a daily look also notices that the clock was set. */
const timerSecondsMax = 86400

const nothing = (): void => {}
const idOf = (certificate: Certificate): string =>
  nameAttribute(certificate.subject, SERIAL_NUMBER) || nameAttribute(certificate.subject, COMMON_NAME) || ''
const selfIssued = (certificate: Certificate): boolean => equalBytes(certificate.issuer, certificate.subject)

export function createAgent(ports: AgentPorts, settings: AgentSettings, onEvent: OnEvent): Agent {
  const store = ports.store
  const hash = ports.hash
  const keys = ports.keys
  const clock = ports.clock
  const secret = settings.secret
  const anchored = settings.operationalAnchors.map(parseCertificate)

  const found = readSlots(store, hash)
  let active = found.active
  let pending = found.pending
  let revoked = active !== null && active.state === REVOKED
  let deviceId = active ? idOf(active.chain[0]) : ''

  // The running operation. `turn` numbers its steps: a callback of an older step finds another number and does nothing.
  let turn = 0
  let busy = false
  let proving = false
  let waiting: Done[] = []
  let cancel = nothing
  // How it introduces itself: the slot and chain that open TLS, whether that is the operational identity, and the name it asks for.
  let slot: string | null = null
  let chain: Certificate[] = []
  let reenroll = false
  let subject: Bytes
  // Issuers that /cacerts named, where none are configured.
  let authorities: Certificate[] = []
  // The operational identity was not accepted, or its key is gone: the next attempt shows the birth certificate.
  let distrusted = false

  let started = false
  let failures = 0
  let lastError: DeviceError | null = null
  let cancelTimer = nothing
  // Seconds slept since the identity became active, for want of a clock.
  let slept = 0

  /** From the later of notBefore and activation: a back-dated notBefore must not make a short certificate due at once. */
  const startOf = (identity: Identity): number => Math.max(identity.chain[0].notBefore, identity.since)

  /** The latest moment that has surely passed, seconds since 1970: by clock, build, or what the identity in use says. 0: nothing is known. */
  const least = (): number => Math.max(clock.now(), settings.timeFloor, active ? startOf(active) : 0)

  /** Seconds since 1970; −1 when the clock has none or shows what is surely past. */
  const now = (): number => {
    const time = clock.now()
    return time < least() ? -1 : time
  }

  const expired = (identity: Identity): boolean => least() > identity.chain[0].notAfter

  const renewAt = (identity: Identity): number =>
    (settings.renewAt || renewalTime)(hash, deviceId, identity.generation, startOf(identity), identity.chain[0].notAfter)

  const schedule = (): void => {
    cancelTimer()
    cancelTimer = nothing
    if (!started || revoked || busy) return
    let seconds = 0
    if (lastError) seconds = retryDelay(failures, lastError.retryAfterSeconds || 0, ports.rng.random(3))
    else if (active && !pending) seconds = Math.max(1, renewAt(active) - (now() < 0 ? least() + slept : now()))
    onEvent('scheduled', seconds)
    const wait = lastError ? seconds : Math.min(seconds, timerSecondsMax)
    cancelTimer = clock.setTimer(wait, () => {
      slept += wait
      if (wait < seconds) schedule()
      else begin(true, nothing)
    })
  }

  const discard = (): void => {
    const identity = pending as Identity
    store.remove(slotOf(identity))
    pending = null
    onEvent('dropped', identity)
  }

  const finish = (error: DeviceError | null): void => {
    const done = waiting
    turn++
    busy = false
    waiting = []
    cancel = nothing
    lastError = error
    failures = error && error.code !== 'est_pending' ? failures + 1 : 0
    // Readmitted, and it came to nothing.
    if (active && active.state === REVOKED) revoked = true
    if (error) {
      const refused = REFUSED.indexOf(error.code) >= 0
      // The operational identity, or its key, is no good for asking: the next attempt shows the birth certificate.
      if (refused && (error.code !== 'est_refused' || /: 403 certificate/.test(error.message))) distrusted = reenroll && !proving
      // `path_expired`: an old request got the old certificate that it got before. Either way the next attempt starts with a new key.
      if (pending && (error.code === 'path_expired' || (proving && refused)))
        try {
          discard()
        } catch (_) {
          // It is still there, then, and comes to the same end next time.
        }
      onEvent('failed', error)
    }
    schedule()
    for (let i = 0; i < done.length; i++) done[i](error)
  }

  const abort = (code: DeviceErrorCode): void => {
    const stopping = cancel
    if (busy) finish(deviceError(code))
    stopping()
  }

  /** The continuation `next` of this step, for a port to call back. What it throws, and the port's error, end the operation. */
  const step = <T>(next: (value: T) => void): ((error: DeviceError | null, value?: T | null) => void) => {
    const mine = ++turn
    return (error, value) => {
      if (mine !== turn) return
      turn++
      try {
        if (error) throw error
        next(value as T)
      } catch (thrown) {
        finish(thrown as DeviceError)
      }
    }
  }

  const exchange = (request: HttpRequest, next: (response: HttpResponse) => void): void => {
    cancel = ports.http.request(request, { slot: slot, chain: chain.map(encodedOf) }, step(next))
  }

  /** Throws a verdict other than `issued` as the error it is. */
  const certificatesOf = (verdict: EstVerdict): Certificate[] => {
    if (verdict.kind === 'issued') return verdict.certificates
    const error = deviceError(('est_' + verdict.kind) as DeviceErrorCode, verdict.detail)
    error.retryAfterSeconds = verdict.retryAfterSeconds
    throw error
  }

  const askCacerts = (next: (certificates: Certificate[]) => void): void =>
    exchange(cacertsRequest(settings.label), response => next(certificatesOf(judgeCacerts(response, now()))))

  /** Validates `certificates[0]` over the others and goes on with the path. */
  const validate = (
    certificates: Certificate[],
    anchors: Certificate[],
    purpose: string | null,
    next: (path: Certificate[]) => void,
  ): void =>
    validatePath(
      certificates[0],
      certificates.slice(1),
      {
        anchors: anchors.map(anchorOf),
        time: now(),
        // Without any lower bound the path is refused for want of time rather than judged against 1970.
        timeFloor: least() || undefined,
        algorithms: settings.algorithms,
        purpose: purpose,
        understoodCritical: [],
        depthMax: pathDepthMax,
        signaturesMax: pathSignaturesMax,
      },
      ports.verify,
      step(next),
    )

  const revoke = (by: string): void => {
    if (revoked) return
    revoked = true
    try {
      if (active) writeSlot(store, hash, active, REVOKED, active.since, active.chain)
    } catch (_) {
      // Revoked until the next boot at least; then the notice or the server says so again.
    }
    onEvent('revoked', by)
    abort('revoked')
    schedule()
  }

  const promote = (): void => {
    const next = pending as Identity
    writeSlot(store, hash, next, ACTIVE, Math.max(now(), 0), next.chain)
    active = next
    pending = null
    slept = 0
    revoked = distrusted = false
    onEvent('active', next)
    finish(null)
  }

  const prove = (): void => {
    const next = pending as Identity
    proving = true
    slot = slotOf(next)
    chain = next.chain
    if (settings.prove) settings.prove(next, step(promote))
    else askCacerts(promote)
  }

  /** Validates what was issued, records it, and only then thinks of using it. */
  const accept = (certificates: Certificate[]): void => {
    const leaf = certificates[0]
    if (leaf.isCa || idOf(leaf) !== deviceId) fail('est_certificate_mismatch', 'subject')
    // Of what /cacerts said, the self-issued are roots and the others help to reach them.
    const anchors = anchored.length ? anchored : authorities.filter(selfIssued)
    validate(certificates.concat(authorities), anchors, CLIENT_AUTH, path => {
      const next = pending as Identity
      // The root is for the other side to know.
      writeSlot(
        store,
        hash,
        next,
        PENDING,
        0,
        path.filter(one => one === leaf || !selfIssued(one)),
      )
      onEvent('issued', next)
      prove()
    })
  }

  const send = (spki: Bytes, basic: BasicSecret | null): void =>
    exchange(enrollRequest((pending as Identity).csr, { label: settings.label, reenroll: reenroll, basic: basic }), response => {
      const verdict = judgeEnroll(response, spki, now())
      if (verdict.kind === 'unauthorized' && secret && !basic) send(spki, secret)
      else if (verdict.kind === 'refused' && REVOKED_REFUSAL.test(verdict.detail)) revoke('server')
      else accept(certificatesOf(verdict))
    })

  /** Sends the recorded request as long as its key is there; otherwise makes one. */
  const ask = (): void => {
    const next: Identity = pending || {
      generation: active ? active.generation + 1 : 1,
      state: PENDING,
      since: 0,
      csr: subject,
      chain: [],
    }
    const name = slotOf(next)
    const use = (spki: Bytes | null): void => {
      if (pending && spki) {
        onEvent('request', next)
        send(spki, null)
      } else if (pending) {
        discard()
        ask()
      } else {
        const info = csrInfo(subject, spki as Bytes, [])
        keys.sign(
          name,
          info,
          step((signature: Bytes) => {
            next.csr = csrAssemble(info, keys.algorithm, signature)
            // Recorded before it is sent: whatever the server makes of it, a reboot asks for the same again.
            writeSlot(store, hash, next, PENDING, 0, [])
            pending = next
            use(spki)
          }),
        )
      }
    }
    if (pending) keys.publicKey(name, step(use))
    else {
      // From here the older identity of this slot is gone; the one in use lives in the other slot.
      store.remove(name)
      keys.generate(name, step(use))
    }
  }

  /** Who asks, under the name of the certificate it shows. Without configured issuers, /cacerts is asked first. */
  const introduce = (id: string, renewal: boolean, from: string | null, certificates: Certificate[]): void => {
    deviceId = id
    reenroll = renewal
    subject = certificates.length ? certificates[0].subject : settings.name
    slot = from
    chain = certificates
    if (anchored.length) ask()
    else
      askCacerts(found => {
        authorities = found
        ask()
      })
  }

  const introduceByBirth = (certificates: Certificate[]): void =>
    keys.publicKey(
      'birth',
      step((spki: Bytes | null) => {
        if (!certificates.length || !spki || !equalBytes(spki, certificates[0].spki)) fail('birth_key_mismatch', 'birth')
        const id = readBirthIdentity(certificates[0]).serialNumber
        const anchors = settings.birthAnchors.map(parseCertificate)
        validate(certificates, anchors.length ? anchors : certificates.slice(-1), null, () => {
          onEvent('birth', id)
          introduce(id, false, 'birth', certificates)
        })
      }),
    )

  const proceed = (renew: boolean): void => {
    const usable = active && active.state === ACTIVE && !expired(active) ? active : null
    const issued = pending && pending.chain.length
    if (issued && expired(pending as Identity)) discard()
    const birth = store.get('birth.chain')
    if (usable && !renew) finish(null)
    else if (issued && pending) prove()
    else if (usable && !(distrusted && (birth || secret))) introduce(deviceId, true, slotOf(usable), usable.chain)
    else if (birth) introduceByBirth(decodeChain(birth))
    else if (secret) introduce(secret.user, false, null, [])
    else fail('identity_missing', 'birth.chain')
  }

  const begin = (renew: boolean, done: Done): void => {
    if (revoked) done(deviceError('revoked'))
    else {
      waiting.push(done)
      if (busy) return
      busy = true
      proving = false
      cancelTimer()
      step(proceed)(null, renew)
    }
  }

  return {
    start: () => {
      started = true
      schedule()
    },
    enroll: (readmitted, done) => {
      if (readmitted) revoked = false
      begin(false, done)
    },
    renew: done => begin(true, done),
    status: () => ({
      state: revoked
        ? 'revoked'
        : busy
          ? active
            ? 'renewing'
            : 'enrolling'
          : !active
            ? 'unenrolled'
            : expired(active)
              ? 'expired'
              : 'active',
      deviceId: deviceId,
      generation: active ? active.generation : 0,
      notAfter: active ? active.chain[0].notAfter : 0,
      renewAt: active ? renewAt(active) : 0,
      timeTrusted: now() >= 0,
      lastError: lastError,
    }),
    identity: () => (active && active.state === ACTIVE ? active : null),
    revoke: revoke,
    abort: () => abort('aborted'),
    stop: () => {
      started = false
      abort('aborted')
      schedule()
    },
  }
}
