// A station that works through units and says on stdout what it has released, until a failpoint kills it. Started by line-kill-loop.ts.

import { createPrivateKey } from 'node:crypto'
import { readFileSync, writeSync } from 'node:fs'
import { openStation, sha256Hex, softwareKey, UNASSIGNED_HARDWARE } from '../../packages/factory-line/src/index.ts'

export interface LineKillPlan {
  folder: string
  /** DER in base64; root last. */
  issuing: { certificate: string; root: string; key: string }
  signer: { certificate: string; key: string }
  units: { serial: string; csr: string; scrap: boolean }[]
  /** null: work to the end. */
  kill: { failpoint: string; hit: number } | null
}

const plan = JSON.parse(readFileSync(process.argv[2], 'utf8')) as LineKillPlan
const der = (text: string): Uint8Array => Buffer.from(text, 'base64')
let hits = 0
const issuing = {
  certificate: der(plan.issuing.certificate),
  chain: [der(plan.issuing.root)],
  key: softwareKey(createPrivateKey(plan.issuing.key)),
}
const station = openStation({
  folder: plan.folder,
  issuing,
  manifestSigner: {
    certificate: der(plan.signer.certificate),
    chain: [issuing.certificate, ...issuing.chain],
    key: softwareKey(createPrivateKey(plan.signer.key)),
  },
  profile: { organization: 'Example', commonName: true, hardwareType: UNASSIGNED_HARDWARE },
  clock: { now: () => Math.floor(Date.now() / 1000) },
  failpoint(name) {
    if (plan.kill && name === plan.kill.failpoint && ++hits >= plan.kill.hit) process.kill(process.pid, 'SIGKILL')
  },
})
const say = (what: object): void => void writeSync(1, `${JSON.stringify(what)}\n`)

const work = plan.units.values()
const worker = async (): Promise<void> => {
  for (const { serial, csr, scrap } of work) {
    // Scrapped by a run that died before it could say so.
    if (station.unit(serial)?.state === 'scrapped') {
      say({ serial, settled: true })
      continue
    }
    const { certificate } = await station.issue({ serial, csr: der(csr) })
    say({ serial, certificate: sha256Hex(certificate) })
    if (scrap) await station.scrap(serial, 'test', 'solder bridge')
    else await station.confirm(serial, { certificate, proof: null })
    say({ serial, settled: true })
  }
}
await Promise.all([1, 2, 3, 4].map(worker))
station.close()
