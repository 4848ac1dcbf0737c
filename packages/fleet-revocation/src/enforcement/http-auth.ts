// The public face under `./http-auth`: brokers that ask over HTTP who may connect and do what, and the ending of their sessions.
export * from './remote-sessions.ts'
export * from './webhook.ts'
export * from './webhook-listener.ts'
