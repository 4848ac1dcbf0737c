// Which addresses this server calls when a configured URL says so. A name is whatever its owner says at the moment, so the check is made on
// the resolved address, and the connection goes to that very address (FAULTS 62).

import { BlockList, isIP } from 'node:net'

const never = new BlockList()
// "This host" (RFC 1122), link-local where cloud metadata lives, multicast, reserved and broadcast.
for (const [net, bits] of [
  ['0.0.0.0', 8],
  ['169.254.0.0', 16],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
] as const)
  never.addSubnet(net, bits, 'ipv4')
// Metadata of clouds that put it elsewhere.
never.addAddress('100.100.100.200', 'ipv4')
never.addAddress('fd00:ec2::254', 'ipv6')
// Unspecified and IPv4-compatible, NAT64, Teredo, 6to4 (each hides an IPv4 address), link-local, site-local, multicast.
for (const [net, bits] of [
  ['64:ff9b::', 96],
  ['64:ff9b:1::', 48],
  ['2001::', 32],
  ['2002::', 16],
  ['fe80::', 10],
  ['fec0::', 10],
  ['ff00::', 8],
] as const)
  never.addSubnet(net, bits, 'ipv6')

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

/** The sixteen octets of an IPv6 address in canonical text, as the URL parser writes it. */
function octetsOf(address: string): number[] | null {
  const url = URL.parse(`http://[${address.split('%')[0]}]/`)
  if (url === null) return null
  const [head, tail] = url.hostname.slice(1, -1).split('::')
  const words = (part: string | undefined) => (part ? part.split(':') : [])
  const left = words(head)
  const right = words(tail)
  const all = [...left, ...Array<string>(8 - left.length - right.length).fill('0'), ...right]
  return all.flatMap(word => [Number.parseInt(word, 16) >> 8, Number.parseInt(word, 16) & 255])
}

/** Why this address is not called; null when it may be. `address`: IPv4 or IPv6 text. */
export function addressRefusal(address: string, allowLoopback: boolean): string | null {
  const family = isIP(address)
  if (family === 0) return 'not an address'
  if (family === 6) {
    const octets = octetsOf(address)
    if (octets === null) return 'not an address'
    const zeros = octets.slice(0, 10).every(octet => octet === 0)
    const mapped = zeros && octets[10] === 0xff && octets[11] === 0xff
    if (mapped) return addressRefusal(octets.slice(12).join('.'), allowLoopback)
    const isLoopback = zeros && octets.slice(10, 15).every(octet => octet === 0) && octets[15] === 1
    if (zeros && octets[10] === 0 && octets[11] === 0 && !isLoopback) return 'unspecified or IPv4-compatible'
  }
  const kind = family === 4 ? 'ipv4' : 'ipv6'
  const bare = address.split('%')[0]
  if (never.check(bare, kind)) return 'link-local, multicast, reserved or a tunnel'
  return !allowLoopback && loopback.check(bare, kind) ? 'an address of this machine' : null
}
