// Notices and snapshots over HTTPS, beside EST on the same port: what a relying party asks for when the broker leaves it in doubt. Public and
// signed, so nobody has to log in for them.

import { join } from 'node:path'
import { type Exchange, pathOf, type Store } from '@birthmark/est-server'
import {
  type Clock,
  createHeartbeats,
  createPullHandler,
  createSnapshots,
  heartbeatAt,
  pullPath,
  type Snapshots,
} from '@birthmark/fleet-revocation'
import type { Settings } from './configuration.ts'
import { heartbeatSecret, noticeKeysOf } from './notice-signing.ts'
import { storedRules } from './recorded-rules.ts'

/** The fleet's rules as the store has them, signed by the notice key when asked for. */
export function snapshotsOf({ fleet, notices }: Settings, store: Store, clock: Clock): Snapshots {
  return createSnapshots({
    fleet,
    newest: () => store.newestNotice(fleet),
    rules: () => storedRules(store, fleet),
    keys: noticeKeysOf(notices.keys),
    countersign: notices.countersignAbove !== null,
    now: clock.now,
  })
}

/** A route for the listener's app, under `path`. */
export function noticePull(settings: Settings, store: Store, clock: Clock) {
  const { fleet, state } = settings
  const heartbeats = createHeartbeats(heartbeatSecret(join(state, 'heartbeat.key')), fleet)
  const answer = createPullHandler({
    fleet,
    newest: () => store.newestNotice(fleet),
    notice: seq => store.notice(fleet, seq),
    snapshots: snapshotsOf(settings, store, clock),
    heartbeat: async () => {
      const newest = await store.newestNotice(fleet)
      return newest ? heartbeatAt(newest.notice, await heartbeats.chain(newest.seq), clock.now()) : null
    },
  })
  return {
    path: `${pullPath(fleet)}*`,
    async answer({ env, req }: { env: Exchange; req: { header(name: string): string | undefined } }): Promise<Response> {
      const given = await answer(pathOf(env.target), req.header('if-none-match'))
      if (!given) return new Response('not found\n', { status: 404, headers: { 'content-type': 'text/plain; charset=utf-8' } })
      return new Response(given.body as Uint8Array<ArrayBuffer> | null, { status: given.status, headers: given.headers })
    },
  }
}
