// Whether a broker outside has shown what it retains of a topic, on the connection that there is: what is written before overwrites it unseen.

import type { Clock } from '@birthmark/fleet-revocation'
import type { MqttBus } from '@birthmark/fleet-revocation/broker'

// A broker does not say when it has shown all that it retains. That follows the grant at once; the node of a cluster may fetch it from another.
const quietSeconds = 1
/** As long as for the acknowledgement of a publication. */
const answerSeconds = 10

export interface BrokerAnswer {
  /** To be called when the broker has granted the subscription: what it retains is there soon, or there is nothing. */
  granted(): void
  /** To be called when it has shown it. */
  shown(): void
  /** True as soon as there is nothing to wait for, also without a connection: there a publication fails by itself. False when the broker does not answer. */
  given(): Promise<boolean>
  /** Whether the connection that there is has yet to show it. */
  awaited(): boolean
}

interface Question {
  ended: Promise<void>
  end(): void
}

function question(): Question {
  let end = () => {}
  const ended = new Promise<void>(resolve => {
    end = resolve
  })
  return { ended, end }
}

/** To be made before anybody who publishes as soon as there is a connection. */
export function brokerAnswer(bus: Pick<MqttBus, 'connected' | 'onConnect' | 'onClose'>, clock: Clock): BrokerAnswer {
  let open: Question | null = null
  const settle = (asked: Question | null): void => {
    if (open === asked) open = null
    asked?.end()
  }
  const ask = (): void => {
    const before = open
    open = question()
    before?.end()
  }
  if (bus.connected()) ask()
  bus.onConnect(ask)
  bus.onClose(() => settle(open))

  return {
    granted() {
      const asked = open
      clock.setTimer(quietSeconds, () => settle(asked))
    },
    shown: () => settle(open),
    awaited: () => open !== null,
    async given() {
      if (open === null) return true
      const late = question()
      let isLate = false
      const cancel = clock.setTimer(answerSeconds, () => {
        isLate = true
        late.end()
      })
      // Once this connection has ended, another one may stand.
      while (open !== null && !isLate) await Promise.race([open.ended, late.ended])
      cancel()
      return !isLate
    },
  }
}
