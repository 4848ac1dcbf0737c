// What a profile says, through the whole story: admission, shape, renewal, approval by hand.

import {
  COMMON_NAME,
  encodeElement,
  encodeName,
  encodeSequence,
  equalBytes,
  nameText,
  ORGANIZATION,
  parseCertificate,
  SERIAL_NUMBER,
  SUBJECT_ALT_NAME,
} from '@birthmark/device-sdk/core'
import { encodeExtension } from '@birthmark/device-sdk/testing'
import { afterEach, describe, expect, it } from 'vitest'
import type { EnrollmentOutcome } from './enrollment-request.ts'
import { createApprovals } from './fleet/approvals.ts'
import type { ProfileOptions } from './registrar/profile.ts'
import {
  csrFor,
  fleet,
  issuedBy,
  type Kernel,
  kernel,
  nameOf,
  peerWith,
  start,
  type TestDevice,
  testKey,
} from './testing/kernel.ts'

let k: Kernel
afterEach(async () => {
  expect(await k.store.check()).toEqual([])
  await k.remove()
})

const open = async (profile: Partial<ProfileOptions>, more: ProfileOptions[] = []) => {
  k = await kernel({ profile, more })
  return k.device('m-1', ['model=gw-2', 'batch=1'])
}
const enroll = (d: TestDevice, key = testKey(), label: string | null = null) =>
  k.enroll(d.peer(), csrFor(key, nameOf(d.id)), { label })
const renew = (
  certificate: Uint8Array,
  key = testKey(),
  subject = parseCertificate(certificate).subject,
  label: string | null = null,
) => k.enroll(peerWith([certificate]), csrFor(key, subject), { operation: 'reenroll', label })
const codeOf = (outcome: EnrollmentOutcome) => ('code' in outcome ? outcome.code : outcome.kind)
const detailOf = (outcome: EnrollmentOutcome) => ('detail' in outcome ? outcome.detail : '')
const day = 86_400

