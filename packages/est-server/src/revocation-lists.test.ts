import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  type Bytes,
  childrenOf,
  contentOf,
  encodingOf,
  hexOf,
  octetBits,
  parseCertificate,
  readWhole,
  SEQUENCE,
  smallInteger,
  timeValue,
} from '@birthmark/device-sdk/core'
import { afterEach, describe, expect, it } from 'vitest'
import type { Issuer } from './ca/issuer-key.ts'
import { createRevocationLists, crlFailpoints, type RevocationListOptions, type RevocationLists } from './revocation-lists.ts'
import { issuerName } from './status-urls.ts'
import { csrFor, issuedBy, type Kernel, type KernelOptions, kernel, nameOf, start, testKey } from './testing/kernel.ts'

const statusUrl = 'http://status.acme.example'
const day = 86_400

interface Read {
  number: number
  thisUpdate: number
  nextUpdate: number
  serials: string[]
  reasons: string[]
  critical: boolean
}

/** A list as an impatient reader sees it: openssl judges the same bytes in test/interop. */
function readCrl(der: Bytes, issuer: Issuer): Read {
  const [tbs, , signature] = childrenOf(readWhole(der, SEQUENCE), 3)
  if (!issuer.verify(encodingOf(tbs), octetBits(signature))) throw new Error('signature')
  const fields = childrenOf(tbs, 8)
  const hasEntries = fields[5].tag === SEQUENCE
  const entries = hasEntries ? childrenOf(fields[5], 4096) : []
  const text = Buffer.from(encodingOf(fields.at(-1)!)).toString('hex')
  // The last of that OID: its value, an INTEGER, ends the OCTET STRING.
  const bytes = Buffer.from(/0603551d1404..(02.*)/.exec(text)?.[1] ?? '', 'hex')
  return {
    number: smallInteger(readWhole(bytes.subarray(0, 2 + bytes[1]), 2)),
    thisUpdate: timeValue(fields[3]),
    nextUpdate: timeValue(fields[4]),
    serials: entries.map(e => hexOf(contentOf(childrenOf(e, 3)[0]))).toSorted(),
    reasons: entries.map(e => hexOf(encodingOf(childrenOf(e, 3)[2] ?? e)).slice(-2)),
    critical: text.includes('0603551d1c0101ff'),
  }
}

/** With an address, and with a key that takes a message whole: what is counted and made to fail is `sign`. */
function whole(real: Issuer): Issuer {
  const issuer = { ...real, statusUrl }
  delete issuer.signParts
  return issuer
}

let k: Kernel
let lists: RevocationLists
afterEach(async () => {
  await lists.close()
  await k.remove()
})

const openLists = (more: Partial<RevocationListOptions> = {}) => {
  const { store, issuer, clock, folder } = k
  const log = { info: level('info'), warn: level('warn'), error: level('error') }
  return createRevocationLists({ store, issuers: [issuer], lifetimeSeconds: day, folder: join(folder, 'crl'), clock, log, ...more })
}
const level = (name: string) => (fields: object, message: string) =>
  void k.logged.push({ level: name, fields: { ...fields }, message })

async function open(more: Partial<RevocationListOptions> = {}, options: KernelOptions = {}): Promise<void> {
  k = await kernel({ issuer: whole, ...options })
  lists = openLists(more)
}

const enrolled = async (id: string, groups: string[]) => {
  const device = await k.device(id, groups)
  return parseCertificate(issuedBy(await k.enroll(device.peer(), csrFor(testKey(), nameOf(id)))))
}
const shard = async (n = 0) => {
  const given = await lists.shard(issuerName(k.issuer.keyId), 'meters', n)
  if (given.kind !== 'list') throw new Error(JSON.stringify(given))
  return readCrl(given.list.der, k.issuer)
}
const full = async () => {
  const given = await lists.full(issuerName(k.issuer.keyId))
  if (given.kind !== 'list') throw new Error(JSON.stringify(given))
  return readCrl(readFileSync(given.list.path), k.issuer)
}
const revoke = (group: string, reason?: number) => k.revocation.revokeGroup({ group, by: 'test', ...(reason ? { reason } : {}) })

