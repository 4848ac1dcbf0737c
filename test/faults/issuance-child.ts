// A server process for crash tests, without HTTP: opens the store in `folder`, enrolls, and dies by SIGKILL where it is told to.
// argv[2]: JSON of `ChildPlan`. Prints the hex certificate of each acknowledged request on a line of its own.

import { randomBytes } from 'node:crypto'
import { writeSync } from 'node:fs'
import { join } from 'node:path'
import { createEnrollment, enrollmentProfile, openSqliteStore, type Peer, softwareIssuer } from '@birthmark/est-server'

export interface ChildPlan {
  folder: string
  fleet: string
  now: number
  /** PEM. */
  issuer: string
  issuerKey: string
  /** Base64 DER. */
  anchor: string
  /** All at once. */
  requests: {
    operation: 'enroll' | 'reenroll'
    chain: string[] | null
    basic: { user: string; password: string } | null
    csr: string
  }[]
  /** Failpoint to die at; '' for none. */
  dieAt: string
}

const plan = JSON.parse(process.argv[2]) as ChildPlan
const bytes = (base64: string) => new Uint8Array(Buffer.from(base64, 'base64'))
const silent = { info() {}, warn() {}, error() {} }
const store = await openSqliteStore({ path: join(plan.folder, 'store.db') })
const enrollment = createEnrollment({
  store,
  issuer: softwareIssuer({ certificate: plan.issuer, privateKeyPem: plan.issuerKey }),
  profiles: [
    enrollmentProfile({ fleet: plan.fleet, birthAnchors: [bytes(plan.anchor)], lifetimeSeconds: 86_400, admitSecrets: true }),
  ],
  status: () => 'good',
  clock: { now: () => plan.now },
  random: n => new Uint8Array(randomBytes(n)),
  log: silent,
  failpoint(name) {
    if (name === plan.dieAt) process.kill(process.pid, 'SIGKILL')
  },
})
await Promise.all(
  plan.requests.map(async ({ operation, chain, basic, csr }, i) => {
    const peer: Peer = { chain: chain && chain.map(bytes), basic, address: '192.0.2.1', tlsVersion: 'TLSv1.3', resumed: false }
    const outcome = await enrollment.enroll({ operation, label: null, csr: bytes(csr), peer, requestId: `child-${i}` })
    // Written with one synchronous call, so that what the parent reads was acknowledged and what was acknowledged is read.
    if (outcome.kind === 'issued') writeSync(1, `${Buffer.from(outcome.certificate).toString('hex')}\n`)
    else writeSync(2, `${JSON.stringify(outcome)}\n`)
  }),
)
await store.close()
