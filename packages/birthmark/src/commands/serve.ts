// `birthmark serve`: the real thing, from one configuration that is judged whole before anything starts.

import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { systemClock } from '@birthmark/fleet-revocation'
import type { Command } from 'commander'
import { compose } from '../compose.ts'
import { readConfiguration } from '../configuration.ts'
import { fromDisk, recording } from '../configuration-files.ts'
import { logTo } from '../log.ts'
import { storeName } from '../open-store.ts'
import type { Terminal } from '../terminal.ts'
import { leaf, quoted, wholeNumber } from './common.ts'
import { untilStopped } from './until-stopped.ts'

export function define(command: Command, terminal: Terminal): void {
  leaf(
    command.description('Run the enrollment server, the revocation publisher and (unless one is named by URL) the MQTT broker.'),
    [
      ['birthmark serve --config /etc/birthmark/birthmark.yaml', 'log lines (JSON) go to stderr'],
      ['birthmark serve --config birthmark.yaml --workers 4', 'four processes answer devices'],
      ['birthmark serve --config birthmark.yaml --check', 'judge the configuration and stop'],
    ],
    'birthmark init writes a configuration to start from. SIGINT and SIGTERM stop it in order.',
  )
    .requiredOption('--config <file>', 'configuration, YAML')
    .option(
      '--workers <n>',
      'processes that answer devices (default: workers of the configuration, or 1)',
      wholeNumber('--workers', 1, 64),
    )
    .option('--check', 'read and judge the configuration, start nothing')
    .action(async (options: { config: string; workers?: number; check?: boolean }) => {
      const { read, files } = recording(fromDisk)
      const settings = readConfiguration(options.config, read)
      if (options.workers) settings.workers = options.workers
      if (options.check) {
        terminal.done('the configuration is sound', options.config)
        terminal.result({ config: options.config, fleet: settings.fleet })
        return
      }
      const log = logTo(2, settings.logLevel)
      const ports = { clock: systemClock, random: randomBytes, log, source: { config: options.config, files } }
      await untilStopped(async stop => {
        const running = await compose(settings, { ...ports, onFatal: error => stop(error) })
        terminal.done(`fleet ${settings.fleet}, store and audit record`, storeName(settings))
        const by = settings.workers > 1 ? `, ${settings.workers} workers` : ''
        terminal.done(`EST, mutual TLS${by}`, `${running.est}/.well-known/est`)
        terminal.done(settings.mqtt.kind === 'embedded' ? 'MQTT, embedded broker' : 'MQTT, external broker', running.mqtt)
        if (running.scep) terminal.done('SCEP, plain HTTP', running.scep)
        terminal.done('operator’s socket', running.admin.path)
        terminal.done('what devices need to know', join(settings.state, 'device'))
        terminal.commands('On this machine:', [
          `export BIRTHMARK_STATE=${quoted(settings.state)}`,
          'birthmark devices',
          'birthmark doctor',
        ])
        terminal.result({
          serving: true,
          fleet: settings.fleet,
          est: running.est,
          mqtt: running.mqtt,
          scep: running.scep,
          state: settings.state,
        })
        return () => running.close()
      })
      terminal.done('stopped')
    })
}
