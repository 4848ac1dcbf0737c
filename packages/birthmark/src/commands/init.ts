// `birthmark init`: a folder with a commented configuration, a device issuer, a server CA apart from it, a TLS certificate and a notice
// key. What it cannot make is the manufacturer's root: that comes from the line.

import { createPrivateKey, randomBytes, sign } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { parseCertificate } from '@birthmark/device-sdk/core'
import { readSecret, SecretError } from '@birthmark/est-server'
import { writeDurably } from '@birthmark/factory-line'
import type { Command } from 'commander'
import { CommandError, usageError } from '../command-error.ts'
import { ensureNoticeKey } from '../development.ts'
import { ensureRa } from '../ra-certificate.ts'
import {
  ensureSealedTwoTier,
  ensureServerCertificate,
  ensureServiceCertificate,
  ensureTwoTier,
  writeChain,
} from '../server-certificate.ts'
import type { Terminal } from '../terminal.ts'
import { collect, leaf, quoted } from './common.ts'

export function define(command: Command, terminal: Terminal): void {
  leaf(
    command
      .argument('<folder>', 'where the configuration and its keys go')
      .description(
        'Write a configuration for birthmark serve, with keys. Running it again completes what is missing and changes nothing.',
      ),
    [
      ['birthmark init /etc/birthmark --fleet acme --host est.acme.example', 'a server by that name'],
      ['birthmark init ./server --fleet acme --host 10.0.0.5 --host est.local', 'by address and name'],
    ],
    'The keys are files for trial and small fleets (mode 0600). SECURITY.md says what a thief of each gains.',
  )
    .requiredOption('--fleet <name>', '1 to 32 of a-z, 0-9 and hyphen')
    .requiredOption('--host <name>', 'name or address that devices use; repeat for several', collect)
    .option('--organization <name>', 'organization in the certificates (default: the fleet)')
    .option('--passphrase-file <file>', 'passphrase that encrypts the issuer keys (default: made, in issuer/)')
    .action(async (folder: string, options: { fleet: string; host: string[]; organization?: string; passphraseFile?: string }) => {
      if (!/^[a-z0-9-]{1,32}$/.test(options.fleet))
        throw usageError(`'${options.fleet}' is no fleet name`, 'use 1 to 32 of a-z, 0-9 and hyphen')
      const organization = options.organization ?? options.fleet
      const file = (...names: string[]): string => join(folder, ...names)
      const configuration = file('birthmark.yaml')
      const fresh = !existsSync(configuration)
      mkdirSync(folder, { recursive: true, mode: 0o700 })
      const made = ensurePassphrase(options.passphraseFile ?? file('issuer', passphraseName), file('issuer', 'root.key.pem'))
      const { path: passphraseFile, passphrase } = made
      const two = await ensureSealedTwoTier(file('issuer'), organization, 'operational', randomBytes, passphrase)
      writeChain(file('issuer'), two)
      const { issuing: issuingCa } = two
      const pem = readFileSync(file('issuer', 'issuing.key.pem'))
      const issuingKey = createPrivateKey({ key: pem, passphrase })
      const key = {
        spki: parseCertificate(issuingCa).spki,
        algorithm: 'ecdsa-sha256',
        sign: async (m: Uint8Array) => sign('sha256', m, issuingKey),
      }
      await ensureRa(file('scep'), organization, { certificate: issuingCa, key }, randomBytes)
      passphrase.fill(0)
      terminal.done('device issuer: root and issuing CA, their keys encrypted', file('issuer'))
      terminal.done('passphrase of those keys', passphraseFile)
      terminal.done('SCEP: registration authority under the issuing CA', file('scep'))
      const server = await ensureTwoTier(file('server'), organization, 'server', randomBytes)
      await ensureServerCertificate(file('server'), options.host, server.issuing, randomBytes)
      await ensureServiceCertificate(file('server'), 'observer', server.issuing, randomBytes)
      terminal.done(`TLS certificate for ${options.host.join(', ')}, and its CA`, file('server'))
      ensureNoticeKey(file('notice.key.pem'))
      terminal.done('notice key: signs revocations', file('notice.key.pem'))
      if (fresh)
        writeDurably(
          configuration,
          example(options.fleet, options.passphraseFile ? passphraseFile : `issuer/${passphraseName}`),
          0o644,
        )
      terminal.done(fresh ? 'configuration' : 'configuration, as it was', configuration)
      terminal.line(
        '  the roots’ keys (root.key.pem) are not needed to run: take them offline, and keep the passphrase apart from the keys',
      )
      terminal.commands('Next:', [
        `cp factory/root.pem ${quoted(file('birth-anchors.pem'))}   # the manufacturer's root, from birthmark line init`,
        `birthmark serve --config ${quoted(configuration)}`,
      ])
      terminal.result({ folder, configuration, fresh })
    })
}

const passphraseName = 'passphrase'

