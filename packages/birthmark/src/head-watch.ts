// Whether the world has seen a newer notice than the store knows: then the whole machine was put back, store, mark and all, and only the broker
// outside remembers. Looked at whenever the broker shows the head that it retains, which it does before it takes ours.

import type { Store } from '@birthmark/est-server'
import { type Bus, headTopic, nodeVerify, openNotice } from '@birthmark/fleet-revocation'
import { CommandError } from './command-error.ts'
import type { Settings } from './configuration.ts'
import { noticeSigners } from './notice-signing.ts'
import type { Published } from './published.ts'

export interface HeadWatchParts {
  bus: Pick<Bus, 'subscribe'>
  settings: Pick<Settings, 'fleet' | 'notices'>
  store: Pick<Store, 'newestNotice'>
  published: Pick<Published, 'before'>
  /** The store is an older copy: end the process. The notice that shows it is noted by then, so that no later start overlooks it. */
  onFatal(error: Error): void
}

/** Resolves when the broker was asked, or will be as soon as there is a connection. Rejects where it does not let us read. */
export async function watchHead({ bus, settings, store, published, onFatal }: HeadWatchParts): Promise<void> {
  const { fleet, notices } = settings
  const signers = noticeSigners(notices.keys)
  async function compare(seq: number, notice: Uint8Array): Promise<void> {
    const newest = (await store.newestNotice(fleet))?.seq ?? 0
    if (seq <= newest) return
    await published.before([{ seq, notice }])
    onFatal(
      new CommandError(
        'store_older',
        `the broker holds notice ${seq} of this fleet, and the store ends at notice ${newest}: it was put back`,
        'birthmark restore --in-place --config FILE makes it go on above every number that was given out; docs/stores.md says what is lost',
        'refused',
      ),
    )
  }
  await bus.subscribe(headTopic(fleet), (_topic, payload) => {
    openNotice(payload, fleet, signers, nodeVerify(), (_problem, body) => {
      // What does not verify is nobody's head: the publisher writes ours over it. A store that is away says so by itself.
      if (body !== null) void compare(body.seq, payload).catch(() => {})
    })
  })
}
