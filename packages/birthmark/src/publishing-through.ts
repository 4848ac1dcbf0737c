// A bus whose messages take another way: counted, or held back until the broker has shown what it holds. All else that it can stays its own, such as
// telling of a new connection.

import type { PublishBus } from '@birthmark/fleet-revocation'

export function publishingThrough(bus: PublishBus, publish: PublishBus['publish']): PublishBus {
  return Object.assign(Object.create(bus) as PublishBus, { publish })
}
