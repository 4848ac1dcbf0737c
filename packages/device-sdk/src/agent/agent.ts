// The device's story: boot → birth check → enroll → renew → revoked. Event-driven and resumable at every step: whatever stands in the
// store when the power goes is where the next boot carries on. At any instant the store holds the old identity or the new one.
// One operation runs at a time. Sockets, keys and clocks are the ports'; what a certificate is worth is the core's.

import { type BirthIdentity, checkBirthCertificate, readBirthIdentity } from '../core/birth-certificate.ts'
import { type Bytes, equalBytes } from '../core/bytes.ts'
import { type Certificate, parseCertificate } from '../core/certificate.ts'
import { csrAssemble, csrInfo, parseCsr } from '../core/csr.ts'
import { COMMON_NAME, encodeName, nameAttribute, SERIAL_NUMBER } from '../core/distinguished-name.ts'
import { type DeviceError, type DeviceErrorCode, deviceError, fail } from '../core/errors.ts'
import { type BasicSecret, cacertsRequest, enrollRequest } from '../core/est-request.ts'
import { type EstVerdict, judgeCacerts, judgeEnroll } from '../core/est-response.ts'
import { anchorOf } from '../core/trust-anchor.ts'
import { type PathRules, validatePath } from '../core/validate-path.ts'
import type { Agent, AgentPorts, AgentSettings, Done, OnEvent } from './agent-interface.ts'
import { ACTIVE, decodeChain, encodedOf, type Identity, PENDING, REVOKED, readSlots, slotOf, writeSlot } from './identity-slots.ts'
import type { HttpRequest, HttpResponse, Verify } from './ports.ts'
import { renewalTime, retryDelay } from './schedule.ts'

/** How the server says that this device, or the group it belongs to, was revoked. */
const REVOKED_REFUSAL = /^403 (device|group)_revoked/
/** id-kp-clientAuth, 1.3.6.1.5.5.7.3.2: what an operational certificate is for. */
const CLIENT_AUTH = '2b06010505070302'
/** Leaf, two intermediates and a cross-certificate, twice over. */
const pathDepthMax = 6
const pathSignaturesMax = 16
/** Engines count timers in 31 bits of milliseconds; a daily look also notices that the clock was set. */
const timerSecondsMax = 86400

/** validatePath or checkBirthCertificate. */
type PathCheck<T> = (
  leaf: Certificate,
  others: Certificate[],
  rules: PathRules,
  verify: Verify,
  done: (error: DeviceError | null, value: T | null) => void,
) => void

function nothing(): void {}

function selfIssued(certificate: Certificate): boolean {
  return equalBytes(certificate.issuer, certificate.subject)
}

function parsed(certificates: Bytes[]): Certificate[] {
  return certificates.map(function (der) {
    return parseCertificate(der)
  })
}

