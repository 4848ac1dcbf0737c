import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { createIdentity } from '../ports/node/index.ts'
import * as kit from './index.ts'

it("the kit's example in its docstring does what its comments say", async () => {
  const source = readFileSync(new URL('./index.ts', import.meta.url), 'utf8')
  const example = (/```ts\n([\s\S]*?)```/.exec(source)?.[1] ?? '').replace(/^ \* ?/gm, '')
  const seen: unknown[] = []
  const body = example.replace(/^(await identity\.enroll\(\)\.catch.*?|est\.requests\.map.*?) +\/\/.*$/gm, 'seen.push($1)')
  const AsyncFunction = (async () => {}).constructor as new (...text: string[]) => (...values: unknown[]) => Promise<void>
  const given = { ...kit, createIdentity, seen }
  await new AsyncFunction(...Object.keys(given), body)(...Object.values(given))
  expect(seen).toEqual([
    'path_no_anchor',
    'network',
    [
      ['simpleenroll', 200],
      ['simpleenroll', 0],
      ['simpleenroll', 200],
      ['cacerts', 200],
    ],
  ])
})