describe('what the certificate looks like', () => {
  const shape: Partial<ProfileOptions> = {
    subject: ['CN={id}', 'serialNumber={id}', 'O=Acmé', 'OU={model}'],
    alternativeNames: ['dns:{id}.{model}.example', 'ip:10.0.0.7'],
    extendedKeyUsage: ['serverAuth'],
  }

  it('has the names and purposes of its profile, filled in from what is known of the device, and may renew', async () => {
    const d = await open(shape)
    const certificate = issuedBy(await enroll(d))
    const c = parseCertificate(certificate)
    expect(nameText(c.subject)).toBe('OU=gw-2,O=Acmé,serialNumber=m-1,CN=m-1')
    expect(c.subjectAltNames.map(n => (n.tag === 7 ? [...n.value] : Buffer.from(n.value).toString()))).toEqual([
      'm-1.gw-2.example',
      [10, 0, 0, 7],
    ])
    expect(c.extendedKeyUsage).toEqual(['2b06010505070302', '2b06010505070301'])
    expect(equalBytes(parseCertificate(issuedBy(await renew(certificate))).subject, c.subject)).toBe(true)
  })

  it('[F16] a CSR may ask for just what the profile gives, and for nothing else', async () => {
    const d = await open(shape)
    const san = (name: string) =>
      encodeExtension(SUBJECT_ALT_NAME, false, encodeSequence([encodeElement(0x82, [Buffer.from(name)])]))
    const named = (organization: string) =>
      encodeName([
        { oid: COMMON_NAME, value: 'm-1' },
        { oid: SERIAL_NUMBER, value: 'm-1' },
        { oid: ORGANIZATION, value: organization },
      ])
    const ask = async (subject: Uint8Array, extensions: Uint8Array[] = []) =>
      codeOf(await k.enroll(d.peer(), csrFor(testKey(), subject, { extensions })))
    expect(await ask(named('Acme'))).toBe('subject_not_own')
    expect(await ask(nameOf('m-1'), [san('m-2.gw-2.example')])).toBe('subject_alt_name_not_allowed')
    expect(k.signatures()).toBe(0)
    expect(await ask(named('Acmé'), [san('m-1.gw-2.example')])).toBe('issued')
  })

  it('[RFC 9908] csrattrs fills in the names of the profile for whoever is recognised', async () => {
    const d = await open(shape)
    const demand = async (peer: Parameters<Kernel['enroll']>[0]) =>
      Buffer.from((await k.enrollment.csrAttributes(peer, null)) as Uint8Array).toString('latin1')
    const known = await demand(d.peer())
    for (const part of ['m-1.gw-2.example', 'gw-2', Buffer.from('Acmé').toString('latin1')]) expect(known).toContain(part)
    const stranger = await demand(peerWith(null))
    expect(stranger).toContain(Buffer.from('Acmé').toString('latin1'))
    expect(stranger).not.toContain('gw-2')
    // Its template has no value for this one: it is told what it can be told.
    const bare = await k.device('m-2', ['batch=1'])
    expect(await demand(bare.peer())).not.toContain('example')
  })

  it('names of more than two kilobytes are refused before anything is built', async () => {
    const long = `uri:urn:x:${'y'.repeat(230)}`
    const d = await open({ alternativeNames: Array.from({ length: 8 }, (_, i) => `${long}${i}`) })
    expect(codeOf(await enroll(d))).toBe('issued')
    const wide = await kernel({ of: k, profile: { alternativeNames: Array.from({ length: 8 }, (_, i) => `${long}{site}${i}`) } })
    const e = await k.device('m-3', [`site=${'s'.repeat(100)}`])
    expect(codeOf(await wide.enroll(e.peer(), csrFor(testKey(), nameOf('m-3'))))).toBe('name_not_possible')
    await wide.close()
  })

  it('a device without the group that a name needs is refused by the rule of the template', async () => {
    await open(shape)
    const d = await k.device('m-2', ['batch=1'])
    const outcome = await enroll(d)
    expect(outcome).toMatchObject({ kind: 'refused', code: 'name_not_possible' })
    expect(detailOf(outcome)).toBe('device m-2 is in no group model=… (rule certificate.template)')
    expect((await k.audit()).at(-1)).toMatchObject({
      kind: 'enrollment_refused',
      code: 'name_not_possible',
      detail: detailOf(outcome),
    })
  })
})

describe('who may enroll', () => {
  it('the serial number has to match, and a stranger to the pattern is not even made known', async () => {
    await open({ serialPattern: ['GW-*', 'AP-[0-9]'], requireManifest: false })
    expect(codeOf(await enroll(k.bear('GW-1')))).toBe('issued')
    const outcome = await enroll(k.bear('AP-10'))
    expect(outcome).toMatchObject({ kind: 'refused', code: 'birth_not_admitted' })
    expect(detailOf(outcome)).toContain('AP-10 does not match GW-* or AP-[0-9] (rule birth.pattern)')
    expect(await k.registry.device('AP-10')).toBeNull()
  })

  it('a URI of the birth certificate has to match', async () => {
    const d = await open({ uriPattern: 'urn:product:gw:*' })
    expect(codeOf(await enroll(d))).toBe('birth_not_admitted')
  })

  it('each label has its own anchors, manifest rule and lifetime; an unknown label admits nobody', async () => {
    const foreign = await kernel()
    const d = await open({}, [
      { fleet, label: 'sensors', birthAnchors: [foreign.root.certificate], lifetimeSeconds: 3600, requireManifest: false },
    ])
    const sensor = foreign.bear('s-1')
    expect(codeOf(await enroll(sensor))).toBe('certificate_untrusted')
    expect(codeOf(await enroll(d, testKey(), 'sensors'))).toBe('certificate_untrusted')
    expect(codeOf(await enroll(d, testKey(), 'gateways'))).toBe('label_unknown')
    const certificate = parseCertificate(issuedBy(await enroll(sensor, testKey(), 'sensors')))
    expect(certificate.notAfter).toBe(start + 3600)
    await foreign.remove()
  })
})

