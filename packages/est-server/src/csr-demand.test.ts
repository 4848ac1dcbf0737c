import {
  bytesOfHex,
  CHALLENGE_PASSWORD,
  encodeElement,
  encodeOid,
  encodeSequence,
  hexOf,
  oidText,
  parseCertificate,
  readWhole,
  stringOf,
} from '@birthmark/device-sdk/core'
import { afterEach, describe, expect, it } from 'vitest'
import { csrDemand } from './csr-demand.ts'
import { enrollmentProfile } from './registrar/profile.ts'
import { csrFor, issuedBy, type Kernel, kernel, peerWith, start, testKey } from './testing/kernel.ts'
import { CSR_TEMPLATE, parseCsrAttributes, parseCsrTemplate } from './wire/csr-attributes.ts'

let k: Kernel
afterEach(() => k.remove())

const templateIn = (der: Uint8Array) =>
  parseCsrTemplate(parseCsrAttributes(der).find(a => a.oid === CSR_TEMPLATE)?.values?.[0] as Uint8Array)

describe('what csrattrs asks for', () => {
  it('[RFC 9908 3.4] names the device that is recognised, and a CSR that follows the template is issued', async () => {
    k = await kernel({ profile: { trustDomain: 'plant.example', keys: ['P-256'] } })
    const device = await k.device('unit-7')
    const template = templateIn((await k.enrollment.csrAttributes(device.peer(), null)) as Uint8Array)
    const names = template.subject?.map(([a]) => [oidText(a.oid), a.value && stringOf(readWhole(a.value, a.value[0]))])
    expect(names).toEqual([
      ['2.5.4.3', 'unit-7'],
      ['2.5.4.5', 'unit-7'],
    ])
    // The CSR that a client makes of it: the name and the extensions as they stand.
    const subject = encodeSequence(
      (template.subject ?? []).map(([a]) => encodeElement(0x31, [encodeSequence([encodeOid(a.oid), a.value as Uint8Array])])),
    )
    const extensions = template.extensions.map(e =>
      encodeSequence([encodeOid(e.oid), ...(e.critical ? [bytesOfHex('0101ff')] : []), encodeElement(4, [e.value as Uint8Array])]),
    )
    const certificate = parseCertificate(issuedBy(await k.enroll(device.peer(), csrFor(testKey(), subject, { extensions }))))
    expect(hexOf(certificate.subject)).toBe(hexOf(subject))
    for (const asked of template.extensions)
      expect(
        certificate.extensions.find(e => e.oid === asked.oid),
        oidText(asked.oid),
      ).toEqual({
        oid: asked.oid,
        critical: asked.critical,
        value: asked.value,
      })
  })

  it('leaves names to a client that nobody recognises, and knows no unknown label', async () => {
    k = await kernel()
    const template = templateIn((await k.enrollment.csrAttributes(peerWith(null), null)) as Uint8Array)
    expect(template.subject?.flat().map(a => a.value)).toEqual([null, null])
    expect(template.key).toBeNull()
    const stranger = peerWith([k.ca.certificate])
    expect(await k.enrollment.csrAttributes(stranger, null)).toEqual(await k.enrollment.csrAttributes(peerWith(null), null))
    expect(await k.enrollment.csrAttributes(peerWith(null), 'elsewhere')).toBeNull()
  })

  it('counts what it looked into for a certificate that proves nothing, and looks once', async () => {
    k = await kernel()
    const device = await k.device('unit-7')
    const stranger = peerWith([k.maker.certificate])
    const known = device.peer()
    for (const peer of [known, stranger]) await k.enrollment.csrAttributes(peer, null)
    expect([known, stranger, peerWith(null)].map(peer => k.enrollment.isStranger(peer, null))).toEqual([false, true, false])
    // Time may lift a refusal, and is asked once a minute: climbing a path anew at each request would be work without bound.
    const born = start - 86_400 * 1000
    const early = device.peer()
    const seen: boolean[] = []
    for (const at of [born - 30, born + 10, born + 31]) {
      k.clock.at = at
      await k.enrollment.csrAttributes(early, null)
      seen.push(k.enrollment.isStranger(early, null))
    }
    expect(seen).toEqual([true, true, false])
  })

  it('[RFC 9908 4] asks for the channel binding in the list alone, since no template can', async () => {
    k = await kernel()
    const profile = enrollmentProfile({ fleet: 'meters', birthAnchors: [k.root.certificate], lifetimeSeconds: 3600 })
    const items = parseCsrAttributes(csrDemand(profile, null, 'channel'))
    expect(items[0]).toEqual({ oid: CHALLENGE_PASSWORD, values: null })
    expect(items.some(({ oid }) => oid === CSR_TEMPLATE)).toBe(false)
  })
})
