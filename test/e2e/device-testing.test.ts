// docs/device-testing.md promises that its blocks run as they stand.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { afterAll, describe, it } from 'vitest'

const text = readFileSync(new URL('../../docs/device-testing.md', import.meta.url), 'utf8')
// Inside of the workspace, so that its packages resolve.
const folder = new URL('../.work/device-testing/', import.meta.url)
mkdirSync(folder, { recursive: true })
afterAll(() => rmSync(folder, { recursive: true }))

describe('docs/device-testing.md', () => {
  for (const [, title, code] of text.matchAll(/^## (.*)$[\s\S]*?```ts\n([\s\S]*?)```/gm))
    it(title, async () => {
      const file = new URL(`${title.replace(/\W/g, '-')}.mjs`, folder)
      writeFileSync(file, code)
      await import(pathToFileURL(file.pathname).href)
    })
})
