// What relying parties have said of notices, as a publisher hears it: who has which one in force. A name counts from its first word on, and until that is
// taken back by an empty one on its topic (MQTT 3.1.1, 3.3.1.3: the broker then retains nothing). The broker's access rules say who may write there:
// that relying party, and the publisher; a device may not.

import { type Acknowledgement, acknowledgementTopic, decodeAcknowledgement } from './acknowledgement.ts'
import { RevocationError } from './errors.ts'
import type { Bus, Clock, Log, PublishBus } from './ports.ts'

export interface Confirmations {
  /** The newest notice that this relying party has in force; 0 for none, or none that it has said. */
  seqOf(name: string): number
  heard(): Acknowledgement[]
  /** Of `expected` and whoever has said anything: who has this notice in force, and who has not said so. */
  of(seq: number, expected: readonly string[]): { confirmed: string[]; missing: string[] }
  /**
   * Takes back what a retired relying party has said, at the broker too: it counts no more, and from its next word on again if it was not retired. False
   * when it has said nothing. Rejects with `bus_failed` when the broker does not show that it has forgotten it, as one does whose access rules do not let
   * the publisher write there: MQTT 3.1.1 acknowledges that all the same.
   */
  forget(name: string): Promise<boolean>
  /** Has the broker show the words that it retains once more, where the bus can. Returns at once; what fails is logged. */
  listenAgain(): void
}

// Names for which words are kept: brokers, gateways and APIs, not devices.
const namesMax = 1000
/** For the broker to show the empty word to us once it took it, while an operator waits. */
const shownSecondsMax = 10

export function createConfirmations(parts: {
  fleet: string
  bus: PublishBus & Partial<Pick<Bus, 'subscribe' | 'subscribeAgain'>>
  clock: Clock
  log: Log
}): Confirmations {
  const { fleet, bus, clock, log } = parts
  const words = new Map<string, Acknowledgement>()
  const forgetting = new Set<{ name: string; done: () => void }>()
  const topicOf = (name: string) => acknowledgementTopic(fleet, name)
  const seqOf = (name: string) => words.get(name)?.seq ?? 0

  function hear(topic: string, payload: Uint8Array): void {
    // The name in the topic is the one that the broker authenticated.
    const name = topic.slice(topicOf('').length)
    if (payload.length === 0) {
      words.delete(name)
      for (const waiting of forgetting) if (waiting.name === name) waiting.done()
      return
    }
    const word = decodeAcknowledgement(payload)
    if (word?.relyingParty !== name || word.seq < seqOf(name)) return
    if (!words.has(name) && words.size >= namesMax) return
    words.set(name, word)
  }

  const deaf = (error: unknown) => log.warn({ err: error }, 'acknowledgements can not be heard')
  bus.subscribe?.(topicOf('+'), hear).catch(deaf)

  return {
    seqOf,
    heard: () => [...words.values()],
    of(seq, expected) {
      const names = [...new Set([...expected, ...words.keys()])].sort()
      return { confirmed: names.filter(name => seqOf(name) >= seq), missing: names.filter(name => seqOf(name) < seq) }
    },
    async forget(name) {
      if (!words.has(name)) return false
      const waiting = { name, done: () => {} }
      const shown = new Promise<void>(resolve => {
        waiting.done = resolve
      })
      forgetting.add(waiting)
      let cancel = () => {}
      try {
        // The bus bounds its own time, and says why it took none.
        await bus.publish(topicOf(name), new Uint8Array(0), { qos: 1, retain: true })
        const late = new Promise<never>((_resolve, reject) => {
          const error = new RevocationError('bus_failed', `the broker does not show that ${topicOf(name)} is empty`)
          cancel = clock.setTimer(shownSecondsMax, () => reject(error))
        })
        await Promise.race([shown, late])
        return true
      } finally {
        cancel()
        forgetting.delete(waiting)
      }
    },
    listenAgain() {
      bus.subscribeAgain?.(topicOf('+')).catch(deaf)
    },
  }
}
