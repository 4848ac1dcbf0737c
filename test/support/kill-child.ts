// A server process for kill loops, without HTTP: opens the store, serves the requests it is given, 32 at a time, and dies by SIGKILL where it
// is told to, if it is. argv[2]: a file with JSON of `KillPlan`. Says on stdout, with one synchronous write each, so that what the parent reads
// was said before the process died: `S serial` before a signature, `A request certificate` for an answer.

import { randomBytes } from 'node:crypto'
import { readFileSync, writeSync } from 'node:fs'
import { hexOf, parseCertificate } from '@birthmark/device-sdk/core'
import {
  createEnrollment,
  enrollmentProfile,
  openPostgresStore,
  openSqliteStore,
  type Peer,
  type PostgresAddress,
  softwareIssuer,
} from '@birthmark/est-server'

export interface KillPlan {
  sqlite: string | null
  postgres: PostgresAddress | null
  fleet: string
  /** PEM. */
  issuer: string
  issuerKey: string
  /** Base64 DER. */
  anchor: string
  requests: { number: number; chain: string[]; csr: string }[]
  /** Failpoint to die at, '' for none, and at which of its calls. */
  dieAt: string
  call: number
}

const plan = JSON.parse(readFileSync(process.argv[2], 'utf8')) as KillPlan
const bytes = (base64: string) => new Uint8Array(Buffer.from(base64, 'base64'))
const say = (line: string) => writeSync(1, `${line}\n`)
const store = await (plan.postgres
  ? openPostgresStore(plan.postgres)
  : openSqliteStore({ path: plan.sqlite as string, onStopped: () => process.exit(3) }))
const real = softwareIssuer({ certificate: plan.issuer, privateKeyPem: plan.issuerKey })
let calls = 0
const enrollment = createEnrollment({
  store,
  issuer: {
    ...real,
    sign(tbs) {
      // The serial number is the first INTEGER behind the version, whose encoding is always a0 03 02 01 02; the outer header has 4 bytes.
      const length = tbs[10]
      say(`S ${hexOf(tbs.subarray(11, 11 + length))}`)
      return real.sign(tbs)
    },
  },
  profiles: [
    enrollmentProfile({ fleet: plan.fleet, birthAnchors: [bytes(plan.anchor)], lifetimeSeconds: 86_400, requireManifest: false }),
  ],
  status: () => 'good',
  clock: { now: () => Date.now() / 1000 },
  random: n => new Uint8Array(randomBytes(n)),
  log: { info() {}, warn() {}, error() {} },
  failpoint(name) {
    if (name === plan.dieAt && ++calls === plan.call) process.kill(process.pid, 'SIGKILL')
  },
})
const waiting = plan.requests.values()
await Promise.all(
  Array.from({ length: 32 }, async () => {
    for (const { number, chain, csr } of waiting) {
      const peer: Peer = { chain: chain.map(bytes), basic: null, address: '192.0.2.1', tlsVersion: 'TLSv1.3', resumed: false }
      const request = { operation: 'enroll' as const, label: null, csr: bytes(csr), peer, requestId: `r-${number}` }
      const outcome = await enrollment.enroll(request)
      if (outcome.kind === 'issued') say(`A ${number} ${hexOf(parseCertificate(outcome.certificate).der)}`)
      else writeSync(2, `${JSON.stringify(outcome)}\n`)
    }
  }),
)
await store.close()
