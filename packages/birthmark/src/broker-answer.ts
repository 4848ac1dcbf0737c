// Whether a broker outside has shown what it retains of a topic, on the connection that there is: what is written before overwrites it unseen.

import type { Clock } from '@birthmark/fleet-revocation'
import type { MqttBus } from '@birthmark/fleet-revocation/broker'

// A broker does not say when it has shown all that it retains. That follows the grant at once; the node of a cluster may fetch it from another.
const quietSeconds = 1

export interface BrokerAnswer {
  /** To be called when the broker has granted the subscription: what it retains is there soon, or there is nothing. */
  granted(): void
  /** To be called when it has shown it. */
  shown(): void
  /** As soon as there is nothing to wait for, also without a connection: there a publication fails by itself. Never, where the broker does not answer. */
  given(): Promise<void>
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
      // Once this connection has ended, another one may stand.
      while (open !== null) await open.ended
    },
  }
}
