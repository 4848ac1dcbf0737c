// Which time a device goes by, and how far it is to be trusted. A clock of its own kind for the agent, composed in by the port: where none is
// trusted, `now()` is −1 and the agent judges by its lower bound; nothing is ever judged without either. Optional: a firmware with a clock that it
// trusts passes that clock and leaves this file out.

import { type Bytes, utf8Bytes, utf8Text } from '../core/bytes.ts'
import { type DeviceError, deviceError } from '../core/errors.ts'
import { judgeTime, type TimeSigner, timeRequest } from '../core/signed-time.ts'
import type { Clock, Http, Rng, Store, Verify } from './ports.ts'
import { retryDelay } from './schedule.ts'

/**
 * `none`: no time at all, so that whatever has an end is refused (`path_time_untrusted`). `floor`: no clock, but a moment that has surely passed: the
 * build, the last signed time, what the certificate in use says. `network`: the engine's clock, as long as it is past the floor. `signed`: the
 * server's word over a fresh nonce, counted on from there; until it came, the floor.
 */
export type TimeTrust = 'none' | 'floor' | 'network' | 'signed'

export interface TimeStatus {
  /** In force now: what was wanted, or the floor that stands in for it. */
  trust: TimeTrust
  wanted: TimeTrust
  /** Seconds since 1970 that have surely passed; 0 when nothing is known. */
  floor: number
  /** Why the trust in force is not the one that was wanted; null when it is. */
  error: DeviceError | null
}

export interface SignedTimeSource {
  http: Http
  signers: TimeSigner[]
  fleet: string
  verify: Verify
  rng: Rng
}

export interface TimeOptions {
  trust: TimeTrust
  /** The engine's. Its timers count in any case; its `now()` is looked at for `network` alone. */
  clock: Clock
  /** Seconds that only grow, from anywhere: they count on from a signed time. Time asleep should be in it. */
  elapsed(): number
  /** Seconds since 1970 that have surely passed: the firmware's build. Ignored for `none`. */
  floor: number
  /** Keeps the last signed time over a reboot. */
  store: Store
  /** For `signed`. */
  source: SignedTimeSource | null
}

export interface TrustedClock extends Clock {
  status(): TimeStatus
  /** For `signed`: asks once, now; for the others there is nothing to ask. A failure leaves what is in force. */
  ask(done: (error: DeviceError | null) => void): void
  /** For `signed`: asks, retries, and asks again daily, since oscillators drift. `first`: the first answer came, or failed to. */
  start(first: () => void): void
  stop(): void
}

const RECORD = 'time'
const askAgainSeconds = 86400

/** A damaged record is as none. Throws `store_read`. */
function savedTime(store: Store): number {
  const saved = store.get(RECORD)
  const text = saved && utf8Text(saved)
  return text && text.length < 13 && /^\d+$/.test(text) ? +text : 0
}

/** Throws `store_read`. */
export function trustedClock(options: TimeOptions): TrustedClock {
  const wanted = options.trust
  const clock = options.clock
  const source = wanted === 'signed' ? options.source : null
  let floor = wanted === 'none' ? 0 : Math.max(options.floor, savedTime(options.store))
  let error: DeviceError | null = source || wanted !== 'signed' ? null : deviceError('time_rejected', 'no signer')
  // The last signed time and what `elapsed()` said then; −1 before the first.
  let signed = -1
  let signedAt = 0
  let cancelTimer = (): void => {}
  let cancelAsking = (): void => {}
  let turn = 0

  const now = (): number => {
    if (wanted === 'signed') return signed < 0 ? -1 : Math.floor(signed + options.elapsed() - signedAt)
    if (wanted !== 'network') return -1
    const time = clock.now()
    return time < floor ? -1 : time
  }

  const take = (time: number): void => {
    // Earlier than what has surely passed: whoever signs that has no clock either.
    if (time < floor) throw deviceError('time_rejected', 'before the floor')
    signed = time
    signedAt = options.elapsed()
    floor = time
    error = null
    try {
      options.store.put(RECORD, utf8Bytes('' + time))
    } catch (_) {
      // After a reboot the earlier floor holds until the server has answered again.
    }
  }

  const ask = (done: (error: DeviceError | null) => void): void => {
    if (!source) {
      done(error)
      return
    }
    const mine = ++turn
    let nonce: Bytes
    const end = (failed: DeviceError | null): void => {
      if (mine !== turn) return
      turn++
      if (failed) error = failed
      done(failed)
    }
    try {
      nonce = source.rng.random(16)
      cancelAsking = source.http.request(timeRequest(nonce), { slot: null, chain: [] }, (failed, response) => {
        if (failed || !response) end(failed || deviceError('network'))
        else
          judgeTime(response, nonce, source.fleet, source.signers, source.verify, (refused, time) => {
            // Of an earlier question, which another one replaced.
            if (mine !== turn) return
            let why = refused
            try {
              if (!refused) take(time)
            } catch (thrown) {
              why = thrown as DeviceError
            }
            end(why)
          })
      })
    } catch (thrown) {
      end(thrown as DeviceError)
    }
  }

  const stop = (): void => {
    turn++
    cancelTimer()
    cancelAsking()
  }

  const keep = (failures: number, told: () => void): void => {
    ask(failed => {
      const wait = failed && source ? retryDelay(failures + 1, 0, source.rng.random(3)) : askAgainSeconds
      cancelTimer = clock.setTimer(wait, () => keep(failed ? failures + 1 : 0, () => {}))
      told()
    })
  }

  return {
    now: now,
    setTimer: (seconds, callback) => clock.setTimer(seconds, callback),
    status: () => {
      const believed = now() >= 0
      const trust = believed ? wanted : floor > 0 ? 'floor' : 'none'
      let why = error
      if (wanted === 'network' && !believed) why = deviceError('time_rejected', 'the clock is before the floor')
      return { trust: trust, wanted: wanted, floor: floor, error: trust === wanted ? null : why }
    },
    ask: ask,
    start: first => {
      if (source) keep(0, first)
      else first()
    },
    stop: stop,
  }
}
