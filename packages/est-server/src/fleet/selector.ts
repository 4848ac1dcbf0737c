// The query language for devices, as operators know it from labels elsewhere: `model=gw-2,batch in (2026-W41,2026-W42),firmware<2.3,!retired`.
// Terms are joined by commas and all must hold. Names are those of groups (`model=gw-2` is the name model with the value gw-2) and labels; `id` is
// the device's own, `seen>30d` asks how long ago it was last issued to. As with Kubernetes' selectors, `!=` and `notin` hold for a device that has
// no such name. Comparisons know versions (2.10 is behind 2.9). What is wrong is said with its place.

import { EstServerError } from '../errors.ts'
import { ageSeconds, ownNames, type Selector, seenBounds, type Term } from '../store/selection.ts'
import { compareVersions } from '../store/version-order.ts'

/** A line that a person can still read, and what one statement should be asked. */
export const selectorCharactersMax = 4096
export const selectorTermsMax = 32
export const selectorValuesMax = 256
/** As long as a group's name may be. */
const wordCharactersMax = 128

/** Throws `selector_invalid` with what is wrong and at which character, counted from 1. The empty text selects every device. */
export function parseSelector(text: string): Selector {
  if (text.length > selectorCharactersMax)
    throw new EstServerError('selector_invalid', `the selector has ${text.length} characters, more than ${selectorCharactersMax}`)
  const reader = createReader(text)
  const selector: Selector = []
  reader.space()
  if (reader.ended()) return selector
  for (;;) {
    if (selector.length === selectorTermsMax) throw reader.wrong(`more than ${selectorTermsMax} terms`)
    selector.push(parseTerm(reader))
    if (reader.ended()) return selector
    reader.expect(',', 'a comma or the end')
  }
}

type Reader = ReturnType<typeof createReader>

