// CSR → certificate without I/O: everything of an enrollment that is not network or disk, against the cryptography that no server can leave
// out (A_raw: import the key, verify the CSR, sign the certificate). The kernel also proves its own signature before release, which costs one
// more verification; parsing, policy, decision, DER and lint are the rest. Beside them the same made with pkijs. All run in turns in one process:
// only their ratios count.

import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign, verify } from 'node:crypto'
import { type Bytes, COMMON_NAME, csrAssemble, csrInfo, csrReader, encodeName, parseCsr } from '@birthmark/device-sdk/core'
import { testAuthority } from '@birthmark/device-sdk/testing'
import {
  createAuthority,
  decide,
  enrollmentProfile,
  type IssuedCertificate,
  prove,
  serialSource,
  softwareIssuer,
} from '@birthmark/est-server'
import { pkijsWork } from './enroll-pkijs.ts'
import { answering, worker } from './worker.ts'

// Every request has its own key and name: replaying one misleads every cache between here and the silicon.
const requests = 1000
const repeats = 41
const perRepeat = 100
/** By then V8 has compiled the small functions too: after 2,000 it still compiled during the measurement, for 3 % of it. */
const warmUp = 12_000

interface Request {
  id: string
  csr: Bytes
  info: Bytes
  signature: Bytes
  spki: Bytes
}

function makeRequests(): Request[] {
  return Array.from({ length: requests }, (_, i) => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const id = `device-${i}`
    const spki = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
    const info = csrInfo(encodeName([{ oid: COMMON_NAME, value: id }]), spki, [])
    const csr = csrAssemble(info, 'ecdsa-sha256', new Uint8Array(sign('sha256', info, privateKey)))
    const parsed = parseCsr(csr)
    return { id, csr, info: parsed.info, signature: parsed.signature, spki }
  })
}

/**
 * The three operations by themselves: DER to KeyObject (without stack traces, which would double it), verify, sign. The kernel hands the key over
 * as PEM text, which node:crypto takes without detours; part of what the kernel spends elsewhere is won back there.
 */
function rawWork(issuerKey: KeyObject, tbs: Bytes): (request: Request) => void {
  return ({ spki, info, signature }) => {
    const limit = Error.stackTraceLimit
    Error.stackTraceLimit = 0
    const key = createPublicKey({ key: spki as Buffer, format: 'der', type: 'spki' })
    Error.stackTraceLimit = limit
    if (!verify('sha256', info, key, signature)) throw new Error('a signature does not verify')
    sign('sha256', tbs, issuerKey)
  }
}

