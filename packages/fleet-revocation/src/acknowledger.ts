// A relying party's word that a notice is in force, until it is heard. It says the newest only: an older one is contained in it. It promises that a
// word which a broker did not take, or took and forgot, comes home within minutes while there is a connection; whoever counts takes it any number of times.

import { createHash } from 'node:crypto'
import { type Acknowledgement, acknowledgementTopic, encodeAcknowledgement } from './acknowledgement.ts'
import type { Bus, Clock, Log } from './ports.ts'

export type Word = Omit<Acknowledgement, 'relyingParty'>

export interface Acknowledger {
  /** At once, in the place of what is still on its way. */
  say(word: Word): void
  /** Whoever counts may have lost it: once more, soon. Nothing where nothing was said yet. */
  again(): void
  close(): void
}

// A broker that starts again is joined by everybody at once: a thousand names over two seconds are what it takes in its stride.
const spreadSeconds = 2
// The broker is away, or choosing a leader; and within minutes once it is back.
const retrySecondsMin = 2
const retrySecondsMax = 300

/** Between 0 and 1, the same for a name at any time, so that a failure can be replayed. */
function placeOf(name: string): number {
  return createHash('sha256').update(name).digest().readUInt32BE() / 2 ** 32
}

export function createAcknowledger(parts: {
  fleet: string
  name: string
  bus: Pick<Bus, 'publish' | 'onConnect'>
  /** What was in force before a restart; null for nothing. It is said when somebody may be waiting for it. */
  before: Word | null
  clock: Clock
  log: Log
}): Acknowledger {
  const { fleet, name, bus, clock, log } = parts
  const topic = acknowledgementTopic(fleet, name)
  const place = placeOf(name)
  let newest = parts.before
  let retrySeconds = retrySecondsMin
  let waits = false
  let cancel = () => {}
  let closed = false

  function after(seconds: number): void {
    cancel()
    waits = true
    cancel = clock.setTimer(seconds, publish)
  }

  function publish(): void {
    cancel()
    waits = false
    if (newest === null || closed) return
    const said = newest
    bus.publish(topic, encodeAcknowledgement({ relyingParty: name, ...said }), { qos: 1, retain: true }).then(
      () => {
        retrySeconds = retrySecondsMin
      },
      (error: unknown) => {
        // What has been said since is on its way itself.
        if (said !== newest || waits || closed) return
        log.warn({ err: error, seq: said.seq, retrySeconds }, 'acknowledgement not sent; trying again')
        after(retrySeconds * (1 + place))
        retrySeconds = Math.min(retrySeconds * 2, retrySecondsMax)
      },
    )
  }

  function again(): void {
    if (newest !== null && !closed) after(spreadSeconds * place)
  }
  bus.onConnect(again)

  return {
    say(word) {
      newest = word
      retrySeconds = retrySecondsMin
      publish()
    },
    again,
    close() {
      closed = true
      cancel()
    },
  }
}
