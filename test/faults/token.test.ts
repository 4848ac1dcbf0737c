// Issuer keys in a PKCS #11 token: SoftHSM behind a shim that stalls, lies, crashes and disappears. The enrollment story on top is the real one.
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type KeyKind, testAuthority } from '@birthmark/device-sdk/testing'
import { failureCode, type Issuer, type Log } from '@birthmark/est-server'
import { systemClock } from '@birthmark/fleet-revocation'
import { openPkcs11Issuer, type Pkcs11IssuerOptions, TokenError } from '@birthmark/pkcs11'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { compose } from '../../packages/birthmark/src/compose.ts'
import { prepareDevelopment } from '../../packages/birthmark/src/development.ts'
import { csrFor, issuedBy, type Kernel, kernel, nameOf, testKey } from '../../packages/est-server/src/testing/kernel.ts'
import { type SoftToken, softToken } from '../support/soft-token.ts'

let token: SoftToken
let k: Kernel | null = null
const issuers: Issuer[] = []
const logged: string[] = []
const note = (fields: object, message: string) => void logged.push(`${message} ${JSON.stringify(fields)}`)
const log: Log = { info: note, warn: note, error: note }
beforeEach(() => {
  token = softToken()
  logged.length = 0
})
afterEach(async () => {
  for (const issuer of issuers.splice(0)) await issuer.close?.()
  await k?.remove()
  k = null
  token.remove()
})

const authority = (kind: KeyKind = 'P-256') => {
  const ca = testAuthority('Operational CA', kind)
  token.importKey(ca.privateKeyPem, 'issuer', '01')
  return ca
}

async function open(certificate: string, more: Partial<Pkcs11IssuerOptions> = {}): Promise<Issuer> {
  const issuer = await openPkcs11Issuer({
    ...{
      certificate,
      library: token.library,
      token: { label: token.label },
      key: { label: 'issuer' },
      pin: { file: token.pinFile },
      log,
    },
    ...more,
  })
  issuers.push(issuer)
  return issuer
}

const refusal = (opening: Promise<unknown>): Promise<string> =>
  opening.then(
    () => 'opened',
    error => (error instanceof TokenError ? error.code : (failureCode(error) ?? String(error))),
  )
const data = Buffer.from('to be signed')
const quick = { signMs: 1500, sessionsMax: 2, openMs: 10_000, pendingMax: 4, retryMs: 100, retryMsMax: 200 }
const until = async (what: () => boolean) => {
  for (let i = 0; !what(); i++) {
    if (i > 400) throw new Error('it did not happen')
    await new Promise(resolve => setTimeout(resolve, 25))
  }
}

describe('a token that works', () => {
  for (const kind of ['P-256', 'P-384', 'RSA-2048', 'RSA-3072'] as const)
    it(`signs with ${kind}, in the form that X.509 has`, async () => {
      const issuer = await open(authority(kind).pem)
      for (let i = 0; i < 5; i++) expect(issuer.verify(data, await issuer.sign(data))).toBe(true)
    })

  it('signs RSASSA-PSS where the issuer says so', async () => {
    const issuer = await open(authority('RSA-2048').pem, { algorithm: 'rsa-pss-sha256' })
    expect(issuer.verify(data, await issuer.sign(data))).toBe(true)
  })

  it('is found by serial number, its key by id', async () => {
    const { pem } = authority()
    await open(pem)
    const serial = /\(([0-9a-f]+)\)/.exec(logged.join(' '))?.[1] ?? ''
    await open(pem, { token: { serial }, key: { id: '01' } })
    expect(await refusal(open(pem, { token: { serial: 'other' } }))).toBe('token_absent')
    expect(await refusal(open(pem, { key: { id: '02' } }))).toBe('key_absent')
  })

  it('answers a hundred at once, in any order that they were asked', async () => {
    const issuer = await open(authority().pem)
    const all = Array.from({ length: 100 }, (_, i) => Buffer.from(`certificate ${i}`))
    const signatures = await Promise.all(all.map(tbs => issuer.sign(tbs)))
    expect(all.every((tbs, i) => issuer.verify(tbs, signatures[i]))).toBe(true)
  })
})

