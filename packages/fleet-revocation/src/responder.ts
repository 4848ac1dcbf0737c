// Answers devices that ask what the newest notice is (answer.ts). It signs what the store says at that moment, and no more often than a fleet
// can need: a question is unauthenticated, a signature is not free.

import type { Bytes } from '@birthmark/device-sdk/core'
import { answerTopic, decodeQuestion, encodeAnswerBody, questionTopic } from './answer.ts'
import type { Bus, Clock, Log } from './ports.ts'
import { type NoticeKeys, signPayload } from './sign-notice.ts'

export interface ResponderOptions {
  bus: Pick<Bus, 'publish' | 'subscribe'>
  fleet: string
  newest(): Promise<{ seq: number; sha256: Bytes } | null>
  /** A block proof under the root of notice `seq`; null where it carries none. */
  prove?(seq: number, idx: number): Bytes | null | Promise<Bytes | null>
  keys: NoticeKeys
  clock: Clock
  log: Log
}

// A device asks at boot: 3,000 a minute, at 3 ms of a core a second for the signatures.
const answersPerSecond = 50
const burst = 200
// Read ahead of the signer; what is beyond is dropped, and asked again.
const workingMax = 64

export async function createResponder(options: ResponderOptions): Promise<{ answered(): number; dropped(): number }> {
  const { bus, fleet, clock, log } = options
  let tokens = burst
  let filledAt = clock.now()
  let working = 0
  let answered = 0
  let dropped = 0

  function admitted(): boolean {
    const now = clock.now()
    // A clock that was set back gives nothing, and takes nothing away.
    tokens = Math.min(burst, tokens + Math.max(0, now - filledAt) * answersPerSecond)
    filledAt = now
    if (tokens < 1 || working >= workingMax) return false
    tokens--
    return true
  }

  async function answer(payload: Bytes): Promise<void> {
    const question = decodeQuestion(payload)
    if (!question || !admitted()) {
      dropped++
      return
    }
    working++
    try {
      const newest = await options.newest()
      if (!newest) return
      const { seq, sha256 } = newest
      const { device, nonce, idx } = question
      const proof = idx < 0 ? null : ((await options.prove?.(seq, idx)) ?? null)
      const body = { fleet, seq, noticeSha256: sha256, issuedAt: Math.floor(clock.now()), nonce, device, proof }
      const message = await signPayload('answer', encodeAnswerBody(body), options.keys)
      await bus.publish(answerTopic(fleet, device), message, { qos: 1, retain: false })
      answered++
    } finally {
      working--
    }
  }

  await bus.subscribe(questionTopic(fleet), (_topic, payload) => {
    answer(payload).catch((error: unknown) => log.warn({ err: error }, 'a device’s question was not answered'))
  })
  return { answered: () => answered, dropped: () => dropped }
}
