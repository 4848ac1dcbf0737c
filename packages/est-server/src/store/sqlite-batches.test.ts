import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openSqliteStore } from './sqlite.ts'
import type { Store } from './store.ts'

let folder: string
let store: Store
let batches: number[]

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'birthmark-batches-'))
  batches = []
  store = await openSqliteStore({ path: join(folder, 'store.db'), onBatch: jobs => batches.push(jobs) })
  batches.length = 0
})
afterEach(async () => {
  await store.close()
  rmSync(folder, { recursive: true })
})

const write = () =>
  store.appendAudit({ at: 0, kind: 'enrollment_refused', requestId: '', fleet: 'f', device: '', by: '', code: '', detail: '' })

describe('writes that wait for the writer', () => {
  it('are one transaction when they come in one turn of the event loop', async () => {
    await Promise.all([write(), write(), write()])
    expect(batches).toEqual([3])
  })

  it('are one transaction with those of the next turns, three at most', async () => {
    const written: Promise<unknown>[] = []
    for (let turn = 0; turn < 10; turn++) {
      written.push(write())
      await setImmediate()
    }
    await Promise.all(written)
    expect(batches[0]).toBe(4)
    expect(batches.reduce((sum, jobs) => sum + jobs, 0)).toBe(10)
  })

  it('do not wait when nothing follows for a turn', async () => {
    const first = write()
    await setImmediate()
    await setImmediate()
    const second = write()
    await Promise.all([first, second])
    expect(batches).toEqual([1, 1])
  })

  it('do not wait for more when they are many', async () => {
    const written = Array.from({ length: 128 }, write)
    await setImmediate()
    written.push(write())
    await Promise.all(written)
    expect(batches).toEqual([128, 1])
  })
})
