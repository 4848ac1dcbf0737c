// A selector as a condition on devices `d`, for both drivers: their tables of groups, labels and members have equal columns, so that only the
// way a list of numbers is handed over differs.

import { chosenNames, type NumberedName, type Selector, seenBounds } from './selection.ts'

export interface SelectorNames {
  groups: readonly NumberedName[]
  labels: readonly NumberedName[]
}

/** How a driver writes its parameters. Each takes the value and returns the text that stands for it. */
export interface Placeholders {
  one(value: string | number): string
  /** A list to stand behind IN. */
  numbers(values: number[]): string
  texts(values: string[]): string
}

/** `fleet`: the text that stands for the fleet. `true` for a selector without terms. */
export function selectorSql(selector: Selector, names: SelectorNames, now: number, fleet: string, put: Placeholders): string {
  const conditions = selector.map(term => {
    if (term.name === 'id') return idSql(term, put)
    if (term.name === 'seen') {
      const { from, to, never } = seenBounds(term, now)
      if (never === true) return 'd.seen_at IS NULL'
      const bounds = [
        ...(from === null ? [] : [`d.seen_at >= ${put.one(from)}`]),
        ...(to === null ? [] : [`d.seen_at <= ${put.one(to)}`]),
      ]
      return ['d.seen_at IS NOT NULL', ...bounds].join(' AND ')
    }
    const groups = chosenNames(term, names.groups)
    const labels = chosenNames(term, names.labels)
    const members = [
      ...(groups.numbers.length > 0
        ? [`SELECT id FROM memberships WHERE fleet = ${fleet} AND gid IN ${put.numbers(groups.numbers)}`]
        : []),
      ...(labels.numbers.length > 0
        ? [`SELECT id FROM label_members WHERE fleet = ${fleet} AND lid IN ${put.numbers(labels.numbers)}`]
        : []),
    ]
    if (members.length === 0) return groups.wanted ? '1 = 0' : '1 = 1'
    return `d.id ${groups.wanted ? '' : 'NOT '}IN (${members.join(' UNION ALL ')})`
  })
  return conditions.length === 0 ? '1 = 1' : conditions.map(condition => `(${condition})`).join(' AND ')
}

function idSql(term: Selector[number], put: Placeholders): string {
  if (term.test === 'exists') return '1 = 1'
  if (!('values' in term)) return '1 = 0'
  return `d.id ${term.test === 'in' ? '' : 'NOT '}IN ${put.texts(term.values)}`
}
