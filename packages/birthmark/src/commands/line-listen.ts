// `birthmark line tester | listen`: several testers, one station.

import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { MANDATE_NAME, openOrder } from '@birthmark/factory-line'
import type { Command } from 'commander'
import { usageError } from '../command-error.ts'
import { openLineEndpoint } from '../line-endpoint.ts'
import { openLine } from '../line-folder.ts'
import { ensureServerCertificate, ensureServiceCertificate, ensureTwoTier } from '../server-certificate.ts'
import type { Terminal } from '../terminal.ts'
import { collect, leaf, quoted, wholeNumber } from './common.ts'
import { lineFolder } from './line-option.ts'
import { untilStopped } from './until-stopped.ts'

export function defineListen(command: Command, terminal: Terminal): void {
  leaf(command.command('tester').argument('<name>').description('make a certificate for a tester that uses line listen'), [
    ['birthmark line tester T1', 'factory/tls/T1.pem and T1.key.pem'],
  ])
    .option('--dir <folder>', 'folder of the line', lineFolder)
    .action(async (name: string, options: { dir: string }) => {
      if (!MANDATE_NAME.test(name)) throw usageError('a tester is 1 to 32 of A-Z a-z 0-9 . _ -', 'birthmark line tester T1')
      const folder = join(options.dir, 'tls')
      const { issuing } = await ensureTwoTier(folder, 'Line', 'testers', randomBytes)
      await ensureServiceCertificate(folder, name, issuing, randomBytes)
      terminal.done(`certificate of tester ${name}`, join(folder, `${name}.pem`))
      terminal.result({ certificate: join(folder, `${name}.pem`), key: join(folder, `${name}.key.pem`) })
    })

  leaf(command.command('listen').description('issue to testers over HTTPS with mutual TLS, until stopped'), [
    ['birthmark line listen --csv units.csv --host 10.0.0.5 --port 8443', 'units of an order, at this address'],
  ])
    .option('--dir <folder>', 'folder of the line', lineFolder)
    .option('--csv <file>', 'the order; without it any serial is taken')
    .option('--group <name=value>', 'group that every unit is in, such as lot=42; repeat', collect, [])
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--port <number>', 'port', wholeNumber('--port', 0, 65_535), 8443)
    .action(async (options: { dir: string; csv?: string; group: string[]; host: string; port: number }) => {
      const folder = join(options.dir, 'tls')
      const { issuing } = await ensureTwoTier(folder, 'Line', 'testers', randomBytes)
      await ensureServerCertificate(folder, [options.host], issuing, randomBytes)
      const read = (name: string): Buffer => readFileSync(join(folder, name))
      const order = options.csv ? openOrder(options.csv) : null
      const line = openLine(options.dir)
      try {
        const counts: Record<string, number> = {}
        await untilStopped(async () => {
          const endpoint = await openLineEndpoint({
            host: options.host,
            port: options.port,
            tls: { cert: read('server.pem'), key: read('server.key.pem'), ca: read('root.pem') },
            station: line.station,
            order,
            groups: options.group,
            seen(tester, serial, outcome) {
              counts[outcome] = (counts[outcome] ?? 0) + 1
              terminal.progress(
                `${Object.entries(counts)
                  .map(([name, n]) => `${name} ${n}`)
                  .join(', ')}  last ${serial} by ${tester}`,
              )
            },
          })
          terminal.done(`station ${line.station.name} listens`, `https://${options.host}:${endpoint.port}`)
          terminal.commands('At a tester:', [
            `curl --cacert root.pem --cert T1.pem --key T1.key.pem --data-binary @SN-1.csr ${quoted(`https://${options.host}:${endpoint.port}/units/SN-1`)}`,
          ])
          terminal.result({ listening: true, host: options.host, port: endpoint.port })
          return () => endpoint.close()
        })
        terminal.result({ counts })
      } finally {
        line.station.close()
        order?.close()
      }
    })
}
