// Extended key usages (RFC 5280 4.2.1.12) that a profile may give to a device, by name or dotted OID.

import { bytesOfHex, hexOf } from '@birthmark/device-sdk/core'

const named: Record<string, string> = {
  clientAuth: '1.3.6.1.5.5.7.3.2',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  emailProtection: '1.3.6.1.5.5.7.3.4',
  ipsecEndSystem: '1.3.6.1.5.5.7.3.5',
  ipsecIKE: '1.3.6.1.5.5.7.3.17',
  // 802.1X supplicants that ask for it: id-kp-eapOverLAN, RFC 4334.
  eapOverLAN: '1.3.6.1.5.5.7.3.14',
}

/** With these a device would speak for the CA, or for everybody: a certificate of any purpose, status answers, code, time, registration. */
const never: Record<string, string> = {
  anyExtendedKeyUsage: '2.5.29.37.0',
  codeSigning: '1.3.6.1.5.5.7.3.3',
  timeStamping: '1.3.6.1.5.5.7.3.8',
  OCSPSigning: '1.3.6.1.5.5.7.3.9',
  cmcCA: '1.3.6.1.5.5.7.3.27',
  cmcRA: '1.3.6.1.5.5.7.3.28',
  cmcArchive: '1.3.6.1.5.5.7.3.29',
}

export const CLIENT_AUTH_PURPOSE = '2b06010505070302'

/** Each costs some ten bytes in every certificate. */
export const purposesMax = 8

/** Hex of the content octets of a dotted OID; null when it is none. Arcs below 2^31. */
export function oidOfDotted(dotted: string): string | null {
  if (!/^[0-2](?:\.(?:0|[1-9]\d{0,9})){1,19}$/.test(dotted)) return null
  const [first, second, ...rest] = dotted.split('.').map(Number)
  if ((first < 2 && second > 39) || [second, ...rest].some(arc => arc > 0x7fffffff)) return null
  const octets: number[] = []
  for (const arc of [first * 40 + second, ...rest]) {
    const base128 = [arc % 128]
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) base128.unshift(0x80 | (left % 128))
    octets.push(...base128)
  }
  return hexOf(Uint8Array.from(octets))
}

/** Hex OIDs, clientAuth first and always: without it no device could renew over TLS. Throws Error with what is wrong. */
export function purposesOf(names: readonly string[]): readonly string[] {
  const oids = names.map(name => {
    const dotted = Object.hasOwn(named, name) ? named[name] : name
    if (Object.hasOwn(never, name) || Object.values(never).includes(dotted)) throw new Error(`${name} is not a device's to have`)
    const oid = oidOfDotted(dotted)
    if (oid === null || bytesOfHex(oid).length > 64)
      throw new Error(`${name} is none of ${Object.keys(named).join(', ')} and no dotted OID`)
    return oid
  })
  const all = [...new Set([CLIENT_AUTH_PURPOSE, ...oids])]
  if (all.length > purposesMax) throw new Error(`at most ${purposesMax}`)
  return Object.freeze(all)
}

/** The name of a purpose for people, or its dotted form. */
export function purposeText(dotted: string): string {
  return Object.entries(named).find(([, oid]) => oid === dotted)?.[0] ?? dotted
}
