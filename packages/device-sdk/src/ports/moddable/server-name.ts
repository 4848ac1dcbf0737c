// Whether a server's certificate names the host that was asked for (RFC 9525): its subjectAltName alone, never its common name.

import { type Bytes, utf8Text } from '../../core/bytes.ts'
import type { Certificate } from '../../core/certificate.ts'

const DNS_NAME = 2
const IP_ADDRESS = 7

/** A `*` stands for the whole of the leftmost label, and for none of the rest (RFC 9525 6.3). */
function isNamed(name: string, host: string): boolean {
  const dot = host.indexOf('.')
  return name === host || (name.slice(0, 2) === '*.' && dot > 0 && name.slice(1) === host.slice(dot))
}

/** `host`: a name in ASCII, or an IPv4 address. */
export function serverIsNamed(certificate: Certificate, host: string): boolean {
  const wanted = host.toLowerCase()
  const address = /^\d+\.\d+\.\d+\.\d+$/.test(wanted)
  return certificate.subjectAltNames.some(({ tag, value }) =>
    address
      ? tag === IP_ADDRESS && value.length === 4 && Array.prototype.join.call(value, '.') === wanted
      : tag === DNS_NAME && isNamed((utf8Text(value as Bytes) ?? '').toLowerCase(), wanted),
  )
}
