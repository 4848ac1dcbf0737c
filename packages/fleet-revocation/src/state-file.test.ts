import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createRelyingParty } from './relying-party.ts'
import { stateFile } from './state-file.ts'
import { createTestHistory, historyStart } from './testing/history.ts'
import { createManualClock } from './testing/manual-clock.ts'
import { quietLog } from './testing/memory-bus.ts'
import { createTestNoticeKey } from './testing/notice-key.ts'

let folder: string
let path: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bm-state-'))
  path = join(folder, 'revocation')
})
afterEach(() => rmSync(folder, { recursive: true }))

const stateBytes = 65_536
/** Saves states of one byte each, repeated, and says each once it is saved. */
const endless = `
  const { stateFile } = await import(process.argv[1])
  const { save } = stateFile(process.argv[2])
  for (let n = 1; ; n = (n % 255) + 1) {
    await save(new Uint8Array(${stateBytes}).fill(n))
    console.log(n)
  }`

describe('a relying party’s memory in a file', () => {
  it('[F44] holds over a restart, and is nobody else’s to read', async () => {
    const key = createTestNoticeKey()
    const begin = () =>
      createRelyingParty({
        ...{ name: 'gateway', fleet: 'acme', signers: [key.signer], state: stateFile(path) },
        ...{ clock: createManualClock(historyStart), log: quietLog },
      })
    const first = await begin()
    await first.receive(await createTestHistory(key).add([{ kind: 'group', gid: 7, bound: 5 }]))
    first.close()
    const again = await begin()
    expect(again.progress().through).toBe(1)
    expect(again.status({ fleet: 'acme', idx: 4, gids: [7] }, null)).toBe('revoked')
    again.close()
    expect(statSync(path).mode & 0o777).toBe(0o600)
  })

  it('[F68] that can’t be written stays what it was', async () => {
    const { load, save } = stateFile(path)
    await save(new Uint8Array([1]))
    mkdirSync(`${path}.new`)
    await expect(save(new Uint8Array([2]))).rejects.toMatchObject({ code: 'EISDIR' })
    expect(await load()).toEqual(new Uint8Array([1]))
    rmdirSync(`${path}.new`)
    // What a death in the middle leaves beside it is not read, and is no hindrance.
    writeFileSync(`${path}.new`, 'half')
    expect(await load()).toEqual(new Uint8Array([1]))
    await save(new Uint8Array([3]))
    expect(await load()).toEqual(new Uint8Array([3]))
  })

  it('is whole, and not older than what was said to be saved, wherever its process was killed', async () => {
    const module = new URL('./state-file.ts', import.meta.url).href
    const flags = ['--conditions=source', '--disable-warning=ExperimentalWarning', '--input-type=module']
    for (const atLeast of [1, 20, 60]) {
      const child = spawn(process.execPath, [...flags, '-e', endless, module, path], { stdio: ['ignore', 'pipe', 'inherit'] })
      const ended = once(child, 'exit')
      let said = 0
      for await (const line of createInterface(child.stdout)) {
        said = Number(line)
        if (said >= atLeast) child.kill('SIGKILL')
      }
      await ended
      const state = await stateFile(path).load()
      expect(state?.length).toBe(stateBytes)
      expect(new Set(state).size).toBe(1)
      expect([said, (said % 255) + 1]).toContain(state?.[0])
    }
  }, 30_000)
})
