import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EstServerError } from '@birthmark/est-server'
import { type ManifestFile, manifestBytesMax, manifestInMemory } from '@birthmark/factory-line'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { administrationOf } from './admin-client.ts'
import { type AdminSocket, openAdminSocket } from './admin-socket.ts'
import type { Administration } from './administration.ts'
import { campaignClient } from './campaign-routes.ts'
import { CommandError } from './command-error.ts'
import { blocksOf, type ManifestProgress } from './manifest-upload.ts'

let folder: string
let socket: AdminSocket
const calls: [string, unknown][] = []
const errors: unknown[] = []

/** Remembers what it was asked; answers with what fits. */
const asked = async (target: string, value?: object) => {
  calls.push([target, value])
  return {}
}
const administration: Administration = {
  ...campaignClient({ get: asked, post: asked }),
  status: async () => ({
    ...{ fleet: 'f', development: true, est: 'e', mqtt: 'm', sessions: 1, undelivered: 0, pid: 1 },
    ...{ workers: { serving: 1, of: 1, pids: [1] }, unready: null, certificateStatus: null },
  }),
  devices: async filter => {
    calls.push(['devices', filter])
    return { devices: [], next: null }
  },
  importManifest: async (file, onProgress) => {
    // Block by block, as a verifier reads it.
    const hash = createHash('sha256')
    for (const block of blocksOf(file)) hash.update(block)
    const start = Buffer.alloc(8)
    file.read(start, 0)
    calls.push(['importManifest', start.toString()])
    onProgress?.({ stage: 'taken', done: 1, of: 2 })
    if (start.toString() === 'unsigned') throw new CommandError('manifest_signature', 'changed', 'ask the line', 'refused')
    return { digest: hash.digest('hex'), units: file.size, added: 0, updated: 0, unchanged: 0, refused: [] }
  },
  mintChallenges: async wanted => {
    calls.push(['mintChallenges', wanted])
    return { minted: [], refused: [] }
  },
  mintSecret: async wanted => {
    calls.push(['mintSecret', wanted])
    return { device: wanted.device, secret: 's', expiresAt: 1 }
  },
  planRevocation: async group => {
    if (group === 'broken') throw new Error('secret detail of ours')
    throw new CommandError('group_unknown', `no group ${group}`, 'see the groups', 'refused')
  },
  revokeSingle: async wanted => {
    calls.push(['revokeSingle', wanted])
    return { devices: 1, unknown: [], certificates: 1, again: false }
  },
  readmitDevice: async ({ device }) => ({ device }),
  clock: async () => ({ now: 1, lastRecord: 1, halted: false }),
  acceptClock: async () => ({ now: 1, lastRecord: 1, halted: false }),
  trustDevice: async ({ device }) => ({ device }),
  issuers: async () => ({ issuers: [] }),
  moveIssuers: async wanted => {
    calls.push(['moveIssuers', wanted])
    return { moved: 'moved', issuers: [] }
  },
  profiles: async () => ({ profiles: [] }),
  explain: async wanted => {
    calls.push(['explain', wanted])
    return { label: null, device: null, operation: 'enroll', steps: [], assumed: [], verdict: { kind: 'issue' }, certificate: null }
  },
  approvals: async filter => {
    calls.push(['approvals', filter])
    return { approvals: [] }
  },
  decideApproval: async decision => {
    calls.push(['decideApproval', decision])
    throw new EstServerError('approval_unknown', `no request ${decision.id} waits`)
  },
  revoke: async wanted => {
    calls.push(['revoke', wanted])
    return { group: wanted.group, seq: 1, devices: 1, noticeBytes: 1, sessionsCut: 1, connectionsClosed: 0, notice: '' }
  },
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bm-'))
  calls.length = 0
  errors.length = 0
  socket = await openAdminSocket(
    folder,
    () => administration,
    error => errors.push(error),
  )
})
afterEach(async () => {
  await socket.close()
  rmSync(folder, { recursive: true })
})

/** A request as a program other than ours may send it. */
function raw(method: string, path: string, body?: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath: socket.path, method, path }, response => {
      let text = ''
      response.on('data', part => (text += part))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text }))
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

test('only the owner may open the socket, and it is gone afterwards', async () => {
  expect(statSync(socket.path).mode & 0o777).toBe(0o600)
  await socket.close()
  expect(existsSync(socket.path)).toBe(false)
})

test('requests arrive as they were asked', async () => {
  const client = administrationOf(folder)
  expect(await client.status()).toMatchObject({ fleet: 'f' })
  await client.devices({ group: 'batch=1', state: 'enrolled', limit: 7 })
  await client.importManifest(manifestInMemory(Buffer.from('manifest')))
  await client.mintSecret({ device: 'gw', groups: ['a=b'], minutes: 5 })
  await client.mintChallenges({ label: 'r', rows: [{ device: 'gw', groups: [] }], minutes: 5 })
  await client.revoke({ group: 'batch=1', digest: '0'.repeat(64), reason: 'because' })
  await client.approvals({ state: 'waiting', after: 3, limit: 7 })
  await client.explain({ label: 'a', csr: 'MAA=', as: { kind: 'secret', deviceId: 'gw' } })
  await expect(client.decideApproval({ id: 7, approve: true, by: 'alice', reason: '' })).rejects.toMatchObject({
    code: 'approval_unknown',
    exit: 'refused',
  })
  expect(calls).toEqual([
    ['devices', { group: 'batch=1', state: 'enrolled', limit: 7 }],
    ['importManifest', 'manifest'],
    ['mintSecret', { device: 'gw', groups: ['a=b'], minutes: 5 }],
    ['mintChallenges', { label: 'r', rows: [{ device: 'gw', groups: [] }], minutes: 5 }],
    ['revoke', { group: 'batch=1', digest: '0'.repeat(64), reason: 'because' }],
    ['approvals', { state: 'waiting', after: 3, limit: 7 }],
    ['explain', { label: 'a', csr: 'MAA=', as: { kind: 'secret', deviceId: 'gw' } }],
    ['decideApproval', { id: 7, approve: true, by: 'alice', reason: '' }],
  ])
})

