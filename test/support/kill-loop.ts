// Kills a server under enrollment load, again and again, and counts afterwards: every certificate that was acknowledged or signed against what
// the store has. Half of the kills come at a named failpoint, each in turn; the others at any moment. What had no answer is asked again by the
// next server, as a device would.

import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { hexOf, parseCertificate } from '@birthmark/device-sdk/core'
import { neverExpires, testAuthority } from '@birthmark/device-sdk/testing'
import { failpoints, openPostgresStore, openSqliteStore, resolveOpenIntents, type Store } from '@birthmark/est-server'
import { csrFor, nameOf, testKey } from '../../packages/est-server/src/testing/kernel.ts'
import type { KillPlan } from './kill-child.ts'
import { startPostgres, type TestPostgres } from './postgres.ts'

export interface KillReport {
  kills: number
  /** Of these, kills of PostgreSQL as a whole beside the server. */
  databaseKills: number
  acknowledged: number
  signed: number
  /** Acknowledged, and not in the store as it was answered. */
  lost: number
  /** Requests with more than one certificate, serials and indices on more than one. */
  duplicated: number
  /** Signed, with no record of the serial. */
  unrecorded: number
  /** Share of the failpoints at which a server died. */
  failpointsCovered: number
  /** Broken invariants of the store, intents that stayed open, requests without a certificate in the end. */
  broken: string[]
}

const fleet = 'meters'
const perRun = 60
const program = fileURLToPath(new URL('kill-child.ts', import.meta.url))

interface Run {
  signal: string | null
  errors: string
}

