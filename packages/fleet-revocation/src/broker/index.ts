// Brokers: the embedded one, and ways to use and to command one elsewhere.
export * from './access.ts'
export * from './crl-file.ts'
export * from './embedded-broker.ts'
export * from './limits.ts'
export * from './mosquitto.ts'
export * from './mosquitto-config.ts'
export * from './mqtt-bus.ts'
export * from './peer.ts'