/** The path of enrollment.ts with the store's part taken out: the facts about a known device that never enrolled. */
function kernelWork(): { issuerKey: KeyObject; work: (request: Request) => Promise<IssuedCertificate> } {
  const root = testAuthority('Bench manufacturer')
  const ca = testAuthority('Bench operational CA')
  const issuer = softwareIssuer({ certificate: ca.certificate, privateKeyPem: ca.privateKeyPem })
  const authority = createAuthority(issuer)
  const profile = enrollmentProfile({ fleet: 'bench', birthAnchors: [root.certificate], lifetimeSeconds: 86_400 })
  const clock = { now: () => Date.now() / 1000 }
  const channel = { resumed: false }
  const birthSpkiSha256 = new Uint8Array(randomBytes(32))
  const subject = encodeName([{ oid: COMMON_NAME, value: 'as born' }])
  const caKeys = [new Uint8Array(32), new Uint8Array(32)]
  const standing = {
    idxFloor: 0,
    supersedes: 0,
    supersedesSince: 0,
    suspectedAt: null,
    hold: null,
    revoked: false,
    version: 0,
    closedGids: [],
    gids: [3, 17],
  }
  const nextSerial = serialSource(clock, randomBytes)
  const readCsr = csrReader()
  let idx = 0
  const work = async ({ id, csr }: Request) => {
    const proven = prove(csr, profile.keys, channel, { spki: null, key: null }, false, readCsr)
    if ('code' in proven) throw new Error(proven.detail)
    const now = clock.now()
    const decision = decide({
      operation: 'enroll',
      profile,
      identity: { kind: 'birth', deviceId: id, spkiSha256: birthSpkiSha256, subject, notBefore: 0, notAfter: 2 ** 40 },
      csr: proven,
      contentSha256: proven.spkiSha256,
      device: { key: 1, id, fleet: 'bench', birthSpkiSha256, ...standing },
      ...{
        latest: null,
        same: null,
        keyHolder: null,
        birthKeyHolder: null,
        groups: [],
        approval: null,
        caKeys,
        status: 'good',
        now,
      },
    })
    if (decision.kind !== 'approved') throw new Error(JSON.stringify(decision))
    const { spkiSha256 } = proven
    const serial = nextSerial()
    const membership = { fleet: 'bench', idx: ++idx, gids: standing.gids }
    const notBefore = Math.floor(now) - 300
    const details = {
      deviceId: id,
      serial,
      notBefore,
      notAfter: notBefore + 86_700,
      spki: proven.csr.spki,
      spkiSha256,
      subject: null,
      alternativeNames: [],
      extendedKeyUsage: profile.extendedKeyUsage,
      membership,
    }
    return authority.verify(await authority.issue(authority.prepare(details)))
  }
  const { privateKey: issuerKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return { issuerKey, work }
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]

export interface KernelFigures {
  kernelOfRaw: number
  kernelOfPkijs: number
}

type KernelRun = { kind: 'run' }
type KernelRan = { kind: 'run'; figures: KernelFigures }

/** In a process of its own, run as a server is. */
export async function run(): Promise<KernelFigures> {
  const kernel = worker<KernelRun, KernelRan>('enroll-kernel.ts', 'server')
  try {
    return (await kernel.ask({ kind: 'run' })).figures
  } finally {
    kernel.kill()
  }
}

async function measure(): Promise<KernelFigures> {
  const all = makeRequests()
  const { issuerKey, work } = kernelWork()
  const raw = rawWork(issuerKey, (await work(all[0])).der)
  let next = 0
  const take = () => all[next++ % requests]
  for (let i = 0; i < warmUp; i++) {
    raw(take())
    await work(take())
  }
  // CPU time of the whole process, garbage collection included: a neighbour on the same core takes wall time, not this.
  const microseconds = async (times: number, one: () => unknown) => {
    const start = process.cpuUsage()
    for (let i = 0; i < times; i++) await one()
    const { user, system } = process.cpuUsage(start)
    return (user + system) / times
  }
  const rawTimes: number[] = []
  const kernelTimes: number[] = []
  for (let r = 0; r < repeats; r++) {
    rawTimes.push(await microseconds(perRepeat, () => raw(take())))
    kernelTimes.push(await microseconds(perRepeat, () => work(take())))
  }
  // Of each pair that ran side by side, so that a neighbour's noise falls on both.
  const kernelOfRaw = median(rawTimes.map((time, r) => time / kernelTimes[r]))
  // Afterwards, so that neither of the two above collects its garbage; a few of ours untimed between for the same reason.
  const pkijs = await pkijsWork((await work(all[0])).der)
  for (let i = 0; i < 200; i++) await pkijs(take())
  const pkijsTimes: number[] = []
  const besideTimes: number[] = []
  for (let r = 0; r < repeats; r++) {
    pkijsTimes.push(await microseconds(perRepeat / 10, () => pkijs(take())))
    await microseconds(perRepeat / 2, () => work(take()))
    besideTimes.push(await microseconds(perRepeat, () => work(take())))
  }
  const kernelOfPkijs = median(pkijsTimes.map((time, r) => time / besideTimes[r]))
  return { kernelOfRaw, kernelOfPkijs }
}

if (import.meta.main) answering(async (_: KernelRun): Promise<KernelRan> => ({ kind: 'run', figures: await measure() }))