function createReader(text: string) {
  let at = 0
  const wrong = (what: string, where = at) =>
    new EstServerError('selector_invalid', `${what} at character ${where + 1} of ${JSON.stringify(text.slice(0, 200))}`)
  const space = () => {
    while (text[at] === ' ' || text[at] === '\t') at++
  }
  return {
    wrong,
    space,
    at: () => at,
    ended: () => at >= text.length,
    /** Takes one of these, the longest first, and the space behind it; null for none. */
    take<T extends string>(...tokens: T[]): T | null {
      const found = tokens.find(token => text.startsWith(token, at)) ?? null
      if (found !== null) {
        at += found.length
        space()
      }
      return found
    },
    expect(token: string, what: string): void {
      if (this.take(token) === null) throw wrong(`${this.ended() ? 'it ends' : `'${text[at]}'`} where ${what} is expected`)
    },
    /** A name or a value, bare or in double quotes, and the space behind it. */
    word(what: string): string {
      const start = at
      let found: string
      if (text[at] === '"') {
        const quoted = /"((?:[^"\\]|\\["\\])*)"/y
        quoted.lastIndex = at
        const match = quoted.exec(text)
        if (match === null) throw wrong('a quote that is not closed')
        found = match[1].replace(/\\(["\\])/g, '$1')
        at = quoted.lastIndex
      } else {
        const bare = /[^\s,()!=<>"]+/y
        bare.lastIndex = at
        found = bare.exec(text)?.[0] ?? ''
        at += found.length
      }
      if (at === start) throw wrong(`${at >= text.length ? 'it ends' : `'${text[at]}'`} where ${what} is expected`)
      if (found.length > wordCharactersMax) throw wrong(`${what} of more than ${wordCharactersMax} characters`, start)
      space()
      return found
    },
  }
}

function parseTerm(reader: Reader): Term {
  const start = reader.at()
  if (reader.take('!')) return checked(reader, start, { name: reader.word('a name'), test: 'absent' })
  const name = reader.word('a name')
  // Words, so not by `take`: `model in(a)` and `inside` begin alike.
  const operator = reader.take('!=', '==', '<=', '>=', '=', '<', '>')
  switch (operator) {
    case '=':
    case '==':
      return checked(reader, start, { name, test: 'in', values: [reader.word('a value')] })
    case '!=':
      return checked(reader, start, { name, test: 'notin', values: [reader.word('a value')] })
    case '<':
    case '<=':
    case '>':
    case '>=':
      return checked(reader, start, { name, test: operator, value: reader.word('a value') })
  }
  if (reader.ended()) return checked(reader, start, { name, test: 'exists' })
  const before = reader.at()
  const test = reader.take('notin', 'in')
  if (test === null) {
    // The comma, or what parseSelector says is no comma.
    return checked(reader, start, { name, test: 'exists' })
  }
  if (reader.take('(') === null) throw reader.wrong(`'(' is expected behind ${test}`, before + test.length)
  const values: string[] = []
  do {
    if (values.length === selectorValuesMax) throw reader.wrong(`more than ${selectorValuesMax} values`)
    values.push(reader.word('a value'))
  } while (reader.take(','))
  reader.expect(')', 'a comma or )')
  return checked(reader, start, { name, test, values })
}

/** What the server's own names can be asked. */
function checked(reader: Reader, start: number, term: Term): Term {
  if (term.name === 'id' && !('values' in term)) throw reader.wrong('id is compared by =, !=, in and notin', start)
  if (term.name === 'seen') {
    if ('values' in term) throw reader.wrong('seen is an age: seen<7d, seen>30d, or !seen for never', start)
    if ('value' in term && ageSeconds(term.value) === null)
      throw reader.wrong(`'${term.value}' is no age such as 90s, 15m, 12h or 30d`, start)
  }
  return term
}

/** The canonical text: parsing it gives the same selector. */
export function selectorText(selector: Selector): string {
  return selector.map(termText).join(',')
}

function termText(term: Term): string {
  const name = quoted(term.name)
  switch (term.test) {
    case 'exists':
      return name
    case 'absent':
      return `!${name}`
    case 'in':
      return term.values.length === 1 ? `${name}=${quoted(term.values[0])}` : `${name} in (${term.values.map(quoted).join(',')})`
    case 'notin':
      return term.values.length === 1
        ? `${name}!=${quoted(term.values[0])}`
        : `${name} notin (${term.values.map(quoted).join(',')})`
    default:
      return `${name}${term.test}${quoted(term.value)}`
  }
}

const quoted = (word: string) => (/^[^\s,()!=<>"]+$/.test(word) ? word : `"${word.replace(/(["\\])/g, '\\$1')}"`)

/** A device as a selector sees it. */
export interface Selectable {
  id: string
  /** Names of its groups. */
  groups: readonly string[]
  labels: Readonly<{ [name: string]: string }>
  seenAt: number | null
}

/** Whether the selector finds this device: what every store answers, said without one. */
export function matchesSelector(selector: Selector, device: Selectable, now: number): boolean {
  const valuesOf = (name: string): string[] => [
    ...device.groups.flatMap(group => {
      const [own, ...rest] = group.split('=')
      return own === name ? [rest.join('=')] : []
    }),
    ...(Object.hasOwn(device.labels, name) ? [device.labels[name]] : []),
  ]
  return selector.every(term => {
    if (term.name === 'seen') {
      const { from, to, never } = seenBounds(term, now)
      if (device.seenAt === null) return never === true
      return never === false && device.seenAt >= (from ?? -Infinity) && device.seenAt <= (to ?? Infinity)
    }
    const values = term.name === 'id' ? [device.id] : valuesOf(term.name)
    switch (term.test) {
      case 'exists':
        return values.length > 0
      case 'absent':
        return values.length === 0
      case 'in':
        return values.some(value => term.values.includes(value))
      case 'notin':
        return !values.some(value => term.values.includes(value))
      default:
        return values.some(value => {
          const order = compareVersions(value, term.value)
          return { '<': order < 0, '<=': order <= 0, '>': order > 0, '>=': order >= 0 }[term.test]
        })
    }
  })
}

/** Whether a label may be called so. Groups have names of their own (profile.ts); what the server knows of a device is not a label. */
export function isLabelName(name: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$/.test(name) && !ownNames.some(own => own === name)
}

export function isLabelValue(value: string): boolean {
  return /^[\x21-\x7e](?:[\x20-\x7e]{0,62}[\x21-\x7e])?$/.test(value)
}