describe('the list of a shard', () => {
  it('[RFC 5280 5.2.5] says that it is a part, and holds exactly the certificates of closed groups', async () => {
    await open()
    const a = await enrolled('a', ['batch=1'])
    const b = await enrolled('b', ['batch=2', 'model=x'])
    const c = await enrolled('c', ['batch=3', 'model=x'])
    expect(await shard()).toMatchObject({ serials: [], number: 1, critical: true, thisUpdate: start, nextUpdate: start + day })
    k.clock.at += 100
    await revoke('batch=1', 1)
    expect(await shard()).toMatchObject({ serials: [hexOf(a.serial)], reasons: ['01'], number: 2 })
    await revoke('model=x')
    expect((await shard()).serials).toEqual([a, b, c].map(x => hexOf(x.serial)).toSorted())
    expect(await lists.shard('0000000000000000', 'meters', 0)).toEqual({ kind: 'unknown' })
    expect(await lists.shard(issuerName(k.issuer.keyId), 'meters', 1)).toEqual({ kind: 'unknown' })
    expect(await lists.shard(issuerName(k.issuer.keyId), 'pumps', 0)).toEqual({ kind: 'unknown' })
  })

  it('does not hold what was merely superseded', async () => {
    await open()
    const device = await k.device('a')
    for (let i = 0; i < 2; i++) {
      k.clock.at += 60
      issuedBy(await k.enroll(device.peer(), csrFor(testKey(), nameOf('a'))))
    }
    expect((await shard()).serials).toEqual([])
  })

  it('is signed once for all who ask, again when a third of its life is over, and not for revocations elsewhere', async () => {
    await open()
    await enrolled('a', ['batch=1'])
    await k.device('b', ['batch=2'])
    await Promise.all(Array.from({ length: 50 }, () => shard()))
    expect(lists.signatures).toBe(1)
    // Nobody of that group is on the list: its signature still says the truth.
    await revoke('batch=2')
    expect((await shard()).number).toBe(1)
    expect(lists.signatures).toBe(1)
    k.clock.at += day / 3 - 1
    expect((await shard()).number).toBe(1)
    k.clock.at += 1
    expect(await shard()).toMatchObject({ number: 2, thisUpdate: k.clock.at })
  })

  it('names no reason that promises a way back', async () => {
    await open()
    await enrolled('a', ['batch=1'])
    await revoke('batch=1', 6)
    // The time is the last of the entry.
    expect((await shard()).reasons).toEqual(['5a'])
  })

  it('[F44] goes on with its numbers after a restart, and serves the list that it had', async () => {
    await open()
    await enrolled('a', ['batch=1'])
    await revoke('batch=1')
    const before = await shard()
    const of = k
    await of.store.close()
    k = await kernel({ of, issuer: whole })
    lists = openLists()
    expect(await shard()).toEqual(before)
    expect(lists.signatures).toBe(0)
    k.clock.at += day
    expect((await shard()).number).toBeGreaterThan(before.number)
  })

  it('[F44] two processes of a store serve the same list', async () => {
    await open()
    await enrolled('a', ['batch=1'])
    const mine = await shard()
    const theirs = openLists()
    const given = await theirs.shard(issuerName(k.issuer.keyId), 'meters', 0)
    expect(given.kind === 'list' && readCrl(given.list.der, k.issuer)).toEqual(mine)
    expect(theirs.signatures).toBe(0)
    await theirs.close()
  })

  it('[F46] a revocation during a build is in this list or the next, at whatever step it comes', async () => {
    for (const step of crlFailpoints) {
      let armed = true
      const failpoint = async (name: string) => {
        if (name !== step || !armed) return
        armed = false
        await revoke('batch=1')
      }
      await open({ failpoint })
      const a = await enrolled('a', ['batch=1'])
      const first = await shard()
      const next = await shard()
      expect(next.serials, step).toEqual([hexOf(a.serial)])
      // Whoever asked before it was recorded may get either; the number tells them apart.
      if (first.serials.length === 0) expect(next.number).toBeGreaterThan(first.number)
      await lists.close()
      await k.remove()
    }
    await open()
  })

  it('[F46] whoever asks after the revocation never joins a build from before it', async () => {
    let release = () => {}
    const held = new Promise<void>(resolve => {
      release = resolve
    })
    let holds = 1
    await open({ failpoint: name => (name === 'crl-read' && holds-- > 0 ? held : undefined) })
    const a = await enrolled('a', ['batch=1'])
    const early = shard()
    await new Promise(resolve => setTimeout(resolve, 20))
    await revoke('batch=1')
    const late = shard()
    release()
    expect((await late).serials).toEqual([hexOf(a.serial)])
    expect((await early).serials).toEqual([hexOf(a.serial)])
  })

  it('[F46] holds an intent that was recorded before its group was closed: it may yet become a certificate', async () => {
    let stop = false
    await open(
      {},
      {
        failpoint: async name => {
          if (name === 'intended' && stop) await revoke('batch=1')
        },
      },
    )
    const device = await k.device('a')
    stop = true
    const outcome = await k.enroll(device.peer(), csrFor(testKey(), nameOf('a')))
    const serials = (await shard()).serials
    if (outcome.kind === 'issued') expect(serials).toContain(hexOf(parseCertificate(outcome.certificate).serial))
    expect(serials).toHaveLength(1)
  })
})

