// The public face under `./mosquitto`: its files, its dynamic security plugin, and the CRL file of its TLS layer.
export { signalReload } from '../broker/broker-file.ts'
export * from '../broker/crl-file.ts'
export * from '../broker/mosquitto.ts'
export * from '../broker/mosquitto-config.ts'
