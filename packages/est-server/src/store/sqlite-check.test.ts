import { DatabaseSync } from 'node:sqlite'
import { expect, it } from 'vitest'
import { never } from './sqlite-check.ts'
import { migrate } from './sqlite-schema.ts'

it.each(never)('the check finds %s without going through a table again for each row of another', (_, sql) => {
  const db = new DatabaseSync(':memory:')
  migrate(db)
  const plan = db.prepare(`EXPLAIN QUERY PLAN ${sql} LIMIT 1`).all() as { id: number; parent: number; detail: string }[]
  const perRow = plan.filter(({ parent, detail }, i) => {
    const within = plan.find(({ id }) => id === parent)?.detail ?? ''
    // A question that does not hang on the row is asked once.
    if (within.startsWith('SCALAR')) return false
    const isFirst = parent === 0 && plan.findIndex(one => one.parent === 0 && /^(SCAN|SEARCH)/.test(one.detail)) === i
    return !isFirst && (/^SCAN (?!.*VIRTUAL TABLE)/.test(detail) || /\(fleet=\?\)/.test(detail))
  })
  db.close()
  expect(perRow).toEqual([])
})
