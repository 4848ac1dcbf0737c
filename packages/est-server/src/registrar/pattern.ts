// Patterns over serial numbers and URIs, in the shell's own small language: `*` any run, `?` one character, `[a-f0-9]` or `[!0-9]` one of a
// set, everything else itself. Not regular expressions: whoever writes a profile writes one pattern a product line, what is matched comes
// from a stranger's certificate, and a backtracking engine between the two is a way to stop the server. This matcher looks at each character
// at most once per pattern character, so there is no catastrophic pattern to reject; and `GW-2026.*` means what its writer thinks it means.

/** RegExp has these two as well. */
export interface Pattern {
  readonly source: string
  test(text: string): boolean
}

/** A product line's serials fit; each costs at most this times the text's length. */
export const patternCharsMax = 256
/** Alternatives of one list: product lines, not devices. Devices are listed by a manifest. */
export const patternsMax = 16

type Step =
  | { kind: 'run' }
  | { kind: 'any' }
  | { kind: 'one'; of: string }
  | { kind: 'set'; not: boolean; ranges: [string, string][] }

function stepsOf(source: string): Step[] {
  const steps: Step[] = []
  for (let i = 0; i < source.length; i++) {
    const c = source[i]
    if (c === '*') {
      if (steps.at(-1)?.kind !== 'run') steps.push({ kind: 'run' })
    } else if (c === '?') steps.push({ kind: 'any' })
    else if (c === '[') {
      const not = source[i + 1] === '!'
      const from = i + (not ? 2 : 1)
      const end = source.indexOf(']', from + 1)
      if (end < 0) throw new Error(`"${source}": [ without ]`)
      const ranges: [string, string][] = []
      for (let at = from; at < end; at++) {
        const first = source[at]
        const range = source[at + 1] === '-' && at + 2 < end
        if (range) at += 2
        if (source[at] < first) throw new Error(`"${source}": ${first}-${source[at]} runs backwards`)
        ranges.push([first, source[at]])
      }
      steps.push({ kind: 'set', not, ranges })
      i = end
    } else steps.push({ kind: 'one', of: c })
  }
  return steps
}

function fits(step: Step, c: string): boolean {
  if (step.kind === 'one') return step.of === c
  if (step.kind !== 'set') return true
  return step.ranges.some(([first, last]) => c >= first && c <= last) !== step.not
}

function matches(steps: readonly Step[], text: string): boolean {
  let step = 0
  let at = 0
  // Where to go on when the last `*` has to take one character more. Only the last can matter: earlier ones took as little as they could.
  let run = -1
  let runAt = 0
  while (at < text.length) {
    const next = steps[step]
    if (next?.kind === 'run') {
      run = step++
      runAt = at
    } else if (next && fits(next, text[at])) {
      step++
      at++
    } else if (run >= 0) {
      step = run + 1
      at = ++runAt
    } else return false
  }
  while (steps[step]?.kind === 'run') step++
  return step === steps.length
}

/** One pattern, or a list of which one must match. Throws Error with what is wrong. */
export function parsePattern(source: string | readonly string[]): Pattern {
  const sources = typeof source === 'string' ? [source] : source
  if (sources.length === 0 || sources.length > patternsMax) throw new Error(`1 to ${patternsMax} patterns`)
  for (const one of sources)
    if (!/^[\x21-\x7e]+$/.test(one) || one.length > patternCharsMax)
      throw new Error(`a pattern is 1 to ${patternCharsMax} printable ASCII characters without spaces`)
  const all = sources.map(stepsOf)
  return { source: sources.join(' or '), test: text => all.some(steps => matches(steps, text)) }
}
