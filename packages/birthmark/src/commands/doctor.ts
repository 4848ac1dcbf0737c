// `birthmark doctor`: what usually goes wrong, looked at one by one. Each finding says what to do next; one ✘ makes the exit code 1.

import { join } from 'node:path'
import { decodePem } from '@birthmark/device-sdk/core'
import type { Command } from 'commander'
import { CommandError, usageError } from '../command-error.ts'
import { readDeviceFolder } from '../device-folder.ts'
import { examineClock, examineFolder, examineIdentity, examineMqtt, examineServer, type Finding } from '../examination.ts'
import { examineStatus } from '../status-check.ts'
import { printable, type Terminal } from '../terminal.ts'
import { leaf, readInput, stateOption } from './common.ts'

interface DoctorOptions {
  dir: string
  server?: string
  anchors?: string
  mqtt?: string
  certificate?: string
  key?: string
  operational?: string
}

export function define(command: Command, terminal: Terminal): void {
  stateOption(
    leaf(
      command.description(
        'Check clock, reachability, name, chain, key usage and the state folder; say what to do about each fault.',
      ),
      [
        ['birthmark doctor', 'the server of ./.birthmark/dev, from here'],
        ['birthmark doctor --server https://est.example:8443 --anchors server-ca.pem', 'a server elsewhere'],
        ['birthmark doctor --certificate device.pem --key device.key.pem', 'and a device’s identity'],
      ],
      'Exit 1 when anything is wrong. --json prints one object a check.',
    ),
  )
    .option('--server <url>', 'https://host:port of an EST server')
    .option('--anchors <file>', "PEM of the CA above the server's TLS certificate")
    .option('--mqtt <url>', 'mqtts://host:port of its broker')
    .option('--certificate <file>', 'operational certificate and chain, PEM')
    .option('--key <file>', 'its private key')
    .option('--operational <file>', 'PEM of the root that issues operational certificates')
    .action(async (options: DoctorOptions) => {
      if (!options.server !== !options.anchors) throw usageError('--server and --anchors belong together', 'give both, or neither')
      let failed = 0
      const tell = (finding: Finding): void => {
        if (finding.ok) terminal.done(finding.check, printable(finding.detail))
        else {
          failed++
          terminal.bad(finding.check, printable(finding.detail), finding.next)
        }
        terminal.result(finding)
      }
      tell(examineClock(Date.now() / 1000))
      let target: { est: string; mqtt: string | undefined; anchors: Uint8Array[]; operational: Uint8Array[] }
      const pem = (file: string): Uint8Array[] => decodePem(readInput(file, 262_144).toString('utf8'), 'CERTIFICATE', 16)
      if (options.server && options.anchors)
        target = { est: options.server, mqtt: options.mqtt, anchors: pem(options.anchors), operational: [] }
      else {
        for (const finding of await examineFolder(options.dir)) tell(finding)
        const device = readDeviceFolder(join(options.dir, 'device'))
        target = { est: device.est, mqtt: device.mqtt, anchors: device.serverAnchors, operational: device.operationalAnchors }
      }
      if (options.operational) target.operational = pem(options.operational)
      for await (const finding of examineServer(target.est, target.anchors)) tell(finding)
      if (target.mqtt) for await (const finding of examineMqtt(target.mqtt, target.anchors)) tell(finding)
      if (options.certificate) {
        const key = options.key ? readInput(options.key, 65_536) : null
        for (const finding of examineIdentity(pem(options.certificate), key, target.operational)) tell(finding)
        for await (const finding of examineStatus([...pem(options.certificate), ...target.operational])) tell(finding)
      }
      if (failed)
        throw new CommandError('unwell', `${failed} of the checks failed`, 'follow the first "next:" above, then run this again')
    })
}
