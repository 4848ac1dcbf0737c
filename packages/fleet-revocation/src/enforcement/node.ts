// The public face under `./node`: devices at a TLS or HTTPS server of Node.
export * from './device-guard.ts'
export * from './device-peer.ts'
