// A broker of a few lines, with everything that goes wrong with one: it can be down, lose an acknowledgement, and forget what it retained.

import type { Bytes } from '@birthmark/device-sdk/core'
import { matches } from '../broker/mqtt-bus.ts'
import { RevocationError } from '../errors.ts'
import type { Bus } from '../ports.ts'

export interface MemoryBus extends Bus {
  published: { topic: string; payload: Bytes; retain: boolean }[]
  retained: Map<string, Bytes>
  /** What happens to the next publications: `down` never arrives, `lost` arrives but its acknowledgement doesn't. */
  weather: 'fair' | 'down' | 'lost'
  /** A broker that was killed and started again. */
  restart(): void
}

export function createMemoryBus(): MemoryBus {
  const handlers: { filter: string; onMessage: (topic: string, payload: Bytes) => void }[] = []
  const connects: (() => void)[] = []
  const bus: MemoryBus = {
    published: [],
    retained: new Map(),
    weather: 'fair',
    publish: async (topic, payload, { retain }) => {
      if (bus.weather === 'down') throw new RevocationError('bus_failed', topic)
      bus.published.push({ topic, payload, retain })
      // MQTT 3.1.1, 3.3.1.3.
      if (retain && payload.length === 0) bus.retained.delete(topic)
      else if (retain) bus.retained.set(topic, payload)
      for (const { filter, onMessage } of handlers) if (matches(filter, topic)) onMessage(topic, payload)
      if (bus.weather === 'lost') throw new RevocationError('bus_failed', `${topic}: not acknowledged`)
    },
    subscribe: async (filter, onMessage) => {
      handlers.push({ filter, onMessage })
      for (const [topic, payload] of bus.retained) if (matches(filter, topic)) onMessage(topic, payload)
    },
    onConnect: callback => {
      connects.push(callback)
    },
    restart: () => {
      bus.retained.clear()
      for (const callback of connects) callback()
    },
  }
  return bus
}

export const quietLog = { info: () => {}, warn: () => {}, error: () => {} }
