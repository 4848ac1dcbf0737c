// `birthmark profile`: what the profiles of a running server say, whether a file of them is sound, and what would happen to a CSR.

import { userInfo } from 'node:os'
import { dirname, resolve } from 'node:path'
import { decodePem } from '@birthmark/device-sdk/core'
import type { Explanation, ExplanationRequest } from '@birthmark/est-server'
import { systemClock } from '@birthmark/fleet-revocation'
import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import { CommandError, usageError } from '../command-error.ts'
import { readConfiguration } from '../configuration.ts'
import { withStore } from '../open-store.ts'
import { checkProfileFile } from '../profile-settings.ts'
import { durationText, labelName, type ProfileView, profileLines, viewOfProfile } from '../profile-view.ts'
import { announceProfiles } from '../standing-profiles.ts'
import { printable, type Terminal } from '../terminal.ts'
import { leaf, readInput, stateOption } from './common.ts'

/** A CSR or a chain of certificates, with room. */
const fileBytesMax = 65_536

export function define(command: Command, terminal: Terminal): void {
  command.description(
    'Enrollment profiles: who may enroll under which EST label, and what they get. docs/profiles.md has the whole story.',
  )
  stateOption(
    leaf(command.command('list').description('the profiles of the running server'), [
      ['birthmark profile list', 'what they say'],
      ['birthmark profile list --json', 'one JSON object each'],
    ]),
  ).action(async (options: { dir: string }) => show((await administrationOf(options.dir).profiles()).profiles, terminal))

  leaf(
    command
      .command('check')
      .argument('<file>', 'a configuration, or a file with a profile or a list of them')
      .description('judge a file without a server'),
    [
      ['birthmark profile check profiles/sensors.yaml', 'a file of its own'],
      ['birthmark profile check birthmark.yaml', 'a whole configuration, with all that its profiles name'],
    ],
    'A file of its own does not know the anchors of its configuration, nor the labels beside it; those are judged with the configuration.',
  ).action(async (file: string) => {
    const path = resolve(file)
    const profiles = checkProfileFile(path, dirname(path)) ?? readConfiguration(path).profiles
    terminal.done(`${profiles.length} ${profiles.length === 1 ? 'profile' : 'profiles'}, sound`, file)
    show(profiles.map(viewOfProfile), terminal)
  })

  leaf(
    command
      .command('adopt')
      .requiredOption('--config <file>', 'configuration of the server')
      .description('Make the profiles of this configuration the newest of the fleet, also where they were superseded.'),
    [['birthmark profile adopt --config /etc/birthmark/birthmark.yaml', 'after going back to an older file']],
    'A server announces its profiles when it starts; this is needed only to take a fleet back to earlier ones. Servers with others stop issuing.',
  ).action(async ({ config }: { config: string }) => {
    const settings = readConfiguration(config)
    const by = `${userInfo().username}, profile adopt`
    const { generation, host } = await withStore(settings, store =>
      announceProfiles(settings, { store, clock: systemClock, again: true, by }),
    )
    terminal.done(`generation ${generation} of the profiles of fleet ${settings.fleet} stands`, host)
    terminal.result({ fleet: settings.fleet, generation, host })
  })

  stateOption(
    leaf(
      command
        .command('explain')
        .argument('<csr>', 'PKCS#10 request, PEM, DER or bare base64')
        .description(
          'Say, rule by rule, whether the running server would turn a CSR into a certificate. Nothing is changed or signed.',
        ),
      [
        ['birthmark profile explain device.csr --label gateways --birth device.pem', 'shown with a birth certificate'],
        ['birthmark profile explain new.csr --operational current.pem', 'as a renewal'],
        ['birthmark profile explain device.csr --secret-of SN-0001', 'with a one-time secret'],
        ['birthmark profile explain device.csr --device SN-0001', 'with the birth certificate of its manifest'],
      ],
      'Exit codes: 0 it would be issued · 1 it would be refused, or wait for a person.',
    ),
  )
    .option('--label <label>', 'EST label; none for requests without')
    .option('--birth <file>', 'birth certificate with its intermediates, PEM or DER, leaf first')
    .option('--operational <file>', 'the current operational certificate')
    .option('--secret-of <id>', 'as this device, with an unspent one-time secret')
    .option('--token-of <id>', 'as this device, with a good bearer token')
    .option('--device <id>', 'as this device, with its birth certificate')
    .action(explain)

  async function explain(csr: string, options: ExplainOptions): Promise<void> {
    const as = credentialOf(options)
    const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
    const explanation = await administrationOf(options.dir).explain({
      label: options.label ?? null,
      csr: base64(csrOf(csr)),
      as: as.kind === 'chain' ? { kind: 'chain', chain: as.chain.map(base64) } : as,
    })
    terminal.result(explanation)
    const width = Math.max(...explanation.steps.map(({ rule }) => rule.length), 'approval'.length)
    for (const { rule, detail } of explanation.steps) terminal.done(`${rule.padEnd(width)}  ${printable(detail)}`)
    conclude(explanation, terminal, width)
  }
}

