// Keeps a NoticeReceiver fed: subscribed to the topics it names now, which change as it finds gaps in what it was told.

import type { Bus, NoticeReceiver } from '../../agent/ports.ts'
import type { DeviceError } from '../../core/errors.ts'

/** `onError`: a notice was refused, which changes nothing. Returns how to stop. */
export function listenToNotices(
  notices: NoticeReceiver,
  bus: Bus,
  onRevoked: () => void,
  onError: (error: DeviceError) => void,
): () => void {
  const subscribed = new Map<string, () => void>()
  const resubscribe = () => {
    for (const [topic, unsubscribe] of subscribed) {
      if (notices.topics.includes(topic)) continue
      subscribed.delete(topic)
      unsubscribe()
    }
    for (const topic of notices.topics) {
      if (subscribed.has(topic)) continue
      // In the map before the call: a bus may deliver a retained message at once.
      subscribed.set(topic, () => {})
      subscribed.set(
        topic,
        bus.subscribe(topic, payload =>
          notices.receive(topic, payload, (error, revoked) => {
            if (error) onError(error)
            if (revoked) onRevoked()
            if (subscribed.size) resubscribe()
          }),
        ),
      )
    }
  }
  resubscribe()
  return () => {
    const all = [...subscribed.values()]
    subscribed.clear()
    for (const unsubscribe of all) unsubscribe()
  }
}
