// Numbers that two notices have: a machine that was put back with its store signed on under numbers that it had given out before. How far it went
// in its other life nobody knows, so a restore that hears of it goes on far above; noted here, so that it does so once.
//
//   doubled-notices   hex of SHA-256 over what each was signed of, a line each

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { equalBytes, hexOf } from '@birthmark/device-sdk/core'
import type { Store } from '@birthmark/est-server'
import { writeDurably } from '@birthmark/factory-line'
import { noticeSha256 } from '@birthmark/fleet-revocation'
import type { VerifiedNotice } from './restored-notices.ts'

/** In hex, of those whose number is another's as well: of one that is known, or of the store's, which is then among them. `notices`: oldest first, each once. */
export async function doubledNotices(store: Store, fleet: string, notices: VerifiedNotice[]): Promise<string[]> {
  const doubled: string[] = []
  for (const [i, { notice, body }] of notices.entries()) {
    const sha256 = noticeSha256(notice)
    const held = await store.notice(fleet, body.seq)
    const isHeldOther = held !== null && !equalBytes(held.sha256, sha256)
    const beside = [notices[i - 1], notices[i + 1]]
    if (isHeldOther || beside.some(other => other?.body.seq === body.seq)) doubled.push(hexOf(sha256))
    // It may turn up elsewhere later, and is none to go beyond anew.
    if (isHeldOther) doubled.push(hexOf(held.sha256))
  }
  return doubled
}

const file = (state: string) => join(state, 'doubled-notices')

/** Those beyond which the numbers of this machine lie. */
export function readDoubled(state: string): Set<string> {
  return new Set(existsSync(file(state)) ? readFileSync(file(state), 'latin1').split('\n').slice(0, -1) : [])
}

/** To be called once the numbers lie beyond them, durably, and the mark says so. */
export function noteDoubled(state: string, doubled: string[]): void {
  const lines = [...new Set([...readDoubled(state), ...doubled])].map(sha256 => `${sha256}\n`)
  writeDurably(file(state), lines.join(''), 0o600)
}