interface ExplainOptions {
  dir: string
  label?: string
  birth?: string
  operational?: string
  secretOf?: string
  tokenOf?: string
  device?: string
}

function credentialOf({ birth, operational, secretOf, tokenOf, device }: ExplainOptions): ExplanationRequest['as'] {
  const given = [birth, operational, secretOf, tokenOf, device].filter(value => value !== undefined)
  if (given.length !== 1)
    throw usageError(
      given.length === 0 ? 'as whom?' : 'two credentials at once',
      'give one of --birth, --operational, --secret-of, --token-of, --device',
    )
  const file = birth ?? operational
  if (file !== undefined) return { kind: 'chain', chain: chainOf(file) }
  if (secretOf !== undefined) return { kind: 'secret', deviceId: secretOf }
  if (tokenOf !== undefined) return { kind: 'token', deviceId: tokenOf }
  return { kind: 'birth', deviceId: device as string }
}

function pemOrDer(file: string, label: string, most: number): Uint8Array[] {
  const bytes = readInput(file, fileBytesMax)
  // DER of either kind is a SEQUENCE.
  if (bytes[0] === 0x30 && bytes[1] >= 0x80) return [new Uint8Array(bytes)]
  const text = bytes.toString('latin1')
  if (!text.includes('-----BEGIN')) return [new Uint8Array(Buffer.from(text, 'base64'))]
  const found = decodePem(text, label, most)
  if (found.length === 0) throw usageError(`${file} holds no ${label}`, `give PEM (${label}) or DER`)
  return found
}

const chainOf = (file: string) => pemOrDer(file, 'CERTIFICATE', 8)

function csrOf(file: string): Uint8Array {
  const text = readInput(file, fileBytesMax).toString('latin1')
  return pemOrDer(file, text.includes('BEGIN NEW CERTIFICATE REQUEST') ? 'NEW CERTIFICATE REQUEST' : 'CERTIFICATE REQUEST', 1)[0]
}

const iso = (seconds: number) => new Date(seconds * 1000).toISOString()

function conclude({ verdict, certificate, assumed, device }: Explanation, terminal: Terminal, width: number): void {
  const who = device === null ? 'whoever asks' : printable(device)
  if (verdict.kind === 'refuse')
    terminal.bad(
      `${verdict.rule.padEnd(width)}  ${verdict.code}`,
      printable(verdict.detail),
      'the rule is explained in docs/profiles.md',
    )
  if (verdict.kind === 'wait') terminal.line(`… ${verdict.rule.padEnd(width)}  a person has to decide: birthmark approvals list`)
  if (assumed.length > 0) terminal.line(`Taken for granted: ${printable(assumed.join('; '))}.`)
  if (certificate) {
    const { subject, alternativeNames, purposes, keyAlgorithm, notBefore, notAfter, groups } = certificate
    terminal.line('')
    terminal.line(`The certificate:`)
    for (const [name, value] of [
      ['subject', subject],
      ['names', alternativeNames || '-'],
      ['for', purposes.join(', ')],
      ['key', keyAlgorithm],
      ['valid', `${iso(notBefore)} to ${iso(notAfter)} (${durationText(notAfter - notBefore)})`],
      ['groups', groups.join(' ') || '-'],
    ])
      terminal.line(`  ${name.padEnd(8)} ${printable(value)}`)
  }
  if (verdict.kind === 'issue') terminal.done(`${who} would get it`)
  if (verdict.kind === 'again')
    terminal.done(`${who} would get the certificate of an equal, earlier request again`, `idx ${verdict.idx}`)
  if (verdict.kind === 'wait')
    throw new CommandError('would_wait', `${who} would wait for a person (rule ${verdict.rule})`, 'birthmark approvals list')
  if (verdict.kind === 'refuse')
    throw new CommandError('would_refuse', `${who} would be refused by the rule ${verdict.rule}`, 'see docs/profiles.md')
}

function show(profiles: ProfileView[], terminal: Terminal): void {
  for (const view of profiles) {
    terminal.result(view)
    if (terminal.json) continue
    terminal.line('')
    terminal.line(`${labelName(view.label)}, fleet ${view.fleet}`)
    for (const line of profileLines(view)) terminal.line(`  ${printable(line)}`)
    for (const caution of view.cautions) terminal.line(`  caution      ${printable(caution)}`)
  }
}
