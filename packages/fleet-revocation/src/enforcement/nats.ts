// The public face under `./nats`: the users of a nats-server node, who are the devices that may be there.
export { signalReload } from '../broker/broker-file.ts'
export * from '../broker/nats-users.ts'