export function createAgent(ports: AgentPorts, settings: AgentSettings, onEvent: OnEvent): Agent {
  const store = ports.store
  const hash = ports.hash
  const keys = ports.keys
  const clock = ports.clock
  const secret = settings.secret

  const found = readSlots(store, hash)
  let active = found.active
  let pending = found.pending
  let revoked = !!active && active.state === REVOKED
  let deviceId = active
    ? nameAttribute(active.chain[0].subject, SERIAL_NUMBER) || nameAttribute(active.chain[0].subject, COMMON_NAME) || ''
    : ''

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
  let subject: Bytes = encodeName([])
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

  /** The latest moment that has surely passed, seconds since 1970: by clock, build, or what the identity in use says. 0: nothing is known. */
  function least(): number {
    return Math.max(clock.now(), settings.timeFloor, active ? Math.max(active.since, active.chain[0].notBefore) : 0)
  }

  /** Seconds since 1970; −1 when the clock has none or shows what is surely past. */
  function now(): number {
    const time = clock.now()
    return time < least() ? -1 : time
  }

  function expired(identity: Identity): boolean {
    return least() > identity.chain[0].notAfter
  }

  /** From the later of notBefore and activation: a back-dated notBefore must not make a short certificate due at once. */
  function renewAt(identity: Identity): number {
    const leaf = identity.chain[0]
    return renewalTime(hash, deviceId, identity.generation, Math.max(leaf.notBefore, identity.since), leaf.notAfter)
  }

  function schedule(): void {
    cancelTimer()
    cancelTimer = nothing
    if (!started || revoked || busy) return
    let seconds = 0
    if (lastError) seconds = retryDelay(failures, lastError.retryAfterSeconds || 0, ports.rng.random(3))
    else if (active && !pending) seconds = Math.max(1, renewAt(active) - Math.max(now(), least() + slept))
    onEvent('scheduled', seconds)
    const wait = lastError ? seconds : Math.min(seconds, timerSecondsMax)
    cancelTimer = clock.setTimer(wait, function () {
      slept += wait
      if (wait < seconds) schedule()
      else begin(true, nothing)
    })
  }

  function finish(error: DeviceError | null): void {
    const done = waiting
    turn++
    busy = false
    waiting = []
    cancel = nothing
    lastError = error
    failures = error && error.code !== 'est_pending' ? failures + 1 : 0
    if (error) {
      const code = error.code
      if (code === 'est_unauthorized' || code === 'key_unavailable' || (proving && code === 'est_refused')) {
        if (!proving) distrusted = reenroll
        else
          try {
            // Rolled back: the old identity stays, and the next attempt starts with a new key.
            discard()
          } catch (_) {
            // It is still there, then, and proves itself once more next time.
          }
      }
      onEvent('failed', error)
    }
    schedule()
    for (let i = 0; i < done.length; i++) done[i](error)
  }

  function abort(code: DeviceErrorCode): void {
    const stopping = cancel
    if (busy) finish(deviceError(code, 'stopped'))
    stopping()
  }

  /** The continuation `next` of this step, for a port to call back. What it throws, and the port's error, end the operation. */
  function step<T>(next: (value: T) => void): (error: DeviceError | null, value?: T | null) => void {
    const mine = ++turn
    return function (error, value) {
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

  function exchange(request: HttpRequest, next: (response: HttpResponse) => void): void {
    cancel = ports.http.request(request, { slot: slot, chain: chain.map(encodedOf), anchors: settings.serverAnchors }, step(next))
  }

  /** Throws a verdict other than `issued` as the error it is. */
  function certificatesOf(verdict: EstVerdict): Certificate[] {
    if (verdict.kind === 'issued') return verdict.certificates
    const error = deviceError(('est_' + verdict.kind) as DeviceErrorCode, verdict.detail)
    error.retryAfterSeconds = verdict.retryAfterSeconds
    throw error
  }

  /** Validates `certificates[0]` over the others and goes on with the path. */
  function validate<T>(
    how: PathCheck<T>,
    certificates: Certificate[],
    anchors: Certificate[],
    purpose: string | null,
    next: (value: T) => void,
  ): void {
    const rules = {
      anchors: anchors.map(anchorOf),
      time: now(),
      // Without any lower bound the path is refused for want of time rather than judged against 1970.
      timeFloor: least() || undefined,
      algorithms: settings.algorithms,
      purpose: purpose,
      understoodCritical: [],
      depthMax: pathDepthMax,
      signaturesMax: pathSignaturesMax,
    }
    how(certificates[0], certificates.slice(1), rules, ports.verify, step(next))
  }

  function revoke(by: string): void {
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

  function discard(): void {
    const identity = pending as Identity
    store.remove(slotOf(identity))
    pending = null
    onEvent('dropped', identity)
  }

  function promote(): void {
    const next = pending as Identity
    writeSlot(store, hash, next, ACTIVE, Math.max(now(), 0), next.chain)
    active = next
    pending = null
    slept = 0
    revoked = false
    distrusted = false
    onEvent('active', next)
    finish(null)
  }

  function prove(): void {
    const next = pending as Identity
    proving = true
    slot = slotOf(next)
    chain = next.chain
    if (settings.prove) settings.prove(next, step(promote))
    else
      exchange(cacertsRequest(settings.label), function (response) {
        certificatesOf(judgeCacerts(response, now()))
        promote()
      })
  }

  /** Validates what was issued, records it, and only then thinks of using it. */
  function accept(certificates: Certificate[]): void {
    const leaf = certificates[0]
    const name = leaf.subject
    if (leaf.isCa || (nameAttribute(name, SERIAL_NUMBER) !== deviceId && nameAttribute(name, COMMON_NAME) !== deviceId))
      fail('est_certificate_mismatch', 'issued for another')
    // The same request after long silence may get the same certificate. Once that is over, a new key asks anew.
    if (least() > leaf.notAfter) {
      discard()
      fail('path_expired', 'issued long ago')
    }
    // Of what /cacerts said, the self-issued are roots and the others help to reach them.
    const anchors = authorities.length ? authorities.filter(selfIssued) : parsed(settings.operationalAnchors)
    validate(validatePath, certificates.concat(authorities), anchors, CLIENT_AUTH, function (path) {
      // The root is for the other side to know.
      if (path.length > 1 && selfIssued(path[path.length - 1])) path.pop()
      writeSlot(store, hash, pending as Identity, PENDING, 0, path)
      onEvent('issued', pending as Identity)
      prove()
    })
  }

  function send(basic: BasicSecret | null): void {
    const csr = (pending as Identity).csr
    exchange(enrollRequest(csr, { label: settings.label, reenroll: reenroll, basic: basic }), function (response) {
      const verdict = judgeEnroll(response, parseCsr(csr).spki, now())
      if (verdict.kind === 'unauthorized' && secret && !basic) send(secret)
      else if (verdict.kind === 'refused' && REVOKED_REFUSAL.test(verdict.detail)) revoke('server')
      else accept(certificatesOf(verdict))
    })
  }

  function request(): void {
    onEvent('request', pending as Identity)
    send(null)
  }

  function makeRequest(): void {
    const next: Identity = { generation: active ? active.generation + 1 : 1, state: PENDING, since: 0, csr: subject, chain: [] }
    const slot = slotOf(next)
    // From here the older identity of this slot is gone; the one in use lives in the other slot.
    store.remove(slot)
    keys.generate(
      slot,
      step(function (spki: Bytes) {
        const info = csrInfo(subject, spki, [])
        keys.sign(
          slot,
          info,
          step(function (signature: Bytes) {
            next.csr = csrAssemble(info, keys.algorithm, signature)
            // Recorded before it is sent: whatever the server makes of it, a reboot asks for the same again.
            writeSlot(store, hash, next, PENDING, 0, [])
            pending = next
            request()
          }),
        )
      }),
    )
  }

  /** Who asks: `name` is that of the certificate to be renewed, null to enroll as `id`. Without configured issuers, /cacerts is asked first. */
  function introduce(id: string, name: Bytes | null, from: string | null, certificates: Certificate[]): void {
    deviceId = id
    reenroll = name !== null
    subject =
      name ||
      encodeName([
        { oid: COMMON_NAME, value: id },
        { oid: SERIAL_NUMBER, value: id },
      ])
    slot = from
    chain = certificates
    const ask = pending ? request : makeRequest
    if (settings.operationalAnchors.length) ask()
    else
      exchange(cacertsRequest(settings.label), function (response) {
        authorities = certificatesOf(judgeCacerts(response, now()))
        ask()
      })
  }

  function introduceByBirth(certificates: Certificate[]): void {
    keys.publicKey(
      'birth',
      step(function (spki: Bytes | null) {
        if (certificates.length === 0 || !spki || !equalBytes(spki, certificates[0].spki)) fail('birth_key_mismatch', 'slot birth')
        const accepted = function (birth: BirthIdentity): void {
          onEvent('birth', birth.serialNumber)
          introduce(birth.serialNumber, null, 'birth', certificates)
        }
        if (settings.birthAnchors.length)
          validate(checkBirthCertificate, certificates, parsed(settings.birthAnchors), null, accepted)
        else accepted(readBirthIdentity(certificates[0]))
      }),
    )
  }

  function proceed(renew: boolean): void {
    const usable = active && !revoked && active.state === ACTIVE && !expired(active) ? active : null
    if (pending && pending.chain.length && expired(pending)) discard()
    const birth = store.get('birth.chain')
    if (usable && !renew) finish(null)
    else if (pending && pending.chain.length) prove()
    else if (usable && !(distrusted && (birth || secret)))
      introduce(deviceId, usable.chain[0].subject, slotOf(usable), usable.chain)
    else if (birth) introduceByBirth(decodeChain(birth))
    else if (secret) introduce(secret.user, null, null, [])
    else fail('identity_missing', 'no birth certificate, no secret')
  }

  function begin(renew: boolean, done: Done): void {
    waiting.push(done)
    if (busy) return
    busy = true
    proving = false
    cancelTimer()
    try {
      proceed(renew)
    } catch (thrown) {
      finish(thrown as DeviceError)
    }
  }

  return {
    start: function () {
      started = true
      schedule()
    },
    enroll: function (readmitted, done) {
      if (revoked && !readmitted) done(deviceError('revoked', 'this identity'))
      else {
        revoked = false
        begin(false, done)
      }
    },
    renew: function (done) {
      if (revoked) done(deviceError('revoked', 'this identity'))
      else begin(true, done)
    },
    status: function () {
      const leaf = active ? active.chain[0] : null
      return {
        state: revoked
          ? 'revoked'
          : busy
            ? leaf
              ? 'renewing'
              : 'enrolling'
            : !active
              ? 'unenrolled'
              : expired(active)
                ? 'expired'
                : 'active',
        deviceId: deviceId,
        generation: active ? active.generation : 0,
        notAfter: leaf ? leaf.notAfter : 0,
        renewAt: active ? renewAt(active) : 0,
        timeTrusted: now() >= 0,
        lastError: lastError,
      }
    },
    identity: function () {
      return active && active.state === ACTIVE ? active : null
    },
    revoke: revoke,
    abort: function () {
      abort('aborted')
    },
    stop: function () {
      started = false
      abort('aborted')
      schedule()
    },
  }
}
