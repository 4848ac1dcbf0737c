// `birthmark audit`: the record of every decision as a file that is signed here and judged anywhere, with one public key and no server.

import { createPublicKey, sign } from 'node:crypto'
import { closeSync, createReadStream, fsyncSync, openSync, writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { type AuditRecord, auditKeyId, auditLines, chainStart, type Store, verifyAuditLines } from '@birthmark/est-server'
import { systemClock } from '@birthmark/fleet-revocation'
import type { Command } from 'commander'
import { CommandError, usageError } from '../command-error.ts'
import { readConfiguration } from '../configuration.ts'
import { withStore } from '../open-store.ts'
import type { Terminal } from '../terminal.ts'
import { leaf, quoted, readInput } from './common.ts'

export function define(command: Command, terminal: Terminal): void {
  command.description('The audit record: one entry a decision, each chained to the one before.')
  leaf(
    command.command('export').description('write records as JSON lines, signed with the notice key; the server may run meanwhile'),
    [
      ['birthmark audit export --config birthmark.yaml --out audit.jsonl', 'all of it'],
      ['birthmark audit export --config birthmark.yaml --after 5000 --out audit-2.jsonl', 'what came since the last file'],
    ],
    'docs/stores.md describes the format.',
  )
    .requiredOption('--config <file>', 'configuration of the server')
    .requiredOption('--out <file>', 'file to write; it must not exist')
    .option('--after <n>', 'number of the last record that is left out', count, 0)
    .action(async (options: { config: string; out: string; after: number }) => {
      const settings = readConfiguration(options.config)
      const [key] = settings.notices.keys
      const spki = createPublicKey(key).export({ type: 'spki', format: 'der' })
      const signer = {
        ...{ spki, algorithm: 'ecdsa-sha256' },
        sign: (message: Uint8Array) => sign('sha256', message, key),
      }
      const last = await withStore(settings, async store => {
        const previous = options.after === 0 ? chainStart : (await store.audit(options.after - 1, 1))[0]?.hash
        if (!previous)
          throw usageError(`there is no record ${options.after}`, 'give the number of a record that was exported before')
        const fd = create(options.out)
        try {
          let n = options.after
          const noted = async function* () {
            for await (const record of recordsOf(store, options.after)) {
              n = record.n
              yield record
            }
          }
          for await (const line of auditLines(noted(), { after: options.after, previous }, signer, Math.floor(systemClock.now())))
            writeSync(fd, line)
          fsyncSync(fd)
          return n
        } finally {
          closeSync(fd)
        }
      })
      terminal.done(`${last - options.after} records, up to number ${last}`, options.out)
      terminal.commands('Anybody can check it with the public key:', [
        `openssl pkey -in NOTICE-KEY.pem -pubout -out notice-key.pub.pem`,
        `birthmark audit verify ${quoted(options.out)} --key notice-key.pub.pem`,
      ])
      terminal.result({ file: options.out, after: options.after, last, records: last - options.after, keyId: auditKeyId(spki) })
    })

  leaf(
    command
      .command('verify')
      .argument('<file>', 'file of birthmark audit export')
      .description('check a file offline: each record, their order and number, the signature. Exit 3 when something is wrong'),
    [['birthmark audit verify audit.jsonl --key notice-key.pub.pem', 'needs no server and no configuration']],
  )
    .requiredOption('--key <file>', 'public key that it should be signed with, PEM')
    .action(async (file: string, options: { key: string }) => {
      const spki = publicKey(options.key)
      readable(file)
      const lines = createInterface({ input: createReadStream(file, 'utf8'), crlfDelay: Number.POSITIVE_INFINITY })
      const report = await verifyAuditLines(lines, spki)
      if ('code' in report)
        throw new CommandError(
          report.code,
          `line ${report.line}: ${report.detail}`,
          report.code === 'audit_key'
            ? 'give the public key of the server that wrote it'
            : 'do not rely on this file; export it again',
          'refused',
        )
      const head = Buffer.from(report.head).toString('hex')
      const from = report.after === 0 ? 'from the first' : `behind number ${report.after}`
      terminal.done(`${report.records} records ${from}, up to number ${report.last}, whole and signed`)
      terminal.line(`  made ${new Date(report.made * 1000).toISOString()}, chain ends in ${head}`)
      terminal.result({ ...report, previous: Buffer.from(report.previous).toString('hex'), head })
    })
}

function count(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw usageError(`--after is a record's number, not '${text}'`, 'give such a number')
  return Number(text)
}

async function* recordsOf(store: Store, from: number): AsyncGenerator<AuditRecord> {
  for (let after = from; ; ) {
    const page = await store.audit(after, 1000)
    yield* page
    if (page.length < 1000) return
    after = page[page.length - 1].n
  }
}

function create(file: string): number {
  try {
    return openSync(file, 'wx', 0o600)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    throw usageError(`${file} exists`, 'choose another name; a record is not overwritten')
  }
}

function readable(file: string): void {
  try {
    closeSync(openSync(file, 'r'))
  } catch (error) {
    throw usageError(`cannot read ${file} (${(error as NodeJS.ErrnoException).code})`, 'check the path and its permissions')
  }
}

function publicKey(file: string): Uint8Array {
  const pem = readInput(file, 65_536)
  try {
    return createPublicKey(pem).export({ type: 'spki', format: 'der' })
  } catch {
    throw usageError(`${file} holds no public key`, 'openssl pkey -in NOTICE-KEY.pem -pubout -out notice-key.pub.pem')
  }
}