describe('several sessions', () => {
  const tbs = Array.from({ length: 24 }, (_, i) => Buffer.from(`certificate ${i}`))
  const signAll = async (issuer: Issuer, from: Buffer[] = tbs) => {
    const signatures = await Promise.all(from.map(one => issuer.sign(one)))
    return from.every((one, i) => issuer.verify(one, signatures[i]))
  }
  const sessions = () => logged.flatMap(line => /"sessions":(\d+)/.exec(line)?.[1] ?? [])

  for (const kind of ['P-256', 'RSA-2048'] as const)
    it(`${kind}: the token has three signatures in work at once, by one login; it is given no more than it allows`, async () => {
      const issuer = await open(authority(kind).pem, { limits: { ...quick, signMs: 10_000, sessionsMax: 3, pendingMax: 64 } })
      expect(sessions()).toEqual(['3'])
      // The library answers three together or none.
      token.plan('together')
      expect(await signAll(issuer)).toBe(true)
      expect(token.logins()).toBe(1)
    })

  it('a token far away gives more in a time by more sessions', async () => {
    const { pem } = authority()
    const seconds = async (sessionsMax: number): Promise<number> => {
      token.plan('')
      const issuer = await open(pem, { limits: { signMs: 10_000, sessionsMax } })
      token.plan('slow')
      const from = performance.now()
      expect(await signAll(issuer, tbs.slice(0, 16))).toBe(true)
      return performance.now() - from
    }
    // 100 ms a signature, 16 in turns or four by four.
    expect((await seconds(1)) / (await seconds(4))).toBeGreaterThan(2)
  })

  it('a token that has one session, and a library for one thread, serve one after another', async () => {
    const { pem } = authority()
    for (const plan of ['one-session', 'one-thread'] as const) {
      logged.length = 0
      token.plan(plan)
      const issuer = await open(pem, { limits: { sessionsMax: 4 } })
      expect(sessions()).toEqual(['1'])
      expect(await signAll(issuer)).toBe(true)
    }
  })

  it('[F40] a session that is lost, and one that stalls, take the others along: all are tried once more, or refused', async () => {
    const issuer = await open(authority().pem, { limits: { ...quick, sessionsMax: 4, pendingMax: 64 } })
    token.plan('removed')
    const all = signAll(issuer)
    await until(() => logged.some(line => line.includes('session with the token was lost')))
    token.plan('')
    expect(await all).toBe(true)
    token.plan('stall')
    const codes = await Promise.all(tbs.map(one => refusal(Promise.resolve(issuer.sign(one)))))
    expect(new Set(codes)).toEqual(new Set(['timeout']))
    token.plan('')
    await until(() => issuer.unready?.() === null)
    expect(await signAll(issuer)).toBe(true)
  })
})