describe('renewing', () => {
  it('takes the label it was issued under, so that nobody renews into a profile that never admitted it', async () => {
    const other = {
      fleet,
      label: 'servers',
      birthAnchors: [],
      admitSecrets: true,
      lifetimeSeconds: day,
      extendedKeyUsage: ['serverAuth'],
    }
    const lenient = { ...other, label: 'all', renewal: { labels: [null, 'servers', 'all'] } }
    const d = await open({}, [other, lenient])
    const certificate = issuedBy(await enroll(d))
    const refused = await renew(certificate, testKey(), undefined, 'servers')
    expect(refused).toMatchObject({ kind: 'refused', code: 'certificate_of_other_profile' })
    expect(detailOf(refused)).toContain('those of servers renew (rule renewal.labels)')
    const moved = issuedBy(await renew(certificate, testKey(), undefined, 'all'))
    expect(codeOf(await renew(moved))).toBe('certificate_of_other_profile')
    expect(codeOf(await renew(moved, testKey(), undefined, 'all'))).toBe('issued')
  })

  it('before the window opens is refused, and the refusal says when it does; an equal request is answered again', async () => {
    const d = await open({ renewal: { windowFraction: 0.5 }, backdateSeconds: 0, lifetimeSeconds: 10 * day })
    const key = testKey()
    const certificate = issuedBy(await enroll(d, key))
    const early = await renew(certificate)
    expect(early).toMatchObject({ kind: 'refused', code: 'renewal_too_early' })
    expect(detailOf(early)).toContain(`from ${new Date((start + 5 * day) * 1000).toISOString()} on (rule renewal.window)`)
    expect(codeOf(await enroll(d, key))).toBe('issued')
    k.clock.at = start + 5 * day
    expect(codeOf(await renew(certificate))).toBe('issued')
  })

  it('is possible after the end for as long as the grace lasts, and then by the birth certificate alone', async () => {
    const d = await open({ renewal: { graceSeconds: 30 * day, byEnrolling: 'expired' } })
    const certificate = issuedBy(await enroll(d))
    expect(codeOf(await enroll(d))).toBe('enrolling_again_not_allowed')
    k.clock.at = start + 31 * day + 1
    const late = await renew(certificate)
    expect(late).toMatchObject({ kind: 'unauthenticated', code: 'certificate_expired' })
    expect(detailOf(late)).toContain('30 days of grace')
    k.clock.at = start + 31 * day
    expect(codeOf(await renew(certificate))).toBe('issued')
    k.clock.at = start + 33 * day
    expect(codeOf(await enroll(d))).toBe('issued')
  })

  it('without grace ends with the certificate, and a revoked one gets no grace', async () => {
    const d = await open({})
    const certificate = issuedBy(await enroll(d))
    k.clock.at = start + day + 1
    expect(codeOf(await renew(certificate))).toBe('certificate_expired')
    k.clock.at = start
    await k.revocation.revokeGroup({ group: 'model=gw-2', by: 'test' })
    const patient = await kernel({ of: k, profile: { renewal: { graceSeconds: day } } })
    patient.clock.at = start + day + 1
    const outcome = await patient.enroll(peerWith([certificate]), csrFor(testKey(), parseCertificate(certificate).subject), {
      operation: 'reenroll',
    })
    expect(codeOf(outcome)).toBe('group_revoked')
    await patient.close()
  })

  it('[F17] keeps the name when the templates have changed, unless the profile lets it change', async () => {
    const d = await open({ alternativeNames: ['dns:{id}.old.example'] })
    const certificate = issuedBy(await enroll(d))
    const asked = parseCertificate(certificate).subject
    const renewWith = async (profile: Partial<ProfileOptions>, subject = asked) => {
      const other = await kernel({ of: k, profile })
      const outcome = await other.enroll(peerWith([certificate]), csrFor(testKey(), subject), { operation: 'reenroll' })
      await other.close()
      return outcome
    }
    const changed = { alternativeNames: ['dns:{id}.new.example'], subject: ['CN={id}', 'O=Acme'] }
    const refused = await renewWith(changed)
    expect(refused).toMatchObject({ kind: 'refused', code: 'subject_changed' })
    expect(detailOf(refused)).toContain('(rule renewal.name)')
    expect(codeOf(await renewWith({ alternativeNames: changed.alternativeNames }))).toBe('subject_changed')
    const may = { ...changed, renewal: { nameMayChange: true } }
    const renewed = parseCertificate(issuedBy(await renewWith(may)))
    expect(nameText(renewed.subject)).toBe('O=Acme,CN=m-1')
    // The CSR may say either name, and no third.
    expect(codeOf(await renewWith(may, renewed.subject))).toBe('issued')
    expect(codeOf(await renewWith(may, nameOf('m-2')))).toBe('subject_changed')
  })

  it('names the issuers whose certificates renew', async () => {
    const d = await open({})
    const certificate = issuedBy(await enroll(d))
    const strict = await kernel({ of: k, profile: { renewal: { issuers: ['00ff'] } } })
    const outcome = await strict.enroll(peerWith([certificate]), csrFor(testKey(), nameOf('m-1', 'm-1')), { operation: 'reenroll' })
    expect(codeOf(outcome)).toBe('issuer_not_admitted')
    await strict.close()
  })

  it('by the birth certificate is shut for good when the profile says never', async () => {
    const d = await open({ renewal: { byEnrolling: 'never' } })
    const key = testKey()
    const certificate = issuedBy(await enroll(d, key))
    expect(await enroll(d, key)).toMatchObject({ kind: 'issued', again: true, certificate })
    k.clock.at = start + 2 * day
    expect(codeOf(await enroll(d))).toBe('enrolling_again_not_allowed')
  })
})

