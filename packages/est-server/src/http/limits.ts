// What a stranger may take before we know who it is: bytes, time, sockets. Every number can be set; none can be switched off. What an address may
// take is for all processes together, everything else for each.

export interface Limits {
  /** Sockets at once, in whatever state. */
  connectionsMax: number
  /** Sockets at once of one address (IPv6: one /64). */
  connectionsPerAddressMax: number
  /** New connections of one address: so many at once … */
  connectionBurstPerAddress: number
  /** … and so many a second after that. */
  connectionsPerSecondPerAddress: number
  /** Accept to the end of the TLS handshake. */
  handshakeSeconds: number
  /** From being ready for a request to its complete head: an idle connection and a dripped header are the same thing. */
  headSeconds: number
  /** From the head to the last byte of the body. */
  bodySeconds: number
  /** From the complete request to the last byte of the answer. */
  answerSeconds: number
  /** Request line and headers together. */
  headerBytesMax: number
  /** What is read of a body before it is refused. */
  bodyBytesMax: number
  /** Requests before the connection is closed in an orderly way. */
  requestsPerConnectionMax: number
  /** That answer on this port: each takes its part of what an address may have (process-share.ts). */
  processes: number
}

export const defaultLimits: Limits = {
  // A TLS socket holds about 60 KB here: 64 MB when full. The one that has waited longest makes room for a newcomer (connection-gate.ts).
  connectionsMax: 1024,
  // A plant or a gateway behind one address stays below this; a single attacker cannot fill the table.
  connectionsPerAddressMax: 256,
  // A handshake costs about 2 ms of CPU. Behind one address a thousand devices may boot together and are through in seven seconds.
  connectionBurstPerAddress: 400,
  connectionsPerSecondPerAddress: 100,
  // Two round trips at the worst GPRS delay, and a microcontroller that needs 4 s for its ECDSA.
  handshakeSeconds: 15,
  headSeconds: 15,
  // 64 KB at 2 KB/s would take 32 s, but a CSR is below 4 KB: what takes longer than this drips on purpose.
  bodySeconds: 15,
  // As long as the SDK's estTimeoutSeconds: nobody waits for an answer any longer.
  answerSeconds: 60,
  headerBytesMax: 16_384,
  // An ML-DSA-65 CSR is 5.4 KB; 64 KB leaves room for every attribute seen and wrapping.
  bodyBytesMax: 65_536,
  // Also bounds how long a connection outlives a change of the listener's certificate.
  requestsPerConnectionMax: 1000,
  processes: 1,
}
