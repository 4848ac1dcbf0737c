// Servers that end TLS in front of this one. A forwarded client certificate is worth as much as whoever forwards it: it counts only on a
// connection whose own client certificate is a configured proxy's (RFC 9440 2.4, 4), and from anybody else the same headers are not read.
// Before: a TLS peer and its headers. After: the device as the proxy saw it; that the device held its key is the proxy's word.

import { isIP } from 'node:net'
import {
  anchorOf,
  type Bytes,
  COMMON_NAME,
  codeOf,
  decodePem,
  defaultAlgorithms,
  nameAttribute,
  parseCertificate,
  utf8Text,
  validatePath,
} from '@birthmark/device-sdk/core'
import type { Peer } from './enrollment-request.ts'
import { EstServerError } from './errors.ts'
import { createVerifier } from './node-crypto.ts'
import type { Clock } from './ports.ts'

export interface ProxyRule {
  /** DER. Whom the proxy's client certificate must lead to: a CA that issues to proxies and never to devices. */
  anchors: Bytes[]
  /** dNSName or common name, exactly. */
  names: string[]
  /**
   * The one header in which it says who its client is. What comes in the other is a stranger's word that the proxy let through, perhaps of a
   * client that showed it no certificate at all, and is refused.
   */
  header: ForwardingHeader
}

/** RFC 9440, with Client-Cert-Chain; or nginx's $ssl_client_escaped_cert. */
export type ForwardingHeader = (typeof forwardingHeaders)[number]
export const forwardingHeaders = ['Client-Cert', 'X-SSL-Client-Cert'] as const

/** `malformed`: a proxy forwarded what cannot be read, which is nobody. */
export type Forwarding = { kind: 'direct' } | { kind: 'forwarded'; peer: Peer } | { kind: 'malformed'; detail: string }

export interface Proxies {
  forwardedBy(peer: Peer, header: (name: string) => string | undefined): Forwarding
}

const CLIENT_AUTH = '2b06010505070302' // 1.3.6.1.5.5.7.3.2
/** Leaf and nine more, as on a connection of our own. */
const chainCertificatesMax = 10
const certificateBytesMax = 16_384

/** RFC 8941 3.3.5: one Byte Sequence. */
function byteSequence(item: string): Bytes | null {
  const text = /^:([A-Za-z0-9+/]+={0,2}):$/.exec(item.trim())?.[1]
  const bytes = text ? Buffer.from(text, 'base64') : null
  return bytes && bytes.length <= certificateBytesMax ? new Uint8Array(bytes) : null
}

/** RFC 9440 2.2, 2.3: Client-Cert and Client-Cert-Chain. Null for what is malformed. */
function structured(leaf: string, chain: string | undefined): Bytes[] | null {
  const items = [leaf, ...(chain === undefined ? [] : chain.split(','))]
  if (items.length > chainCertificatesMax) return null
  const certificates = items.map(byteSequence)
  return certificates.every(der => der !== null) ? certificates : null
}

/** nginx's $ssl_client_escaped_cert: the leaf as PEM, percent-encoded. */
function escaped(value: string): Bytes[] | null {
  try {
    const found = decodePem(decodeURIComponent(value), 'CERTIFICATE', chainCertificatesMax)
    return found.length === 0 ? null : found
  } catch (error) {
    if (error instanceof URIError || codeOf(error) !== null) return null
    throw error
  }
}

/** Throws `profile_invalid` for a rule that names nobody. */
export function createProxies(rules: ProxyRule[], clock: Clock): Proxies {
  const read = rules.map(({ anchors, names, header }) => {
    if (anchors.length === 0 || names.length === 0) throw new EstServerError('profile_invalid', 'proxies: anchors and names')
    return { anchors: anchors.map(der => anchorOf(parseCertificate(der))), names: new Set(names), header }
  })
  const verifier = createVerifier()
  /** What a connection is: whose it is, and until when its path holds; null for a peer that is no proxy. */
  const known = new WeakMap<Peer, { until: number; header: ForwardingHeader } | null>()

  function proxyOf(chain: Bytes[]): { until: number; header: ForwardingHeader } | null {
    try {
      const [leaf, ...rest] = chain.slice(0, chainCertificatesMax).map(parseCertificate)
      const names = leaf.subjectAltNames.filter(({ tag }) => tag === 2).map(({ value }) => utf8Text(value) ?? '')
      names.push(nameAttribute(leaf.subject, COMMON_NAME) ?? '')
      let until = 0
      for (const { anchors, names: allowed, header } of read) {
        if (!names.some(name => allowed.has(name))) continue
        const time = Math.floor(clock.now())
        const limits = { depthMax: 4, signaturesMax: 8 }
        const rules = { anchors, time, algorithms: defaultAlgorithms, purpose: CLIENT_AUTH, understoodCritical: [], ...limits }
        validatePath(leaf, rest, rules, verifier, (error, path) => {
          if (!error && path) until = Math.min(...path.map(c => c.notAfter))
        })
        if (until > 0) return { until, header }
      }
    } catch (error) {
      if (codeOf(error) === null) throw error
    }
    return null
  }

  return {
    forwardedBy(peer, header) {
      if (peer.chain === null) return { kind: 'direct' }
      let proxy = known.get(peer)
      if (proxy === undefined) {
        proxy = proxyOf(peer.chain)
        known.set(peer, proxy)
      }
      if (proxy === null || proxy.until < clock.now()) return { kind: 'direct' }
      const standard = header('client-cert')
      // nginx leaves the header out for a client without a certificate; others send it empty.
      const nginx = header('x-ssl-client-cert') || undefined
      const foreign = proxy.header === 'Client-Cert' ? nginx : (standard ?? header('client-cert-chain'))
      if (foreign !== undefined)
        return { kind: 'malformed', detail: `the proxy speaks by ${proxy.header}, and lets another such header through` }
      let chain: Bytes[] | null = null
      if (standard !== undefined || nginx !== undefined) {
        chain = standard !== undefined ? structured(standard, header('client-cert-chain')) : escaped(nginx as string)
        if (chain === null) return { kind: 'malformed', detail: 'the forwarded client certificate cannot be read' }
      }
      // What the proxy itself added last, for the record.
      const address = header('x-forwarded-for')?.split(',').at(-1)?.trim() ?? ''
      // No channel binding: the device's TLS connection ends at the proxy, and a CSR that names it is a CSR for another one.
      const none = { basic: null, tlsUnique: null, tlsExporter: null }
      return {
        kind: 'forwarded',
        peer: { chain, ...none, address: isIP(address) ? address : peer.address, tlsVersion: '', resumed: false },
      }
    },
  }
}
