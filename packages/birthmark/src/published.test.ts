// The notes of what was published, on a disk that takes no more for a while.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { keepPublished, readNotices } from './published.ts'

/** What a file may grow to, for this process. */
const fileBytesMax = (bytes: number | 'unlimited') => execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${bytes}:`])

test('[F68] a notice that the disk took half of is not published, nor any other before the next start', async () => {
  const state = mkdtempSync(join(tmpdir(), 'bm-'))
  // Whatever fails: what comes after it in this process writes more than that.
  onTestFinished(() => void fileBytesMax('unlimited'))
  const fatal: Error[] = []
  let seq = 0
  const numbers = async () => ({
    audit: { n: 0, hash: new Uint8Array(32) },
    fleets: [{ fleet: 'acme', idx: 0, gid: 0, seq }],
    crls: [],
  })
  const start = () =>
    keepPublished({
      ...{ state, store: { numbers }, fleets: ['acme'], clock: { now: () => 0, setTimer: () => () => {} } },
      log: { info() {}, warn() {}, error() {} },
      onFatal: error => fatal.push(error),
    })
  const notices = [1, 2, 3].map(fill => new Uint8Array(600).fill(fill))
  let published = await start()
  const leave = (...leaving: number[]) => {
    seq = Math.max(...leaving)
    return published.before(leaving.map(n => ({ notice: notices[n - 1] })))
  }
  await leave(1)
  fileBytesMax(1000)
  await expect(leave(2)).rejects.toMatchObject({ code: 'EFBIG' })
  fileBytesMax('unlimited')
  await expect(leave(3)).rejects.toMatchObject({ code: 'EFBIG' })
  expect(fatal).toMatchObject([{ code: 'EFBIG' }])
  await published.close()
  expect(readNotices(state)).toEqual(notices.slice(0, 1))

  published = await start()
  await leave(2, 3)
  expect(readNotices(state)).toEqual(notices)
  rmSync(state, { recursive: true })
})
