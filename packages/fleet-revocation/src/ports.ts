// What this package is lent by whoever composes it, so that a seed replays any failure.

import type { Bytes } from '@birthmark/device-sdk/core'

export interface Clock {
  /** Seconds since 1970-01-01T00:00:00Z; may carry a fraction. */
  now(): number
  /** Calls back once after `seconds`; the returned function cancels. */
  setTimer(seconds: number, callback: () => void): () => void
}

/** pino's shape. Fields never hold a secret or a private key. */
export interface Log {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

/** A way to publish: the broker in this process, or a client of one elsewhere. */
export interface PublishBus {
  /** Resolves when the broker has taken the message (QoS 1: acknowledged). Rejects with `bus_failed` or `bus_closed`. */
  publish(topic: string, payload: Bytes, options: { qos: 0 | 1; retain: boolean }): Promise<void>
}

export interface Bus extends PublishBus {
  /** `onMessage` is called for live and retained messages, and again after a reconnect. */
  subscribe(topic: string, onMessage: (topic: string, payload: Bytes) => void): Promise<void>
  /**
   * Asks the broker once more for what `subscribe` was given: a subscription that was granted may deliver nothing, and another SUBSCRIBE shows what is
   * retained again (MQTT 3.1.1, 3.8.4). Resolves when it is granted, or when there is no connection, which would ask by itself. Rejects with `bus_failed`.
   * Absent where a subscription is a function call.
   */
  subscribeAgain?(topic: string): Promise<void>
  /** Called whenever a connection stands again: what was retained on the other side may be gone. */
  onConnect(callback: () => void): void
}

export const systemClock: Clock = {
  now: () => Date.now() / 1000,
  setTimer: (seconds, callback) => {
    const timer = setTimeout(callback, seconds * 1000)
    // A waiting timer alone shall not keep a process alive.
    timer.unref()
    return () => clearTimeout(timer)
  },
}
