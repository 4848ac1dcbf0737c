import { expect, it } from 'vitest'
import type { OcspAnswer } from '../ocsp-responder.ts'
import { createStatusRoutes } from './status-routes.ts'

it('an address that has hundreds of answers signed for it alone is told to wait; kept answers and other addresses are served', async () => {
  const clock = { at: 1_800_000_000, now: () => clock.at }
  const kept: OcspAnswer = {
    body: new Uint8Array(1),
    error: null,
    cacheable: { thisUpdate: clock.at, nextUpdate: clock.at + 60, etag: '"a"' },
  }
  let answer: OcspAnswer = kept
  const unused = () => Promise.reject(new Error('not asked'))
  const routes = createStatusRoutes({ lists: { shard: unused, full: unused }, ocsp: { answer: () => answer }, prefix: '', clock })
  const ask = async (address: string) => {
    const header = () => 'application/ocsp-request'
    return (await routes({ method: 'POST', address, target: '/ocsp', header, readBody: async () => new Uint8Array(1) })).status
  }
  for (let i = 0; i < 2000; i++) expect(await ask('192.0.2.1')).toBe(200)
  answer = { ...kept, cacheable: null }
  let signed = 0
  while (signed < 1000 && (await ask('192.0.2.1')) === 200) signed++
  expect(signed).toBe(401)
  expect([await ask('192.0.2.1'), await ask('192.0.2.2')]).toEqual([429, 200])
  clock.at += 2
  expect(await ask('192.0.2.1')).toBe(200)
})
