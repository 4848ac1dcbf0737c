import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, expect, it } from 'vitest'
import type { ManifestEntry } from '../store/store.ts'
import { type Kernel, kernel } from '../testing/kernel.ts'

let k: Kernel
beforeEach(async () => {
  k = await kernel()
})
afterEach(async () => {
  expect(await k.store.check()).toEqual([])
  await k.remove()
})

const entry = (serial: string, change: Partial<ManifestEntry> = {}): ManifestEntry => ({
  ...{ serial, spkiSha256: randomBytes(32).toString('hex'), groups: ['batch=1', 'model=gw-2'], keyOrigin: 'device' },
  ...change,
})

it('imports a large manifest in chunks; a repeat changes nothing', async () => {
  const entries = Array.from({ length: 12_345 }, (_, i) => entry(`unit-${i}`))
  expect(await k.registry.importManifest(entries, 'order 7')).toMatchObject({ added: 12_345, unchanged: 0, refusedCount: 0 })
  expect(await k.registry.importManifest(entries, 'order 7')).toMatchObject({ added: 0, unchanged: 12_345 })
  expect((await k.registry.groups()).map(g => [g.name, g.devices])).toEqual([
    ['batch=1', 12_345],
    ['model=gw-2', 12_345],
  ])
  expect((await k.audit()).filter(r => r.kind === 'manifest_imported')).toHaveLength(6)
})

it('an import that broke off is repeated whole', async () => {
  const entries = Array.from({ length: 7000 }, (_, i) => entry(`unit-${i}`))
  async function* broken() {
    yield* entries.slice(0, 6000)
    throw new Error('the file ended')
  }
  await expect(k.registry.importManifest(broken(), 'order 7')).rejects.toThrow('the file ended')
  expect(await k.registry.importManifest(entries, 'order 7')).toMatchObject({ added: 2000, unchanged: 5000 })
})

it('reports rows that cannot be taken and takes the others', async () => {
  const twin = entry('unit-1')
  const report = await k.registry.importManifest(
    [
      twin,
      { ...entry('unit-1') },
      { ...entry('unit-2'), spkiSha256: twin.spkiSha256 },
      entry('a/b'),
      entry('unit-3', { spkiSha256: 'F00' }),
      entry('unit-4', { groups: ['with space'] }),
      entry('unit-5', { groups: Array.from({ length: 9 }, (_, i) => `g${i}`) }),
      entry('unit-6', { keyOrigin: 'elsewhere' as 'device' }),
      entry('__proto__'),
      entry('unit-7'),
    ],
    'order 7',
  )
  expect(report).toMatchObject({ added: 3, refusedCount: 7 })
  expect(report.refused.find(r => r.serial === 'unit-2')?.reason).toContain('unit-1')
  expect((await k.registry.devices({ limit: 10 })).map(d => d.id)).toEqual(['__proto__', 'unit-1', 'unit-7'])
})

it('lists at most a thousand refused rows and counts the rest', async () => {
  const report = await k.registry.importManifest(
    Array.from({ length: 1500 }, () => entry('a/b')),
    'order 7',
  )
  expect(report.refused).toHaveLength(1000)
  expect(report.refusedCount).toBe(1500)
})

it('mints a secret that cannot be guessed, for one device, for at most a week', async () => {
  const { user, password, expiresAt } = await k.registry.mintSecret({ deviceId: 'unit-1', lifetimeSeconds: 60, by: 'ops' })
  expect(user).toBe('unit-1')
  expect(Buffer.from(password, 'base64url')).toHaveLength(24)
  expect(expiresAt).toBe(k.clock.at + 60)
  expect(await k.registry.device('unit-1')).toMatchObject({ state: 'known', certificate: null })
  for (const bad of [{ deviceId: 'a b' }, { lifetimeSeconds: 0 }, { lifetimeSeconds: 8 * 86_400 }, { groups: ['a b'] }])
    await expect(k.registry.mintSecret({ deviceId: 'unit-2', lifetimeSeconds: 60, by: 'ops', ...bad })).rejects.toMatchObject({
      code: 'manifest_invalid',
    })
  await k.device('unit-3', ['batch=1'])
  const forKnown = (groups: string[]) => k.registry.mintSecret({ deviceId: 'unit-3', groups, lifetimeSeconds: 60, by: 'ops' })
  await expect(forKnown(['site=berlin'])).rejects.toMatchObject({ code: 'group_not_joined' })
  expect((await forKnown(['batch=1'])).user).toBe('unit-3')
})