describe('approval by hand', () => {
  const approvals = () => createApprovals({ store: k.store, fleet, clock: k.clock })
  const waiting = () => approvals().list({ state: 'waiting', limit: 10 })
  const say = (id: number, approve: boolean) => approvals().decide({ id, approve, by: 'alice', reason: approve ? '' : 'not ours' })

  it('the same CSR posted again is the poll; fifty polls are one request; approved, it is issued once', async () => {
    const d = await open({ approval: 'first' })
    const key = testKey()
    const outcomes = await Promise.all(Array.from({ length: 50 }, () => enroll(d, key)))
    expect(outcomes.every(o => o.kind === 'pending' && o.retryAfterSeconds === 30)).toBe(true)
    const [request, ...others] = await waiting()
    expect(others).toEqual([])
    expect(request).toMatchObject({ deviceId: 'm-1', from: '192.0.2.1', summary: 'serialNumber=m-1,CN=m-1; P-256 key' })
    k.clock.at += 3600
    expect(await enroll(d, key)).toEqual({ kind: 'pending', retryAfterSeconds: 900 })
    expect(k.signatures()).toBe(0)
    await say(request.id, true)
    const certificate = issuedBy(await enroll(d, key))
    expect(await enroll(d, key)).toMatchObject({ kind: 'issued', again: true })
    const kinds = (await k.audit()).map(({ kind, by }) => `${kind} ${by}`)
    expect(kinds.filter(kind => /approval|issued/.test(kind))).toEqual([
      'approval_asked 192.0.2.1',
      'approval_granted alice',
      'certificate_issued 192.0.2.1',
    ])
    // Only the first waits.
    expect(codeOf(await renew(certificate))).toBe('issued')
  })

  it('[F13] a certificate of a label that asked nobody is no approval under one that asks', async () => {
    const label = 'guarded'
    const d = await open({})
    const { root, maker, ca: issuer } = k
    const guarded = { birthAnchors: [root.certificate], fleet, label, lifetimeSeconds: 3600, approval: 'first' as const }
    await k.remove()
    k = await kernel({ authorities: { root, maker, issuer }, more: [guarded] })
    const device = await k.device(d.id)
    expect(codeOf(await enroll(device))).toBe('issued')
    const key = testKey()
    expect((await enroll(device, key, label)).kind).toBe('pending')
    const [{ id }] = await waiting()
    await say(id, true)
    const certificate = issuedBy(await enroll(device, key, label))
    expect(
      codeOf(
        await k.enroll(peerWith([certificate]), csrFor(testKey(), parseCertificate(certificate).subject), {
          label,
          operation: 'reenroll',
        }),
      ),
    ).toBe('issued')
  })

  it('denied, it is refused with who and why, until somebody thinks better of it', async () => {
    const d = await open({ approval: 'first' })
    const key = testKey()
    await enroll(d, key)
    const [{ id }] = await waiting()
    await say(id, false)
    const refused = await enroll(d, key)
    expect(refused).toMatchObject({ kind: 'refused', code: 'approval_denied' })
    expect(detailOf(refused)).toBe('alice denied this request of device m-1: not ours (rule approval)')
    // Another key is another request.
    expect(codeOf(await enroll(d))).toBe('pending')
    await say(id, true)
    expect(codeOf(await enroll(d, key))).toBe('issued')
  })

  it('a denial while the certificate is being prepared wins: nothing is signed, and the device hears of the denial', async () => {
    let deny = async () => {}
    k = await kernel({
      profile: { approval: 'first' },
      failpoint: async name => {
        if (name === 'prepared') await deny()
      },
    })
    const d = await k.device('m-1')
    const key = testKey()
    await enroll(d, key)
    const [{ id }] = await waiting()
    await say(id, true)
    deny = async () => void (await say(id, false))
    expect(codeOf(await enroll(d, key))).toBe('approval_denied')
    expect(k.signatures()).toBe(0)
    deny = async () => {}
    await say(id, true)
    expect(codeOf(await enroll(d, key))).toBe('issued')
  })

  it('an approval serves one key of one device', async () => {
    const d = await open({ approval: 'first' })
    const other = await k.device('m-2')
    const key = testKey()
    await enroll(d, key)
    await say((await waiting())[0].id, true)
    expect(codeOf(await enroll(d))).toBe('pending')
    expect(codeOf(await k.enroll(other.peer(), csrFor(key, nameOf('m-2'))))).toBe('pending')
  })

  it("under 'every' a renewal waits too, also of the same key", async () => {
    const d = await open({ approval: 'every' })
    const key = testKey()
    await enroll(d, key)
    await say((await waiting())[0].id, true)
    const certificate = issuedBy(await enroll(d, key))
    expect(codeOf(await renew(certificate, key))).toBe('pending')
    const [request] = await waiting()
    expect(request.operation).toBe('reenroll')
    await say(request.id, true)
    expect(await renew(certificate, key)).toMatchObject({ kind: 'issued', again: false })
  })

  it('an approval that nobody collects in a month is void, and so is a request that nobody answers', async () => {
    const d = await open({ approval: 'first' })
    const key = testKey()
    await enroll(d, key)
    const [{ id }] = await waiting()
    await say(id, true)
    k.clock.at += 30 * day
    expect(codeOf(await enroll(d, key))).toBe('pending')
    expect((await waiting())[0].id).toBeGreaterThan(id)
    await expect(say(id, true)).rejects.toMatchObject({ code: 'approval_unknown' })
    k.clock.at += 30 * day
    expect(await waiting()).toEqual([])
  })

  it('nobody is asked about what a rule refuses', async () => {
    const d = await open({ approval: 'first' })
    expect(codeOf(await k.enroll(d.peer(), csrFor(testKey(), nameOf('m-2'))))).toBe('subject_not_own')
    await k.revocation.revokeGroup({ group: 'batch=1', by: 'test' })
    expect(codeOf(await enroll(d))).toBe('group_revoked')
    expect(await waiting()).toEqual([])
  })

  it('a full waiting room turns away with a Retry-After', async () => {
    const full = { awaitApproval: async () => ({ kind: 'full' as const }) }
    k = await kernel({ profile: { approval: 'first' }, between: store => Object.assign(Object.create(store), store, full) })
    const d = await k.device('m-1')
    expect(await enroll(d)).toMatchObject({ kind: 'unavailable', code: 'busy', retryAfterSeconds: 3600 })
  })
})
