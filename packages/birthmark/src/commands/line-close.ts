// `birthmark line confirm | scrap | close | collect`: what became of each unit, the day's end, and several stations together.

import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { anchorOf, decodePem, parseCertificate } from '@birthmark/device-sdk/core'
import { type CollectedJournal, collectJournals, writeDurably, yieldHtml, yieldReport } from '@birthmark/factory-line'
import type { Command } from 'commander'
import { CommandError } from '../command-error.ts'
import { openLine, systemClock } from '../line-folder.ts'
import { printable, type Terminal } from '../terminal.ts'
import { leaf, readInput } from './common.ts'
import { lineFolder } from './line-option.ts'

export function defineClose(command: Command, terminal: Terminal): void {
  leaf(
    command
      .command('confirm')
      .argument('<serial>')
      .description('read-back: compare the certificate that a device holds with the one it was issued'),
    [['birthmark line confirm SN-0001 --held readback.der', 'then the unit is good']],
  )
    .option('--dir <folder>', 'folder of the line', lineFolder)
    .requiredOption('--held <file>', 'what was read from the device, PEM or DER')
    .action(async (serial: string, options: { dir: string; held: string }) => {
      const line = openLine(options.dir)
      try {
        await line.station.confirm(serial, { certificate: certificateOf(readInput(options.held, 65_536)), proof: null })
      } finally {
        line.station.close()
      }
      terminal.done(`${serial} is good`)
      terminal.result({ serial, state: 'good' })
    })

  leaf(command.command('scrap').argument('<serials...>').description('take units out for good'), [
    ['birthmark line scrap SN-0007 --step test --cause "no radio"', 'it is in no manifest afterwards'],
  ])
    .option('--dir <folder>', 'folder of the line', lineFolder)
    .requiredOption('--step <name>', 'where it failed')
    .requiredOption('--cause <name>', 'why')
    .action(async (serials: string[], options: { dir: string; step: string; cause: string }) => {
      const line = openLine(options.dir)
      try {
        for (const serial of serials) await line.station.scrap(serial, options.step, options.cause)
      } finally {
        line.station.close()
      }
      terminal.done(`${serials.length} scrapped: ${options.step}, ${options.cause}`)
      terminal.result({ scrapped: serials, step: options.step, cause: options.cause })
    })

  leaf(command.command('close').description('the day’s end: every unit good, scrapped, or named as unaccounted (exit 3)'), [
    ['birthmark line close --out reports', 'yield.html and yield.json'],
  ])
    .option('--dir <folder>', 'folder of the line', lineFolder)
    .option('--out <folder>', 'where the report goes', '.')
    .action(async (options: { dir: string; out: string }) => {
      const line = openLine(options.dir)
      const { signer } = line
      try {
        const { reserved, issued } = line.station.tally()
        await line.station.note('close', `${reserved + issued} unaccounted`)
      } finally {
        line.station.close()
      }
      const report = yieldReport(join(options.dir, 'journal.jsonl'), signer.key.spki, signer.key.algorithm)
      mkdirSync(options.out, { recursive: true })
      writeDurably(join(options.out, 'yield.json'), `${JSON.stringify(report, null, 2)}\n`, 0o644)
      writeDurably(join(options.out, 'yield.html'), yieldHtml(report), 0o644)
      terminal.done(
        `${report.reserved} begun = ${report.good} good + ${report.scrapped} scrapped + ${report.unaccounted} unaccounted`,
        join(options.out, 'yield.html'),
      )
      for (const { step, cause, count } of report.failures.slice(0, 5))
        terminal.line(`  ${count} × ${printable(step)}: ${printable(cause)}`)
      if (report.hostKeys) terminal.line(`  ${report.hostKeys} keys were made by the line and not in a device`)
      terminal.result(report)
      if (report.unaccounted > 0)
        throw new CommandError(
          'line_unaccounted',
          `${report.unaccounted} units are neither good nor scrapped: ${report.unaccountedSerials.slice(0, 5).join(', ')}`,
          'read each back or scrap it: birthmark line confirm, birthmark line scrap',
          'refused',
        )
    })

  leaf(
    command
      .command('collect')
      .argument('<journals...>', 'copies of the stations’ journal.jsonl')
      .description('verify the journals of several stations and hold them against one another and against the last time'),
    [['birthmark line collect a3/journal.jsonl a4/journal.jsonl --root factory/root.pem', 'a serial on two stations: exit 3']],
  )
    .requiredOption('--root <file>', 'the manufacturer’s root')
    .option('--state <file>', 'what was seen before; made when it is not there', 'collected.json')
    .action((files: string[], options: { root: string; state: string }) => {
      const root = certificateOf(readInput(options.root, 65_536))
      const before = existsSync(options.state) ? (JSON.parse(readFileSync(options.state, 'utf8')) as CollectedJournal[]) : []
      const found = collectJournals(files, { anchors: [anchorOf(parseCertificate(root))], now: systemClock.now() }, before)
      writeDurably(options.state, `${JSON.stringify(found.journals, null, 2)}\n`, 0o644)
      for (const { station, sku, lines } of found.journals)
        terminal.line(`  station ${station}${sku ? ` (${sku})` : ''}: ${lines} lines`)
      terminal.done(`${found.reserved} begun = ${found.good} good + ${found.scrapped} scrapped + ${found.unaccounted} unaccounted`)
      terminal.result(found)
      if (found.conflictCount > 0)
        throw new CommandError(
          'serial_taken',
          `${found.conflictCount} serials or keys are on two stations, such as ${found.conflicts[0].serial}`,
          'set these units aside and scrap one of each two: birthmark line scrap',
          'refused',
        )
    })
}

function certificateOf(content: Buffer): Uint8Array {
  const text = content.toString('latin1')
  return text.includes('-----BEGIN CERTIFICATE-----') ? decodePem(text, 'CERTIFICATE', 8)[0] : content
}
