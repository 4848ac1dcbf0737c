// `birthmark dev`: a manufacturer, a server and a broker in one process on loopback, no question asked, no password.

import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { systemClock } from '@birthmark/fleet-revocation'
import type { Command } from 'commander'
import { pino } from 'pino'
import { compose } from '../compose.ts'
import { developmentChallenge, prepareDevelopment } from '../development.ts'
import type { Terminal } from '../terminal.ts'
import { defaultState, leaf, quoted, wholeNumber, withDir } from './common.ts'
import { untilStopped } from './until-stopped.ts'

export function define(command: Command, terminal: Terminal): void {
  leaf(
    command.description(
      'Run everything on this machine: manufacturer, device issuer, server CA, enrollment server, MQTT broker. For development: its ' +
        'certificates say so, birthmark serve refuses them, and it listens on loopback alone. Running it again goes on with the same state.',
    ),
    [
      ['birthmark dev', 'state in ./.birthmark/dev, ports 8443 and 8883'],
      ['birthmark dev --dir /tmp/bm --est-port 0 --mqtt-port 0', 'a second one, on free ports'],
      ['birthmark dev --lifetime-minutes 10', 'certificates that renew while you watch'],
    ],
    'Ctrl-C stops it; the state stays. To start over, delete the folder.',
  )
    .option('--dir <folder>', 'folder of the state', defaultState)
    .option('--host <address>', 'loopback address to listen on', '127.0.0.1')
    .option('--est-port <n>', 'port of EST; 0 takes a free one', wholeNumber('--est-port', 0, 65_535), 8443)
    .option('--mqtt-port <n>', 'port of MQTT; 0 takes a free one', wholeNumber('--mqtt-port', 0, 65_535), 8883)
    .option('--scep-port <n>', 'port of SCEP (plain HTTP), which is off unless told', wholeNumber('--scep-port', 0, 65_535))
    .option(
      '--lifetime-minutes <n>',
      'life of an operational certificate',
      wholeNumber('--lifetime-minutes', 10, 5_000_000),
      129_600,
    )
    .option('--verbose', 'log every request to stderr')
    .action(
      async (options: {
        dir: string
        host: string
        estPort: number
        mqttPort: number
        scepPort?: number
        lifetimeMinutes: number
        verbose?: boolean
      }) => {
        const { settings, made } = await prepareDevelopment({
          folder: options.dir,
          host: options.host,
          estPort: options.estPort,
          mqttPort: options.mqttPort,
          scepPort: options.scepPort ?? null,
          lifetimeSeconds: options.lifetimeMinutes * 60,
          random: randomBytes,
        })
        const log = pino({ level: options.verbose ? 'info' : 'error', base: null }, pino.destination({ fd: 2, sync: true }))
        await untilStopped(async stop => {
          const running = await compose(settings, { clock: systemClock, random: randomBytes, log, onFatal: error => stop(error) })
          for (const { what, where, fresh } of made) terminal.done(fresh ? what : `${what} (from before)`, where)
          terminal.done('store and audit record', join(options.dir, 'fleet.db'))
          terminal.done('EST, mutual TLS', `${running.est}/.well-known/est`)
          terminal.done('MQTT, embedded broker, mutual TLS', running.mqtt)
          if (running.scep) terminal.done(`SCEP; every device's challenge is ${developmentChallenge}`, running.scep)
          terminal.done('operator’s socket (whoever can open it is the operator)', join(options.dir, 'admin.sock'))
          terminal.done('what devices need to know', join(options.dir, 'device'))
          terminal.line()
          terminal.line('For development: no password, loopback alone, certificates marked "not for production".')
          const dir = withDir(options.dir)
          terminal.commands('Next, in another terminal:', [
            `birthmark sim fleet --count 20${dir}`,
            `birthmark devices${dir}`,
            `birthmark revoke batch=sim-a --reason "lost in transit" --yes${dir}`,
            `birthmark doctor${dir}`,
          ])
          terminal.commands('By hand:', [
            `curl --cacert ${quoted(join(options.dir, 'device', 'server-ca.pem'))} ${running.est}/.well-known/est/cacerts`,
            watchCommand(options.dir, running.mqtt),
            `birthmark line issue SN-0001 --make-key --group batch=by-hand --dir ${quoted(join(options.dir, 'factory'))}`,
          ])
          terminal.line()
          terminal.line('Ctrl-C stops it; the state stays.')
          terminal.result({
            ready: true,
            dir: options.dir,
            est: running.est,
            mqtt: running.mqtt,
            scep: running.scep,
            pid: process.pid,
          })
          return () => running.close()
        })
        terminal.line()
        terminal.done('stopped; the state stays', options.dir)
      },
    )
}

/** Everybody's telemetry with Debian's mosquitto_sub. */
function watchCommand(folder: string, mqtt: string): string {
  const { hostname, port } = new URL(mqtt)
  const file = (...names: string[]): string => quoted(join(folder, ...names))
  const tls = `--cafile ${file('device', 'server-ca.pem')} --cert ${file('server', 'observer.pem')} --key ${file('server', 'observer.key.pem')}`
  return `mosquitto_sub -h ${hostname} -p ${port} ${tls} -i observer -t 'devices/#' -v`
}
