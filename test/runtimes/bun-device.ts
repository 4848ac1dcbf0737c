// The program that bun.test.ts starts under Bun: a device, its keys and records in the folder that a line of input names. Every line is one
// attempt and is answered by one line of JSON.

import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { BirthmarkError, createIdentity, fileKeys, fileStore, pemChain } from '@birthmark/device-sdk/bun'

export interface Attempt {
  folder: string
  url: string
  trust: { server: string; birth?: string; operational?: string }
  secret?: { user: string; password: string }
  renew?: boolean
  timeoutSeconds?: number
}

export interface Attempted {
  /** Of the error; '' for none. */
  code: string
  /** PEM, the certificate in use and its intermediates. */
  chain: string
  generation: number
}

for await (const line of createInterface({ input: process.stdin })) {
  const { folder, url, trust, secret, renew, timeoutSeconds } = JSON.parse(line) as Attempt
  const identity = createIdentity({
    keys: fileKeys(join(folder, 'keys')),
    store: fileStore(join(folder, 'identity')),
    server: { url },
    trust,
    secret,
    timeoutSeconds,
  })
  let code = ''
  try {
    await (renew ? identity.renew() : identity.enroll())
  } catch (error) {
    code = error instanceof BirthmarkError ? error.code : String(error)
  }
  const answer: Attempted = { code, chain: pemChain(identity.chain()), generation: identity.status().generation }
  process.stdout.write(`${JSON.stringify(answer)}\n`)
  identity.close()
}
