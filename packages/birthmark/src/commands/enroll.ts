// `birthmark enroll`: this machine as a device. By its birth certificate, or by a one-time secret; what it got is written as files.

import { existsSync, mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { createIdentity, fileKeys, fileStore } from '@birthmark/device-sdk/node'
import { writeDurably } from '@birthmark/factory-line'
import type { Command } from 'commander'
import { usageError } from '../command-error.ts'
import type { Terminal } from '../terminal.ts'
import { leaf, quoted, readInput, wholeNumber } from './common.ts'
import { bornFromFiles } from './identity-folder.ts'

interface EnrollOptions {
  server: string
  label?: string
  anchors: string
  operational?: string
  birth?: string
  birthKey?: string
  device?: string
  secretFile?: string
  out: string
  renew?: boolean
  timeout: number
}

export function define(command: Command, terminal: Terminal): void {
  leaf(
    command.description(
      'Enroll this machine as a device over EST. Keys are made here and stay here. Running it again does nothing while the certificate ' +
        'is valid; --renew replaces it. An attempt that was cut off is resumed with the same key and request.',
    ),
    [
      [
        'birthmark enroll --server https://est.example:8443 --anchors server-ca.pem --birth SN-1.pem --birth-key SN-1.key.pem',
        'by birth',
      ],
      [
        'birthmark enroll --server https://est.example:8443 --anchors server-ca.pem --device gw-7 --secret-file s.txt',
        'by a one-time secret',
      ],
      ['birthmark enroll --server https://est.example:8443 --anchors server-ca.pem --renew', 'replace the certificate'],
    ],
    'A secret is read from a file, never from the command line, where every user of the machine could see it.',
  )
    .requiredOption('--server <url>', 'https://host:port of the EST server')
    .requiredOption('--anchors <file>', "PEM of the CA above the server's TLS certificate")
    .option('--operational <file>', 'PEM of the root that must have issued our certificate (default: what the server says)')
    .option('--label <label>', 'EST label (RFC 7030 3.2.2)')
    .option('--birth <file>', 'birth certificate and chain, PEM')
    .option('--birth-key <file>', 'its private key, PKCS#8 PEM')
    .option('--device <id>', 'device id, with a secret')
    .option('--secret-file <file>', 'file with the one-time secret')
    .option('--out <folder>', 'where the identity lives', './identity')
    .option('--renew', 'replace a valid certificate')
    .option('--timeout <seconds>', 'longest wait for one answer', wholeNumber('--timeout', 1, 60), 30)
    .action(async (options: EnrollOptions) => {
      if (!options.birth !== !options.birthKey) throw usageError('--birth and --birth-key belong together', 'give both, or neither')
      if (!options.device !== !options.secretFile)
        throw usageError('--device and --secret-file belong together', 'give both, or neither')
      if (!/^https:\/\/[^/]+\/?$/.test(options.server))
        throw usageError(`'${options.server}' is not https://host:port`, 'give the server so')
      const folder = resolve(options.out)
      const known = existsSync(join(folder, 'identity'))
      if (!options.birth && !options.device && !known)
        throw usageError('nothing says who this device is', 'give --birth and --birth-key, or --device and --secret-file')
      const anchors = readInput(options.anchors, 262_144).toString('utf8')
      const operational = options.operational ? readInput(options.operational, 262_144).toString('utf8') : undefined
      const password = options.secretFile ? readInput(options.secretFile, 4096).toString('utf8').trim() : ''
      mkdirSync(folder, { recursive: true, mode: 0o700 })
      if (options.birth && options.birthKey) {
        const { serial } = bornFromFiles(options.birth, options.birthKey, folder)
        terminal.done(`birth certificate of ${serial}`, join(options.out, 'identity'))
      }
      const identity = createIdentity({
        keys: fileKeys(join(folder, 'keys')),
        store: fileStore(join(folder, 'identity')),
        server: { url: options.server, label: options.label },
        trust: { server: anchors, operational },
        secret: options.device ? { user: options.device, password } : undefined,
        timeoutSeconds: options.timeout,
      })
      try {
        const status = options.renew ? await identity.renew() : await identity.enroll()
        const { cert, key } = identity.tlsOptions()
        const files = { certificate: join(options.out, 'device.pem'), key: join(options.out, 'device.key.pem') }
        // The key first: a certificate without its key would be picked up by whoever watches for it.
        if (key) writeDurably(files.key, key, 0o600)
        writeDurably(files.certificate, cert, 0o600)
        const until = new Date(status.notAfter * 1000).toISOString()
        terminal.done(`${status.deviceId} is enrolled until ${until}`, options.server)
        terminal.done('certificate and chain', files.certificate)
        if (key) terminal.done('private key (0600)', files.key)
        const again = `birthmark enroll --server ${quoted(options.server)} --anchors ${quoted(options.anchors)} --out ${quoted(options.out)} --renew`
        terminal.commands(`Renew after ${new Date(status.renewAt * 1000).toISOString()}, two thirds of its life:`, [again])
        terminal.result({
          device: status.deviceId,
          notAfter: status.notAfter,
          renewAt: status.renewAt,
          generation: status.generation,
          ...files,
        })
      } finally {
        identity.close()
      }
    })
}