describe('a token that cannot be opened', () => {
  it('names a library that is none', async () => {
    expect(await refusal(open(authority().pem, { library: '/nonexistent.so' }))).toBe('library_unusable')
  })

  it('refuses a key that is not of the certificate', async () => {
    authority()
    expect(await refusal(open(testAuthority('another').pem))).toBe('key_mismatch')
  })

  it('refuses two keys of one label', async () => {
    const { pem } = authority()
    token.importKey(testAuthority('second').privateKeyPem, 'issuer', '02')
    expect(await refusal(open(pem))).toBe('key_ambiguous')
    await open(pem, { key: { label: 'issuer', id: '01' } })
  })

  it('refuses a PIN file that others may read', async () => {
    const { pem } = authority()
    writeFileSync(join(token.folder, 'open-pin'), token.pin, { mode: 0o644 })
    expect(await refusal(open(pem, { pin: { file: join(token.folder, 'open-pin') } }))).toBe('pin_unreadable')
    expect(token.logins()).toBe(0)
  })

  it('[F40] tries a wrong PIN once, and not again after a restart', async () => {
    const { pem } = authority()
    const refusedPinFile = join(token.folder, 'refused')
    writeFileSync(token.pinFile, 'wrong', { mode: 0o600 })
    expect(await refusal(open(pem, { refusedPinFile }))).toBe('pin_wrong')
    for (let restart = 0; restart < 3; restart++) expect(await refusal(open(pem, { refusedPinFile }))).toBe('pin_withheld')
    expect(token.logins()).toBe(1)
    // What is remembered of it is neither the PIN nor a plain hash.
    expect(readFileSync(refusedPinFile, 'latin1')).not.toContain('wrong')
    writeFileSync(token.pinFile, token.pin, { mode: 0o600 })
    await open(pem, { refusedPinFile })
    expect(token.logins()).toBe(2)
  })

  it('[F40] leaves the last try of a PIN to people', async () => {
    const { pem } = authority()
    token.plan('final-try')
    expect(await refusal(open(pem))).toBe('pin_withheld')
    token.plan('locked')
    expect(await refusal(open(pem))).toBe('pin_locked')
    expect(token.logins()).toBe(0)
  })

  it('takes the PIN as a systemd credential', async () => {
    const { pem } = authority()
    process.env.CREDENTIALS_DIRECTORY = token.folder
    await open(pem, { pin: { credential: 'pin' } })
    delete process.env.CREDENTIALS_DIRECTORY
    expect(await refusal(open(pem, { pin: { credential: 'pin' } }))).toBe('pin_unreadable')
  })
})

