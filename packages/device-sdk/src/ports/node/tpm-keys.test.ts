// What `tpmKeys` does without a TPM: tpm2-tools and OpenSSL's provider are played. With both, and a TPM, it is run by test/interop/token-keys.test.ts.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, it, vi } from 'vitest'
import type { DeviceError } from '../../core/errors.ts'
import { tpmKeys } from './tpm-keys.ts'

// The provider opens whatever key it is shown.
vi.mock('node:crypto', async original => ({ ...(await original<object>()), createPrivateKey: () => ({}) }))

const folder = mkdtempSync(join(tmpdir(), 'tpm-keys-'))
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true })
})

it('a key of a kind that was not asked for is not kept, and what lay in its slot stays', async () => {
  const [tools, keys] = ['tools', 'keys'].map(name => join(folder, name))
  for (const made of [tools, keys]) mkdirSync(made, { mode: 0o700 })
  const made = '#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in -u|-r) echo another > "$2" ;; esac; shift; done\n'
  for (const name of ['tpm2_createprimary', 'tpm2_create']) writeFileSync(join(tools, name), made, { mode: 0o755 })
  vi.stubEnv('PATH', `${tools}:${process.env.PATH}`)
  writeFileSync(join(keys, 'op-0.key'), 'the key before', { mode: 0o600 })
  const store = tpmKeys(keys)
  const generated = (slot: string) => new Promise<DeviceError | null>(resolve => store.generate(slot, resolve))
  for (const slot of ['op-0', 'op-1'])
    expect(await generated(slot)).toMatchObject({ code: 'key_unavailable', message: expect.stringContaining('not a P-256 key') })
  expect(readdirSync(keys)).toEqual(['op-0.key'])
  expect(readFileSync(join(keys, 'op-0.key'), 'utf8')).toBe('the key before')
  // Nor is it signed with.
  store.sign('op-1', new Uint8Array(3), error => expect(error?.message).toContain('no key in slot'))
  expect.assertions(5)
})
