// What a relying party owes for a notice that it denies in memory: its sessions cut, its state on the medium, and then the word that says so. It
// promises that none of the three is forgotten because one could not be done: it is owed until it is done, over a restart as well. When to try again
// is the caller's, and so is that one attempt ends before the next begins.

import type { Word } from './acknowledger.ts'
import type { Clock } from './ports.ts'
import type { RelyingPartyState } from './relying-party-state.ts'

/** `cut`: sessions, at all attempts together. */
export interface Settled {
  seq: number
  grew: boolean
  cut: number
}

export interface Settlement {
  owes(): boolean
  /** More is denied from here on, by this notice: it is owed, whatever becomes of its turn. What is being cut meanwhile may have missed it. */
  denied(seq: number): void
  /**
   * `grew`: more is denied than before, and `denied` was told so at once: a pass that began after that has covered it, and no other is made. Resolves
   * when nothing is owed any more; rejects as cutting or saving did, and then all that is left is.
   */
  settle(seq: number, grew: boolean): Promise<Settled>
  /** The same for what was left. */
  makeUp(): Promise<void>
}

// A broker elsewhere may take many seconds to cut. Who dies meanwhile must not begin again without the rules.
const unsavedSecondsMax = 1

export function createSettlement(parts: {
  /** As it was loaded; what it says of words and sessions is kept here. */
  state: RelyingPartyState
  /** Writes `state`. */
  save(): Promise<void>
  enforce: (() => Promise<{ cut: number }>) | undefined
  say(word: Word): void
  onSettled(settled: Settled): void
  clock: Clock
}): Settlement {
  const { state, save, enforce, say, onSettled, clock } = parts
  const isWordOwed = () => state.through > (state.word?.seq ?? 0)
  let denials = 0
  let owed: Settled | null = state.uncut || isWordOwed() ? { seq: state.through, grew: true, cut: 0 } : null

  async function cutSessions(debt: Settled): Promise<void> {
    if (!state.uncut) return
    const before = denials
    const { cut } = enforce ? await enforce() : { cut: 0 }
    if (denials === before) state.uncut = false
    debt.cut += cut
    state.unsaidCut += cut
  }

  function endsSoon(work: Promise<unknown>): Promise<boolean> {
    return new Promise(resolve => {
      const cancel = clock.setTimer(unsavedSecondsMax, () => resolve(false))
      void work.then(() => {
        cancel()
        resolve(true)
      })
    })
  }

  /** Saves what is denied while the cutting takes its time, and again when more is. Whether it succeeded, the save after the cutting tells. */
  async function saveMeanwhile(cutting: Promise<unknown>): Promise<void> {
    let saved: number | null = null
    while (!(await endsSoon(cutting))) {
      const before = denials
      if (saved === before) continue
      await save().then(
        () => {
          saved = before
        },
        () => {},
      )
    }
  }

  /** With what may be said once it is on the medium: the newest notice without a gap, since who counts takes it for those before it as well. */
  async function saveWithWord(): Promise<void> {
    const { word, unsaidCut } = state
    const next = isWordOwed() ? { seq: state.through, appliedAt: Math.floor(clock.now()), sessionsClosed: unsaidCut } : null
    if (next) Object.assign(state, { word: next, unsaidCut: 0 })
    try {
      await save()
    } catch (error) {
      Object.assign(state, { word, unsaidCut })
      throw error
    }
    if (next) say(next)
  }

  async function work(debt: Settled): Promise<Settled> {
    const cutting = cutSessions(debt).then(
      () => null,
      (error: unknown) => ({ error }),
    )
    await saveMeanwhile(cutting)
    const failed = await cutting
    if (failed) {
      await save()
      throw failed.error
    }
    await saveWithWord()
    // That more is denied is said by the turn of what denied it.
    owed = state.uncut ? { seq: debt.seq, grew: false, cut: 0 } : null
    onSettled(debt)
    return debt
  }

  return {
    owes: () => owed !== null,
    denied(seq) {
      denials++
      state.uncut = true
      owed ??= { seq, grew: false, cut: 0 }
    },
    settle(seq, grew) {
      owed = { seq: Math.max(seq, owed?.seq ?? 0), grew: grew || owed?.grew === true, cut: owed?.cut ?? 0 }
      return work(owed)
    },
    async makeUp() {
      if (owed) await work(owed)
    },
  }
}