describe('in a configuration', () => {
  it('serves a whole server, and a PIN that is wrong stops its start with a next step', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bm-'))
    try {
      const made = { folder, host: '127.0.0.1', estPort: 0, mqttPort: 0, lifetimeSeconds: 86_400, random: randomBytes }
      const { settings } = await prepareDevelopment(made)
      token.importKey(readFileSync(join(folder, 'issuer', 'issuing.key.pem'), 'utf8'), 'issuer', '01')
      const key = { kind: 'pkcs11' as const, library: token.library, token: { label: token.label }, key: { id: '01' } }
      const issuer = { ...settings.issuer, key: { ...key, pin: { file: token.pinFile } } }
      const ports = { clock: systemClock, random: randomBytes, log, onFatal: () => {} }
      const running = await compose({ ...settings, issuer }, ports)
      await running.close()
      writeFileSync(token.pinFile, 'wrong', { mode: 0o600 })
      await expect(compose({ ...settings, issuer }, ports)).rejects.toMatchObject({
        code: 'token_pin_wrong',
        next: expect.stringContaining('PIN'),
      })
      await expect(compose({ ...settings, issuer }, ports)).rejects.toMatchObject({ code: 'token_pin_withheld' })
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
})

describe('a token that fails later', () => {
  async function enrolling(more: Partial<Pkcs11IssuerOptions> = {}) {
    const ca = authority()
    const issuer = await open(ca.pem, { limits: quick, ...more })
    k = await kernel({ authorities: { ...authorities(), issuer: ca }, issuer: () => issuer })
    const device = await k.device('m-1')
    const peer = device.peer()
    const key = testKey()
    return { k, issuer, enroll: () => (k as Kernel).enroll(peer, csrFor(key, nameOf('m-1'))) }
  }
  const authorities = () => {
    const root = testAuthority('Maker root')
    return { root, maker: root.subordinate('Maker devices') }
  }

  it('[F40] stalled for 5 s: 503 and when to come back, nothing waits on it, and the same request is served later', async () => {
    const { k, issuer, enroll } = await enrolling()
    token.plan('stall')
    expect(await enroll()).toMatchObject({ kind: 'unavailable', code: 'issuer_unavailable', retryAfterSeconds: 30 })
    // Known to be away now: the next one is refused before an intent is recorded.
    expect(issuer.unready?.()).toContain('timeout')
    const before = (await k.audit()).filter(entry => entry.kind === 'intent_voided').length
    expect(await enroll()).toMatchObject({ kind: 'unavailable', code: 'issuer_unavailable' })
    expect((await k.audit()).filter(entry => entry.kind === 'intent_voided')).toHaveLength(before)
    expect(before).toBe(1)
    token.plan('')
    await until(() => issuer.unready?.() === null)
    issuedBy(await enroll())
    expect(await k.store.check()).toEqual([])
  })

  it('[F40] the event loop runs on while the token stalls', async () => {
    const { enroll } = await enrolling()
    token.plan('stall')
    let longest = 0
    let last = performance.now()
    const ticks = setInterval(() => {
      longest = Math.max(longest, performance.now() - last)
      last = performance.now()
    }, 10)
    await enroll()
    clearInterval(ticks)
    // The stall itself would be 1,500 ms of silence.
    expect(longest).toBeLessThan(1000)
  })

  it('[F40] bounds what waits for it', async () => {
    const { issuer } = await enrolling()
    token.plan('stall')
    const asked = Array.from({ length: 12 }, () => refusal(Promise.resolve(issuer.sign(data))))
    const codes = await Promise.all(asked)
    expect(codes.filter(code => code === 'queue_full')).toHaveLength(12 - quick.sessionsMax - quick.pendingMax)
    expect(codes.filter(code => code === 'timeout')).toHaveLength(quick.sessionsMax + quick.pendingMax)
  })

  it('[F40] unplugged: 503, and it serves again once it is back', async () => {
    const { issuer, enroll } = await enrolling()
    token.unplug()
    token.plan('removed')
    expect(await enroll()).toMatchObject({ kind: 'unavailable', code: 'issuer_unavailable' })
    expect(issuer.unready?.()).toContain('token_absent')
    token.plug()
    token.plan('')
    await until(() => issuer.unready?.() === null)
    issuedBy(await enroll())
  })

  it('[F40] a lost session alone is opened again without anybody noticing', async () => {
    const { issuer, enroll } = await enrolling()
    token.plan('removed')
    const answer = enroll()
    await until(() => logged.some(line => line.includes('session with the token was lost')))
    token.plan('')
    issuedBy(await answer)
    expect(issuer.unready?.()).toBe(null)
  })

  it('[F40] another token in the slot: its key is found out before it signs anything real', async () => {
    const { issuer, enroll } = await enrolling()
    token.swap()
    token.importKey(testAuthority('Impostor').privateKeyPem, 'issuer', '01')
    token.plan('crash')
    const answer = enroll()
    await until(() => logged.some(line => line.includes('session with the token was lost')))
    token.plan('')
    expect(await answer).toMatchObject({ kind: 'unavailable', code: 'issuer_unavailable' })
    expect(issuer.unready?.()).toContain('key_mismatch')
  })

  it('a library that crashes takes its own process along and nothing else', async () => {
    const { issuer, enroll } = await enrolling()
    token.plan('crash')
    expect(await enroll()).toMatchObject({ kind: 'unavailable', code: 'issuer_unavailable' })
    token.plan('')
    await until(() => issuer.unready?.() === null)
    issuedBy(await enroll())
  })

  it('[F41] a wrong signature is not released, and the record says so', async () => {
    const { k, enroll } = await enrolling()
    token.plan('flip')
    expect(await enroll()).toMatchObject({ kind: 'unavailable', code: 'signature_wrong' })
    expect((await k.store.device('meters', 'm-1'))?.certificate).toBe(null)
    expect((await k.audit()).map(entry => entry.kind)).toContain('intent_voided')
    token.plan('')
    issuedBy(await enroll())
    expect(await k.store.check()).toEqual([])
  })
})