describe('[F43] a key that does not sign', () => {
  const dying = (dead: { now: boolean; wrong?: boolean }) => ({
    issuer: (real: Issuer): Issuer => ({
      ...whole(real),
      sign: async tbs => {
        if (dead.now) throw new Error('token removed')
        return dead.wrong ? new Uint8Array(64) : await real.sign(tbs)
      },
    }),
  })
  const code = async () => {
    const given = await lists.shard(issuerName(k.issuer.keyId), 'meters', 0)
    return given.kind === 'unavailable' ? given.detail : given.kind
  }
  const errors = () => k.logged.filter(l => l.level === 'error').length

  it('is an alarm when half of a list’s life is over, and no list is given from its nextUpdate on', async () => {
    const dead = { now: false }
    await open({}, dying(dead))
    await enrolled('a', ['batch=1'])
    expect(await code()).toBe('list')
    dead.now = true
    k.clock.at += day * 0.4
    expect([await code(), lists.problem(), errors()]).toEqual(['list', null, 0])
    k.clock.at += day * 0.1
    // Nobody asks; the watch notices.
    await lists.refresh()
    expect(lists.problem()).toMatch(/^CRL meters\/0 cannot be signed since .* \(issuer_failed\)$/)
    expect([await code(), errors()]).toEqual(['list', 1])
    k.clock.at += day * 0.5
    expect(await code()).toBe('issuer_failed')
    dead.now = false
    await lists.refresh()
    expect([lists.problem(), await code()]).toEqual([null, 'list'])
  })

  it('[F43] does not outlast its cause, whichever list it was about and whoever asked for that', async () => {
    const dead = { now: false }
    await open({}, dying(dead))
    await enrolled('a', ['batch=1'])
    dead.now = true
    expect([await code(), (await lists.full(issuerName(k.issuer.keyId))).kind]).toEqual(['issuer_failed', 'unavailable'])
    expect(lists.problem()).not.toBeNull()
    await lists.refresh()
    expect(lists.problem()).not.toBeNull()
    dead.now = false
    await lists.refresh()
    await lists.refresh()
    expect(lists.problem()).toBeNull()
  })

  it('is an alarm at once when something was revoked: a list that lacks it is not given', async () => {
    const dead = { now: false }
    await open({}, dying(dead))
    await enrolled('a', ['batch=1'])
    expect(await code()).toBe('list')
    dead.now = true
    await revoke('batch=1')
    expect([await code(), lists.problem() !== null]).toEqual(['issuer_failed', true])
    dead.now = false
    expect([await code(), lists.problem()]).toEqual(['list', null])
  })

  it('[F41] a wrong signature leaves this process in no list', async () => {
    const dead = { now: false, wrong: false }
    await open({}, dying(dead))
    await enrolled('a', ['batch=1'])
    dead.wrong = true
    expect(await code()).toBe('signature_wrong')
    expect(await k.store.crlHead(k.issuer.keyId, 'meters/0')).toBeNull()
  })

  it('[F44] a clock that went back signs nothing', async () => {
    await open()
    await enrolled('a', ['batch=1'])
    k.clock.at -= 1000
    expect(await code()).toBe('clock_regressed')
  })
})

describe('the list of everything', () => {
  it('holds every shard’s certificates of every fleet, and is replaced whole', async () => {
    // By a key that signs in parts.
    await open({}, { issuer: real => ({ ...real, statusUrl }) })
    const all = []
    for (let i = 0; i < 5; i++) all.push(await enrolled(`m-${i}`, [`batch=${i % 2}`]))
    await revoke('batch=0')
    const even = all.filter((_, i) => i % 2 === 0).map(c => hexOf(c.serial))
    const first = await full()
    expect(first).toMatchObject({ serials: even.toSorted(), critical: false })
    expect((await full()).number).toBe(first.number)
    await revoke('batch=1')
    const second = await full()
    expect(second.serials).toEqual(all.map(c => hexOf(c.serial)).toSorted())
    expect(second.number).toBeGreaterThan(first.number)
    expect(readdirSync(join(k.folder, 'crl'))).toEqual([`${issuerName(k.issuer.keyId)}-${second.number}.crl`])
  })

  it('[F46] a crash at any step leaves no list but a whole one, and the next try succeeds', async () => {
    for (const step of crlFailpoints) {
      let armed = true
      const failpoint = (name: string) => {
        if (name === step && armed) {
          armed = false
          throw new Error('crash')
        }
      }
      await open({ failpoint })
      const a = await enrolled('a', ['batch=1'])
      await revoke('batch=1')
      expect((await lists.full(issuerName(k.issuer.keyId))).kind, step).toBe('unavailable')
      writeFileSync(join(k.folder, 'crl', `x-entries.${process.pid}.part`), 'left behind')
      await lists.close()
      lists = openLists()
      expect((await full()).serials, step).toEqual([hexOf(a.serial)])
      expect(readdirSync(join(k.folder, 'crl')).filter(name => name.endsWith('.part'))).toEqual([])
      await lists.close()
      await k.remove()
    }
    await open()
  })
})
