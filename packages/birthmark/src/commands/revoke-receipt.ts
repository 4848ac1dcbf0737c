// `birthmark revoke receipt`: the signed record of a campaign, and its check, which needs no server.

import { createPublicKey } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { decodePem } from '@birthmark/device-sdk/core'
import { type Person, type Receipt, receiptProblems } from '@birthmark/est-server'
import { writeDurably } from '@birthmark/factory-line'
import { type NoticeSigner, nodeVerify, noticeBytesMax, noticeKeyId, noticeSha256, openSigned } from '@birthmark/fleet-revocation'
import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import { CommandError, usageError } from '../command-error.ts'
import { printable, type Terminal } from '../terminal.ts'
import { collect, counted, leaf, quoted, readInput, stateOption } from './common.ts'
import { campaignNamed } from './revoke-campaign.ts'
import { consumersSaid, planLines, uncertified } from './revoke-lines.ts'

/** Notices of 4 MB in base64, and the rest. */
const receiptBytesMax = 8 * 1024 * 1024

interface ReceiptOptions {
  dir: string
  out?: string
  verify?: boolean
  noticeKey: string[]
  person: string[]
}

export function defineReceipt(command: Command, terminal: Terminal): void {
  stateOption(
    leaf(
      command
        .command('receipt')
        .argument('<campaign>', 'the id of a campaign, or the file of its plan; with --verify the file of a receipt')
        .description(
          'Write the signed record of a campaign that was carried out, or check one: without the server, with its public notice key.',
        ),
      [
        ['birthmark revoke receipt 3f0c9a6d1b2e4f58 --out receipt.json', 'the record as it is now'],
        ['birthmark revoke receipt receipt.json --verify --notice-key notice-key.pem', 'is it true?'],
        [
          'birthmark revoke receipt receipt.json --verify --notice-key notice-key.pem --person alice=alice.pub --person bob=bob.pub',
          'and by whom?',
        ],
      ],
      'The notice key is in the server’s state folder: device/notice-key.pem.',
    ),
  )
    .option('--out <file>', 'write it here (default: stdout)')
    .option('--verify', 'check a receipt')
    .option('--notice-key <file>', 'public notice key (PEM), repeatable', collect, [])
    .option('--person <name=file>', 'public key (PEM) of somebody who may agree, repeatable', collect, [])
    .action(async (named: string, options: ReceiptOptions) => {
      if (options.verify) return verify(named, options, terminal)
      const receipt = await administrationOf(options.dir).campaignReceipt({ id: campaignOf(named) })
      const text = `${JSON.stringify(receipt, null, 2)}\n`
      if (options.out) {
        writeDurably(options.out, text, 0o644)
        terminal.done('receipt written', options.out)
        terminal.result({ out: options.out })
      } else if (terminal.json) terminal.result(receipt)
      else terminal.raw(text)
    })
}

/** A receipt that was to be checked and not asked for is no plan: then the option is missing. */
function campaignOf(named: string): string {
  try {
    return campaignNamed(named)
  } catch (error) {
    if (error instanceof CommandError) throw error
    throw usageError(
      `${named} is no plan of a campaign`,
      `name a campaign, or check a receipt: birthmark revoke receipt ${quoted(named)} --verify`,
    )
  }
}

function verify(file: string, options: ReceiptOptions, terminal: Terminal): void {
  const own = join(options.dir, 'device', 'notice-key.pem')
  const files = options.noticeKey.length > 0 ? options.noticeKey : existsSync(own) ? [own] : []
  if (files.length === 0) throw usageError('a receipt is checked by a notice key', 'give --notice-key device/notice-key.pem')
  const keys = files.flatMap(name => decodePem(readInput(name, 65_536).toString('utf8'), 'PUBLIC KEY', 16))
  const people = options.person.map(personOf)
  let receipt: Receipt
  try {
    receipt = JSON.parse(readInput(file, receiptBytesMax).toString('utf8')) as Receipt
  } catch (error) {
    if (error instanceof CommandError) throw error
    throw usageError(`${file} is no JSON`, 'name the file of a receipt')
  }
  const problems = receiptProblems(receipt, keys, people.length > 0 ? people : null)
  if (problems.length === 0) problems.push(...noticeProblems(receipt, keys))
  for (const problem of problems) terminal.bad('not proven', printable(problem), 'ask whoever gave you the receipt')
  if (problems.length > 0)
    throw new CommandError('receipt_not_proven', `${file} does not prove what it says`, 'trust it in nothing', 'refused')
  const { body } = receipt
  for (const line of planLines(body.plan)) terminal.line(line)
  const agreed = body.words.map(word => `${word.what} ${printable(word.by)}${word.key === null ? ' (unsigned)' : ''}`).join(', ')
  terminal.done(`campaign ${body.id} was carried out ${new Date(body.at.committed * 1000).toISOString()}`, agreed)
  const last = body.notices.at(-1)
  terminal.done(
    `${counted(body.revoked.devices, 'device')}, ${counted(body.revoked.certificates, 'certificate')}`,
    last ? `notice ${last.seq}` : '',
  )
  const { withoutCertificate } = body.revoked
  if (withoutCertificate > 0) terminal.done(uncertified(withoutCertificate), 'refused at enrollment')
  terminal.done(`${counted(body.progress.told, 'device')} told`, `${body.progress.blockedNotAcked} blocked and not acked`)
  const consumers = consumersSaid(body.standardConsumers, body.plan.fleet)
  if (consumers.done) terminal.done('CRL and OCSP', consumers.what)
  else if (consumers.what !== '') terminal.line(`· CRL and OCSP — ${consumers.what}`)
  terminal.result({ verified: true, id: body.id, words: body.words, revoked: body.revoked })
}

/** Every notice that is in it whole: signed by the key, and the one that its hash names. */
function noticeProblems({ body }: Receipt, keys: Uint8Array[]): string[] {
  const signers = keys.map((spki): NoticeSigner => ({ keyId: noticeKeyId(spki), algorithm: -7, spki }))
  const verify = nodeVerify()
  return body.notices.flatMap(({ seq, sha256, notice }) => {
    if (notice === '') return []
    const bytes = new Uint8Array(Buffer.from(notice, 'base64'))
    const problems: string[] = []
    openSigned(bytes, noticeBytesMax, 'notice', signers, verify, problem => {
      if (problem !== null) problems.push(`notice ${seq} is not signed by the notice key`)
      else if (Buffer.from(noticeSha256(bytes)).toString('hex') !== sha256)
        problems.push(`notice ${seq} is not the one that its hash names`)
    })
    return problems
  })
}

function personOf(text: string): Person {
  const [name, file] = [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)]
  if (name === '' || text.indexOf('=') < 0) throw usageError(`'${text}' is not name=file`, '--person alice=alice.pub')
  try {
    return { name, spki: new Uint8Array(createPublicKey(readInput(file, 65_536)).export({ type: 'spki', format: 'der' })) }
  } catch (error) {
    if (error instanceof CommandError) throw error
    throw usageError(`${file} is no public key`, 'openssl pkey -in alice.key -pubout -out alice.pub')
  }
}