/** That many bytes, made as they are read. */
const large = (size: number, seen = { readMax: 0 }): ManifestFile => ({
  size,
  read(into, position) {
    seen.readMax = Math.max(seen.readMax, into.length)
    const length = Math.min(into.length, size - position)
    into.fill(position % 251, 0, length)
    return length
  },
})

test('a manifest of 256 MB passes through both ends in blocks, with word of how far it is', async () => {
  const size = 256 * 1024 * 1024
  const seen = { readMax: 0 }
  const progress: ManifestProgress[] = []
  const before = process.memoryUsage.rss()
  let most = 0
  const watch = setInterval(() => {
    most = Math.max(most, process.memoryUsage.rss())
  }, 20)
  const outcome = await administrationOf(folder).importManifest(large(size, seen), said => void progress.push(said))
  clearInterval(watch)
  const hash = createHash('sha256')
  for (const block of blocksOf(large(size))) hash.update(block)
  expect(outcome).toMatchObject({ units: size, digest: hash.digest('hex') })
  expect(seen.readMax).toBe(65_536)
  // Client and server are one process here; garbage of both in it.
  expect((most - before) / 1_048_576).toBeLessThan(128)
  expect(progress.filter(({ stage }) => stage === 'sent').at(-1)).toEqual({ stage: 'sent', done: size, of: size })
  expect(progress.at(-1)).toEqual({ stage: 'taken', done: 1, of: 2 })
  expect(readdirSync(folder)).toEqual(['admin.sock'])
})

test('of a manifest that is refused, cut off or too long nothing stays, and the refusal arrives behind the word of progress too', async () => {
  const client = administrationOf(folder)
  await expect(client.importManifest(manifestInMemory(Buffer.from('unsigned')))).rejects.toMatchObject({
    code: 'manifest_signature',
    exit: 'refused',
  })
  calls.length = 0
  const shrinking = large(1_000_000)
  await expect(
    client.importManifest({ ...shrinking, read: (into, at) => (at > 500_000 ? 0 : shrinking.read(into, at)) }),
  ).rejects.toMatchObject({ code: 'file_changed' })
  await expect(client.importManifest(large(manifestBytesMax + 1))).rejects.toThrow()
  await expect.poll(() => readdirSync(folder)).toEqual(['admin.sock'])
  expect(calls).toEqual([])
})

test('a refusal keeps its code, sentence and next step', async () => {
  await expect(administrationOf(folder).planRevocation('x')).rejects.toMatchObject({
    code: 'group_unknown',
    next: 'see the groups',
    exit: 'refused',
  })
})

test('an unforeseen error is logged', async () => {
  await expect(administrationOf(folder).planRevocation('broken')).rejects.toMatchObject({ code: 'internal' })
  expect(errors).toHaveLength(1)
})

test.each([
  ['POST', '/nothing', undefined],
  ['DELETE', '/devices', undefined],
  ['GET', '/devices?limit=0', undefined],
  ['GET', '/devices?state=alive', undefined],
  ['GET', '/devices?color=red', undefined],
  ['POST', '/secrets', 'not json'],
  ['POST', '/secrets', '{"device":"x","groups":[],"minutes":1000000}'],
  ['POST', '/secrets', '{"device":"x","__proto__":{"a":1},"extra":1}'],
  ['POST', '/revocations', '{"group":"g"}'],
  ['GET', '/approvals?state=lost', undefined],
  ['POST', '/approvals', '{"id":1,"approve":"yes","by":"a"}'],
  ['POST', '/approvals', '{"id":1,"approve":true}'],
  ['POST', '/profiles/explanation', '{"label":null,"csr":"!","as":{"kind":"secret","deviceId":"x"}}'],
  ['POST', '/profiles/explanation', '{"label":null,"csr":"MAA=","as":{"kind":"admin","deviceId":"x"}}'],
  ['POST', '/revocations', 'x'.repeat(100_000)],
])('[F18] %s %s %s is refused and nothing is done', async (method, path, body) => {
  const answer = await raw(method, path, body)
  expect(answer.status).toBe(400)
  expect(JSON.parse(answer.body).error.code).toMatch(/^(not_found|request_invalid)$/)
  expect(calls).toEqual([])
})

test('a second server on the same folder is told that the first is there', async () => {
  await expect(
    openAdminSocket(
      folder,
      () => administration,
      () => {},
    ),
  ).rejects.toMatchObject({ code: 'already_running' })
})

test('a socket left by a killed process is replaced; a path too long for one is told', async () => {
  const other = mkdtempSync(join(tmpdir(), 'bm-'))
  try {
    writeFileSync(join(other, 'admin.sock'), '')
    const second = await openAdminSocket(
      other,
      () => null,
      () => {},
    )
    await expect(administrationOf(other).status()).rejects.toMatchObject({ code: 'starting' })
    await second.close()
    await expect(administrationOf(other).status()).rejects.toMatchObject({ code: 'not_running', exit: 'unreachable' })
    await expect(
      openAdminSocket(
        join(other, 'x'.repeat(100)),
        () => null,
        () => {},
      ),
    ).rejects.toMatchObject({ code: 'path_too_long' })
  } finally {
    rmSync(other, { recursive: true })
  }
})