/** Absolute, since it is written into a configuration that lies elsewhere. A key that is there already keeps the passphrase it has. */
function ensurePassphrase(file: string, key: string): { path: string; passphrase: Buffer } {
  const path = resolve(file)
  if (!existsSync(path)) {
    // A missing passphrase is made only with the key: any other would open nothing.
    if (existsSync(key))
      throw new CommandError(
        'passphrase_missing',
        `${path} is not there, and ${key} is`,
        'put the passphrase back, or name it',
        'usage',
      )
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    writeDurably(path, `${randomBytes(32).toString('base64url')}\n`, 0o600)
  }
  try {
    return { path, passphrase: readSecret({ file: path }) }
  } catch (error) {
    if (error instanceof SecretError) throw usageError(error.message, error.next)
    throw error
  }
}

function example(fleet: string, passphraseFile: string): string {
  return `# birthmark serve --config birthmark.yaml
# Paths are relative to this file. Keys are PKCS#8 PEM with mode 0600.

fleet: ${fleet}
state: state            # store, audit record, admin socket; back this up

est:                    # enrollment over mutual TLS
  host: 0.0.0.0
  port: 8443
  certificate: server/server.pem      # leaf first, then the CA that signed it
  key: server/server.key.pem

mqtt:                   # the embedded broker
  host: 0.0.0.0
  port: 8883
  certificate: server/server.pem
  key: server/server.key.pem
  services:             # certificates of the server CA that may connect, by name
    observer: observer  # reads every device's telemetry: server/observer.pem
# mqtt:                 # or an external one, which takes the notices from us
#   url: mqtts://broker.example:8883
#   anchors: broker-ca.pem
#   certificate: publisher.pem
#   key: publisher.key.pem
#   enforce: { kind: mosquitto }   # commands its dynamic security plugin: docs/enforcement.md

server:                 # what devices trust our TLS by; never the device issuer
  anchors: [server/root.pem]

birth:                  # manufacturers whose birth certificates are accepted, once their manifest is imported
  anchors: [birth-anchors.pem]

issuer:                 # signs the operational certificates
  certificate: issuer/chain.pem       # issuing CA, then its root
  key: issuer/issuing.key.pem         # encrypted
  passphrase:
    file: ${passphraseFile}
#   credential: birthmark-issuer      # or from systemd: LoadCredentialEncrypted=birthmark-issuer
# pkcs11:                             # or, instead of key and passphrase, a token
#   library: /usr/lib/softhsm/libsofthsm2.so
#   token: { label: birthmark }
#   key: { label: issuer }
#   pin: { file: issuer/pin }
# next:                               # takes over in a roll-over: birthmark ca --help
#   certificate: issuer-2/chain.pem
#   key: issuer-2/issuing.key.pem
# links: [old-with-new.pem, new-with-old.pem]   # where the roots differ: one signs the other, for cacerts
# previous: [old-issuing.pem]         # issuing CAs before this one, until the last of their devices has renewed

# scep:                 # routers, printers and others that do not speak EST; docs/scep.md
#   host: 0.0.0.0
#   port: 8080          # plain HTTP: its messages are signed and encrypted by themselves
#   certificate: scep/ra.pem
#   key: scep/ra.key.pem

certificates:
  lifetime: 90d         # 10m to 3653d; devices renew at two thirds

# Who enrolls under which EST label, and what they get: docs/profiles.md. Without this part there is one profile, without a label, which
# admits the birth certificates above (once their manifest is imported) and one-time secrets. Try one: birthmark profile check FILE
# profiles:
#   - label: null                       # https://host:8443/.well-known/est/simpleenroll
#   - label: gateways                   # https://host:8443/.well-known/est/gateways/simpleenroll
#     admit:                            # what is not named here is not admitted
#       birth:
#         anchors: [gateway-root.pem]   # instead of birth.anchors
#         serial: ["GW-2026-*"]         # * any run, ? one character, [0-9A-F] one of
#       secrets: true
#     certificate:
#       subject: ["CN={id}", O=Acme, "OU={model}"]  # {model} of a device in the group model=...
#       names: ["dns:{id}.gateways.acme.example"]
#       purposes: [serverAuth]          # besides clientAuth
#       keys: [P-256, Ed25519]
#       lifetime: 30d
#     renewal:
#       window: 50%                     # not before half of the life is over
#       grace: 30d                      # a device that was off may still renew
#     approval: first                   # a person says yes: birthmark approvals list
#   - profiles/sensors.yaml             # one profile, or a list of them

# status:               # CRLs and OCSP for standard consumers over plain HTTP; the URL goes into every certificate: docs/status.md
#   url: http://status.acme.example   # reaches this port, by name, for as long as certificates live
#   port: 8080
#   crl: 24h            # life of a list; signed when asked for
#   ocsp: 1h

notices:                # signs revocations
  key: notice.key.pem

# workers: 4           # processes that answer devices, for a machine with several cores
# metrics:
#   listen: 127.0.0.1:9464            # /metrics for Prometheus, /readyz for a load balancer; no authentication

log:
  level: info           # debug, info, warn, error
`
}
