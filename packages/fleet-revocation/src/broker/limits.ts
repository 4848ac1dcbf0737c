// What one broker admits, and why so much.

import type { PacketLimits } from './packet-guard.ts'

export interface BrokerLimits {
  /** Sockets, admitted or not. A TLS session costs ~100 KB here. */
  connectionsMax: number
  /** Of one address (IPv6: one /64): a site's devices behind one NAT. */
  connectionsPerAddressMax: number
  /** A site that comes back after a power cut: so many handshakes at once, and so many a second from then on. */
  handshakesAtOncePerAddress: number
  handshakesPerSecondPerAddress: number
  handshakeSeconds: number
  /** From the end of the handshake to CONNECT. */
  connectSeconds: number
  /** Devices ping at least this often (×1.5), so that a vanished one, or one that stalls within a packet, is let go. */
  keepaliveSecondsMax: number
  /** A subscriber that doesn't read holds up a message for everybody else this long; then it is cut. */
  drainSeconds: number
  /** Bytes of notices that wait for a connected subscriber that doesn't read; then it is cut, and the others have long been told. */
  waitingBytesMax: number
  /** Messages kept for one absent device. */
  queueMax: number
  /** Bytes of these messages; a service's have only the bound of all. */
  queueBytesMax: number
  /** Bytes of all that is kept for sessions: their queues, and messages of QoS 2 that their sender hasn't released. */
  heldBytesMax: number
  /** Devices whose session is kept while they are away; beyond, a session ends with its connection. */
  storedSessionsMax: number
  devicePackets: PacketLimits
  servicePackets: PacketLimits
}

export const defaultLimits: BrokerLimits = {
  connectionsMax: 20_000,
  // A large site, and no more than a fifth of all: nobody fills the broker from one place.
  connectionsPerAddressMax: 4000,
  // Three seconds of a core; the rest of a large site follows within ten.
  handshakesAtOncePerAddress: 2000,
  // A handshake takes ~1.6 ms: one address gets a third of a core. Long chains and strangers count as several (mutual-tls.ts).
  handshakesPerSecondPerAddress: 200,
  handshakeSeconds: 10,
  connectSeconds: 10,
  keepaliveSecondsMax: 3600,
  drainSeconds: 1,
  // Eight of the largest notices, beside what the kernel holds.
  waitingBytesMax: 64 << 10,
  queueMax: 100,
  // Three of the largest messages, or a hundred commands of 2 KB.
  queueBytesMax: 256 << 10,
  // A quarter of a small server, and 4 KB for each stored session beside. Notices don't depend on it: they are retained.
  heldBytesMax: 64 << 20,
  storedSessionsMax: 10_000,
  // 64 KB: what the catalogue of faults asks for. Subscribing to all 64 ring topics by name takes 3 KB.
  devicePackets: { connectBytesMax: 4096, controlBytesMax: 8192, publishBytesMax: 65_536 },
  // Snapshots, when they come, are the publisher's and larger.
  servicePackets: { connectBytesMax: 4096, controlBytesMax: 8192, publishBytesMax: 1 << 20 },
}
