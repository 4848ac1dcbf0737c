// `campaign`: a quarter of a million devices of a million, picked by group and label, planned and revoked one by one (the selection is no group), in the
// process that serves. Its thread's stalls and its memory are watched all along, and so is how long a record of anybody else's has to wait.

import { fork } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openSqliteStore } from '@birthmark/est-server'
import { fillFleet } from './campaign-fleet.ts'

export interface CampaignMeasured {
  devices: number
  planMs: number
  /** From the end of the window to `committed`: revoked, denied, in the outbox. */
  commitMs: number
  quarantineMs: number
  /** Between two turns of the serving thread's event loop, by the clock; and how much of it that thread worked itself. */
  maxStallMs: number
  maxWorkMs: number
  maxRecordMs: number
  rssMb: number
  notices: number
  noticeBytes: number
}

const limits = { planMs: 5000, commitMs: 10_000, maxStallMs: 200, rssMb: 512 }
const devices = Number(process.env.BENCH_CAMPAIGN_DEVICES ?? 1_000_000)

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const folder = mkdtempSync(join(tmpdir(), 'bm-campaign-'))
  try {
    const path = join(folder, 'store.db')
    await (await openSqliteStore({ path })).close()
    fillFleet(path, devices)
    const measured = await new Promise<CampaignMeasured>((resolve, reject) => {
      const child = fork(join(import.meta.dirname, 'campaign-server.ts'), [folder], {
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      })
      child.once('message', message => resolve(message as CampaignMeasured))
      child.once('exit', code => reject(new Error(`the serving process ended with ${code}`)))
    })
    if (Math.abs(measured.devices - devices / 4) > devices / 200) throw new Error(`${measured.devices} devices were selected`)
    const { planMs, commitMs, quarantineMs, maxStallMs, maxWorkMs, maxRecordMs, rssMb, notices, noticeBytes } = measured
    const table = [
      `${devices} devices, ${measured.devices} selected: planned in ${planMs.toFixed(0)} ms (< ${limits.planMs}), denied in ${quarantineMs.toFixed(0)} ms,`,
      `revoked in ${commitMs.toFixed(0)} ms (< ${limits.commitMs}) by ${notices} notices of ${noticeBytes} bytes`,
      `the serving thread stood still for ${maxStallMs.toFixed(0)} ms at most (≤ ${limits.maxStallMs}; ${maxWorkMs.toFixed(0)} ms of its own work), a record of others waited ${maxRecordMs.toFixed(0)} ms at most`,
      `${rssMb.toFixed(0)} MB at most (≤ ${limits.rssMb})`,
    ].join('\n')
    return { table, figures: { planMs, commitMs, quarantineMs, maxStallMs, maxWorkMs, maxRecordMs, rssMb } }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
