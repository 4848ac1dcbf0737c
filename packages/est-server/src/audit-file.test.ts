import { generateKeyPairSync, sign } from 'node:crypto'
import { expect, it } from 'vitest'
import { auditLines, verifyAuditLines } from './audit-file.ts'
import { auditHash, chainStart } from './store/audit-chain.ts'
import type { AuditRecord } from './store/store.ts'

const pair = () => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return { privateKey, spki: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })) }
}
const key = pair()
const signer = { spki: key.spki, algorithm: 'ecdsa-sha256', sign: (message: Uint8Array) => sign('sha256', message, key.privateKey) }

function records(count: number): AuditRecord[] {
  let hash: Uint8Array = chainStart
  return Array.from({ length: count }, (_, i) => {
    const n = i + 1
    const entry = {
      at: 1_800_000_000 + i,
      kind: 'failure' as const,
      requestId: `r-${n}`,
      fleet: 'meters',
      device: '',
      by: 'x',
      code: '',
      detail: `${n}`,
    }
    hash = auditHash(hash, n, entry)
    return { ...entry, n, hash }
  })
}

async function* each<T>(items: T[]): AsyncGenerator<T> {
  yield* items
}

const all = records(6)
async function exported(from = 0): Promise<string[]> {
  const previous = from === 0 ? chainStart : all[from - 1].hash
  const lines: string[] = []
  for await (const line of auditLines(each(all.slice(from)), { after: from, previous }, signer, 1_800_000_100))
    lines.push(line.trimEnd())
  return lines
}
const judged = async (lines: string[], spki = key.spki) => verifyAuditLines(each(lines), spki)

it('a file verifies with nothing but the public key, from the first record or behind an earlier file', async () => {
  expect(await judged(await exported())).toMatchObject({ after: 0, records: 6, last: 6 })
  const rest = await judged(await exported(4))
  expect(rest).toMatchObject({ after: 4, records: 2, last: 6 })
  expect(Buffer.from((rest as { previous: Uint8Array }).previous)).toEqual(Buffer.from(all[3].hash))
  expect(await judged(await exported(6))).toMatchObject({ after: 6, records: 0, last: 6 })
})

it.each<[string, (lines: string[]) => string[], string]>([
  ['a changed detail', l => l.with(3, l[3].replace('"detail":"3"', '"detail":"9"')), 'audit_broken'],
  ['a changed detail under a new hash', l => l.with(6, l[6].replace(/"hash":"..../, '"hash":"0000')), 'audit_broken'],
  ['a record taken out', l => l.toSpliced(3, 1), 'audit_broken'],
  ['the last record taken out', l => l.toSpliced(6, 1), 'audit_broken'],
  ['two records in another order', l => l.with(2, l[3]).with(3, l[2]), 'audit_broken'],
  ['a record twice', l => l.toSpliced(3, 0, l[3]), 'audit_broken'],
  ['a file cut off before its foot', l => l.slice(0, -1), 'audit_malformed'],
  ['a line cut off', l => l.with(6, l[6].slice(0, 40)), 'audit_malformed'],
  ['something behind the foot', l => [...l, l[3]], 'audit_malformed'],
  ['another beginning', l => l.with(0, l[0].replace('"made":1800000100', '"made":1700000000')), 'audit_signature'],
  ['a signature of nothing', l => l.with(7, l[7].replace(/"signature":"[^"]*"/, '"signature":""')), 'audit_signature'],
  ['nothing at all', () => [], 'audit_malformed'],
])('refuses %s', async (_, change, code) => {
  expect(await judged(change(await exported()))).toMatchObject({ code })
})

it('refuses a file shortened together with its foot, whose signature covers the end of the chain', async () => {
  const lines = await exported()
  const short = [
    ...lines.slice(0, 4),
    lines[7]
      .replace('"records":6,"last":6', '"records":3,"last":3')
      .replace(/"head":"[0-9a-f]+"/, `"head":"${Buffer.from(all[2].hash).toString('hex')}"`),
  ]
  expect(await judged(short)).toMatchObject({ code: 'audit_signature' })
})

it('names another key as that', async () => {
  expect(await judged(await exported(), pair().spki)).toMatchObject({ code: 'audit_key' })
})