export async function killLoop(kind: 'sqlite' | 'postgres', kills: number, progress: (line: string) => void): Promise<KillReport> {
  const folder = mkdtempSync(join(tmpdir(), 'bm-kill-'))
  const postgres: TestPostgres | null = kind === 'postgres' ? await startPostgres() : null
  const sqlite = postgres ? null : join(folder, 'store.db')
  const address = postgres ? postgres.address('kill') : null
  const open = (): Promise<Store> => (address ? openPostgresStore(address) : openSqliteStore({ path: sqlite as string }))

  const now = Math.floor(Date.now() / 1000)
  const root = testAuthority('Maker root')
  const ca = testAuthority('Operational CA')
  const base64 = (der: Uint8Array) => Buffer.from(der).toString('base64')
  let made = 0
  // A device each, so that a certificate more than there are requests is one too many.
  const makeRequest = () => {
    const number = made++
    const subject = nameOf('Meter', `kill-${number}`)
    const birth = root.issue({ profile: 'birth', subject, spki: testKey().spki, notBefore: now - 86_400, notAfter: neverExpires })
    return { number, chain: [base64(birth)], csr: base64(csrFor(testKey(), nameOf(`kill-${number}`))) }
  }

  const answers = new Map<number, Set<string>>()
  const signed = new Set<string>()
  const planFile = join(folder, 'plan.json')

  async function serve(requests: KillPlan['requests'], dieAt: string, call: number, killAfter: number): Promise<Run> {
    const plan: KillPlan = {
      ...{ sqlite, postgres: address, fleet, issuer: ca.pem, issuerKey: ca.privateKeyPem, anchor: base64(root.certificate) },
      ...{ requests, dieAt, call },
    }
    writeFileSync(planFile, JSON.stringify(plan))
    const child = spawn(process.execPath, ['--conditions=source', '--disable-warning=ExperimentalWarning', program, planFile], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let rest = ''
    let errors = ''
    let heard = 0
    child.stderr.setEncoding('utf8').on('data', text => {
      errors += text
    })
    child.stdout.setEncoding('latin1').on('data', text => {
      const lines = (rest + text).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) {
        const [what, first, certificate] = line.split(' ')
        if (what === 'S') signed.add(first)
        else answers.set(Number(first), (answers.get(Number(first)) ?? new Set()).add(certificate))
        // A little later than what was heard, so that the kill falls anywhere between two of its steps.
        if (++heard === killAfter) setTimeout(() => child.kill('SIGKILL'), Math.random() * 4)
      }
    })
    return new Promise(done => child.on('close', (_, signal) => done({ signal, errors })))
  }

  const died = new Set<string>()
  let killed = 0
  let databaseKills = 0
  let open_: KillPlan['requests'] = []
  try {
    for (let i = 0; killed < kills && i < kills * 3; i++) {
      const requests = [...open_]
      while (requests.length < perRun) requests.push(makeRequest())
      const point = i % 2 === 0 ? failpoints[(i / 2) % failpoints.length] : ''
      const { signal, errors } = await serve(requests, point, randomInt(1, 30), point === '' ? randomInt(1, 80) : -1)
      if (signal === 'SIGKILL') {
        killed++
        if (point) died.add(point)
      } else if (errors) throw new Error(`a server failed: ${errors.slice(0, 500)}`)
      open_ = requests.filter(({ number }) => !answers.has(number))
      if (postgres && killed % 10 === 5) {
        await postgres.crash()
        await postgres.start()
        databaseKills++
      }
      if (killed % 20 === 0) progress(`${kind}: ${killed} kills, ${answers.size} answers`)
    }
    // What is left is asked until it is answered.
    await serve(open_, '', 0, -1)
    const store = await open()
    await resolveOpenIntents({ store, clock: { now: () => Date.now() / 1000 } })
    const broken = await store.check()
    if ((await store.openIntents(1)).length > 0) broken.push('an intent stays open')
    const unanswered = Array.from({ length: made }, (_, n) => n).filter(n => !answers.has(n)).length
    if (unanswered > 0) broken.push(`${unanswered} requests have no certificate`)
    const recorded = await recordedSerials(store)
    let lost = 0
    let duplicated = 0
    const indices = new Set<number>()
    const serials = new Set<string>()
    for (const certificates of answers.values()) {
      if (certificates.size > 1) duplicated++
      for (const hex of certificates) {
        const certificate = parseCertificate(new Uint8Array(Buffer.from(hex, 'hex')))
        const found = await store.certificate(issuerKeyId(ca.certificate), certificate.serial)
        if (found === null || hexOf(found.der) !== hex) lost++
        else if (indices.has(found.idx) || serials.has(hexOf(certificate.serial))) duplicated++
        if (found) indices.add(found.idx)
        serials.add(hexOf(certificate.serial))
      }
    }
    // One issued certificate a request, whether or not its answer was heard: as many as there are distinct keys.
    if (recorded.issued !== answers.size) duplicated += Math.abs(recorded.issued - answers.size)
    const unrecorded = [...signed].filter(serial => !recorded.serials.has(serial)).length
    await store.close()
    return {
      ...{ kills: killed, databaseKills, acknowledged: answers.size, signed: signed.size, lost, duplicated, unrecorded },
      ...{ failpointsCovered: died.size / failpoints.length, broken },
    }
  } finally {
    await postgres?.remove()
    rmSync(folder, { recursive: true, force: true })
  }
}

const issuerKeyId = (der: Uint8Array): Uint8Array => {
  const { subjectKeyId } = parseCertificate(der)
  if (subjectKeyId === null) throw new Error('the test CA has no key id')
  return subjectKeyId
}

/** Serials that the audit record names, and how many certificates it says were issued. */
async function recordedSerials(store: Store): Promise<{ serials: Set<string>; issued: number }> {
  const serials = new Set<string>()
  let issued = 0
  for (let after = 0; ; ) {
    const page = await store.audit(after, 1000)
    for (const { kind, detail } of page) {
      if (kind === 'certificate_issued') issued++
      const serial = /serial ([0-9a-f]+)/.exec(detail)
      if (serial) serials.add(serial[1])
    }
    if (page.length < 1000) return { serials, issued }
    after = page[page.length - 1].n
  }
}
