// The disk under a running server: an fsync that fails, and a file that can no longer be written. What the server answered before stands, what it
// could not keep it did not answer, and it ends rather than go on with a medium that nobody knows any more.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { available, run } from '../interop/debian.ts'
import type { Program } from '../support/command.ts'
import { prepareServing, type Serving } from '../support/serving.ts'

describe.skipIf(!available({ gcc: 'g++' }))('a disk that fails', () => {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-disk-'))
  const [library, flag] = [join(folder, 'failing-disk.so'), join(folder, 'errno')]
  const fail = (errno: number) => writeFileSync(flag, String(errno))
  let serving: Serving

  beforeAll(async () => {
    const source = join(import.meta.dirname, '../support/failing-disk.c')
    await run('gcc', ['-shared', '-fPIC', '-O1', '-o', library, source, '-ldl'])
    serving = await prepareServing()
  }, 60_000)
  beforeEach(() => rmSync(flag, { force: true }))
  afterAll(async () => {
    await serving?.remove()
    rmSync(folder, { recursive: true, force: true })
  })

  /** The server with the failing disk beneath it. */
  async function start(): Promise<Program> {
    Object.assign(process.env, { LD_PRELOAD: library, FAILING_DISK: flag })
    try {
      return await serving.start()
    } finally {
      delete process.env.LD_PRELOAD
      delete process.env.FAILING_DISK
    }
  }

  const issued = () => {
    const db = new DatabaseSync(join(serving.state, 'fleet.db'), { readOnly: true })
    const { n } = db.prepare("SELECT count(*) AS n FROM issuances WHERE state = 'issued'").get() as { n: number }
    db.close()
    return n
  }

  test('[F68] fsync says EIO: 503, then the end; what was acknowledged is there afterwards', async () => {
    const program = await start()
    await serving.enroll('before')
    const minted = await serving.administration.mintSecret({ device: 'during', groups: [], minutes: 60 })
    const connection = await serving.connect()
    fail(constants.errno.EIO)
    expect((await serving.ask(connection, minted))?.status).toBe(503)
    const { code, stderr } = await program.ended
    expect(code).not.toBe(0)
    expect(stderr).toMatch(/the store stopped after a disk error/)
    rmSync(flag)
    const again = await serving.start()
    expect(issued()).toBe(1)
    await serving.enroll('after')
    expect(issued()).toBe(2)
    await again.stop()
  })

  test('[F68] a file that can only be read: the start is refused, and says so', async () => {
    fail(constants.errno.EROFS)
    await expect(start()).rejects.toThrow(/readonly|read-only|cannot be opened|unable to open/i)
  })
})
