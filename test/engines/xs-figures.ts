// What the device's script takes on XS, for 32 bits, where a slot is 16 bytes as on a microcontroller. Garbage is collected before every
// allocation, so that a peak is what was alive at once: the least heap that would do. Nothing but the script counts, not the machine's speed; the
// keys of a recording, which are fresh, move the meters by a percent or two.
import type { Recorded } from './recorded.ts'
import { wholeLife } from './story.ts'
import { playOnXs, type XsCall } from './xs.ts'

/** What the product promises. */
export const xsLimits = { peakStepBytes: 20_480, stackSlots: 512, meterEstResponse: 150_000, meterNotice: 1_200_000 }

export interface XsStep {
  /** The event that began it. */
  name: string
  /** The most that was alive at once, beyond what was alive when it began. */
  peakBytes: number
  stackSlots: number
  meter: number
}

export interface XsFigures {
  /** From one event (an answer, a notice, a timer) until the engine has nothing left to do. */
  steps: XsStep[]
  /** Agent and notice receiver of a device at rest, beyond the loaded scripts; before its first enrollment, and with an identity. */
  bornBytes: number
  restingBytes: number
  /** From an answer with a certificate to the record of it. */
  meterEstResponse: number
  meterNotice: number
}

const begins = ({ asked: [name] }: XsCall): boolean => name === 'turn' || name === 'http'

/** Of one life. What comes before its first turn is the boot, which ends where the device is at rest. */
function stepsOf(calls: XsCall[]): XsStep[] {
  const steps: XsStep[] = []
  for (let at = calls.findIndex(begins); at >= 0 && at < calls.length; ) {
    let end = at + 1
    while (end < calls.length && !begins(calls[end])) end++
    // The call that begins the next one is the last of this one.
    const within = calls.slice(at + 1, end + 1)
    const [name, text] = calls[at].asked
    const notice = within.find(({ asked }) => asked[0] === 'given')
    if (within.length)
      steps.push({
        name: name === 'http' ? `answer to ${text.split(' ')[1].split('/').pop()}` : (notice?.asked[1] ?? 'timer'),
        peakBytes: Math.max(...within.map(({ peakBytes }) => peakBytes)) - calls[at].heapBytes,
        stackSlots: Math.max(...within.map(({ stackSlots }) => stackSlots)),
        meter: within[within.length - 1].meter - calls[at].meter,
      })
    at = end
  }
  return steps
}

/** Steps of the engine from one call of a life to a later one. */
function meterBetween(calls: XsCall[], from: (call: XsCall) => boolean, to: string): number {
  const start = calls.findIndex(from)
  const end = calls.findIndex(({ asked: [, text] }) => text === to)
  return calls[end].meter - calls[start].meter
}

/** Two recordings of the story: notices verified by the host, as by a chip or in C, and by the fallback in the engine. */
export async function xsFigures(native: Recorded, fallback: Recorded): Promise<XsFigures> {
  const lives = await playOnXs(native, -1)
  const renewed = lives[wholeLife].findIndex(({ asked: [, text] }) => text === 'ended well active 1')
  const calls = (await playOnXs(fallback))[wholeLife]
  return {
    steps: lives.flatMap(stepsOf),
    bornBytes: lives[0][lives[0].findIndex(begins)].heapBytes,
    restingBytes: lives[wholeLife][renewed + 1].heapBytes,
    meterEstResponse: meterBetween(
      calls,
      ({ asked: [name, text] }) => name === 'http' && /simpleenroll/.test(text),
      'event issued 1',
    ),
    meterNotice: meterBetween(calls, ({ asked: [name, text] }) => name === 'given' && text === 'notice-1', 'notice taken true'),
  }
}
