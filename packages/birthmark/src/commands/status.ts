// `birthmark status`: revocation lists and OCSP as a standard consumer gets them, over the same plain HTTP, believed only with the issuer's
// signature. Whoever gets an odd verdict elsewhere can compare.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Certificate, decodePem, nameText, parseCertificate } from '@birthmark/device-sdk/core'
import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import { CommandError, usageError } from '../command-error.ts'
import { readDeviceFolder } from '../device-folder.ts'
import { askOcsp, fetchStatus, judgeList, placeOf, statusUrls } from '../status-check.ts'
import { printable, type Terminal } from '../terminal.ts'
import { leaf, readInput, stateOption, wholeNumber } from './common.ts'

const iso = (seconds: number) => new Date(seconds * 1000).toISOString()
const now = () => Math.floor(Date.now() / 1000)

function chainIn(file: string): Certificate[] {
  const chain = decodePem(readInput(file, 262_144).toString('utf8'), 'CERTIFICATE', 16).map(parseCertificate)
  if (chain.length === 0) throw usageError(`${file} holds no PEM certificate`, 'name the certificate of birthmark enroll')
  return chain
}

export function define(command: Command, terminal: Terminal): void {
  command.description('Revocation lists and OCSP, fetched and checked as a standard consumer does.')
  stateOption(
    leaf(
      command
        .command('crl')
        .description(
          'Fetch the revocation list of a shard (4,096 indices of the fleet), or of everything, from the running server.',
        ),
      [
        ['birthmark status crl', 'the first shard'],
        ['birthmark status crl --shard 3 --out shard-3.crl', 'DER, for openssl crl -inform DER'],
        ['birthmark status crl --full --out all.crl', 'every revoked certificate of the issuer'],
      ],
      'The server signs a list when it is asked for; fetching one costs it at most a signature.',
    ),
  )
    .option('--shard <n>', 'index divided by 4,096', wholeNumber('--shard', 0, 524_287))
    .option('--full', 'the list of everything')
    .option('--out <file>', 'write the list there, DER')
    .action(async (options: { dir: string; shard?: number; full?: boolean; out?: string }) => {
      if (options.full && options.shard !== undefined) throw usageError('--shard and --full exclude each other', 'give one of them')
      const { certificateStatus: place, fleet } = await administrationOf(options.dir).status()
      if (place === null)
        throw new CommandError(
          'status_off',
          'this server publishes no certificate status',
          'add status: to its configuration (docs/status.md)',
          'refused',
        )
      const path = options.full ? `/crl/${place.issuers[0]}.crl` : `/crl/${place.issuers[0]}/${fleet}/${options.shard ?? 0}.crl`
      const der = await fetchStatus(place.local + path)
      if (options.out) writeFileSync(options.out, der)
      terminal.done(`${place.url}${path}`, `${der.length} bytes`)
      if (options.out) terminal.commands('To read it:', [`openssl crl -inform DER -in ${options.out} -noout -text`])
      terminal.result({ url: place.url + path, bytes: der.length, file: options.out ?? null })
    })

  stateOption(
    leaf(
      command
        .command('ocsp')
        .argument('<certificate>', 'PEM file, its issuer after it where the file has a chain')
        .description(
          'Ask the responder that a certificate names, and its revocation list. Exit 0 when both say good, 3 otherwise.',
        ),
      [
        ['birthmark status ocsp device.pem', 'as birthmark enroll wrote it'],
        ['birthmark status ocsp device.pem --issuer issuing.pem --url http://127.0.0.1:8080/ocsp', 'before the name leads here'],
      ],
    ),
  )
    .option('--issuer <file>', 'PEM of the CA that signed it, where the certificate’s own file lacks it')
    .option('--url <url>', 'responder to ask instead of the one it names')
    .action(async (file: string, options: { dir: string; issuer?: string; url?: string }) => {
      const [certificate, ...above] = chainIn(file)
      const candidates = [...above, ...(options.issuer ? chainIn(options.issuer) : issuersOf(options.dir))]
      const issuer = candidates.find(ca => nameText(ca.subject) === nameText(certificate.issuer))
      if (issuer === undefined)
        throw usageError(`the CA that signed ${file} is not at hand (${nameText(certificate.issuer)})`, 'name it with --issuer')
      const urls = statusUrls(certificate)
      const url = options.url ?? urls.ocsp
      if (url === null)
        throw usageError(`${file} names no OCSP responder`, 'it was issued before status: was configured; give --url')
      const { status, thisUpdate, nextUpdate } = await askOcsp(url, certificate, issuer, now())
      const said =
        status.kind === 'revoked'
          ? `revoked since ${iso(status.at)}${status.reason ? `, reason ${status.reason}` : ''}`
          : status.kind
      terminal.line(`${printable(nameText(certificate.subject))}, ${placeOf(certificate)}`)
      terminal.line(`OCSP: ${said} (${url}, until ${nextUpdate === null ? 'asked again' : iso(nextUpdate)})`)
      let listed: boolean | null = null
      if (!options.url && urls.crl !== null) {
        const list = judgeList(await fetchStatus(urls.crl), issuer, now(), certificate.serial)
        listed = list.listed
        terminal.line(
          `CRL: ${listed ? 'revoked' : 'not on it'} (${urls.crl}, ${list.entries} entries, until ${iso(list.nextUpdate)})`,
        )
      }
      terminal.result({
        url,
        status: status.kind,
        ...(status.kind === 'revoked' ? { at: status.at, reason: status.reason } : {}),
        thisUpdate,
        nextUpdate,
        listed,
      })
      if (status.kind !== 'good' || listed)
        throw new CommandError(
          status.kind === 'unknown' ? 'certificate_unknown' : 'certificate_revoked',
          status.kind === 'unknown' ? 'the responder does not know this certificate' : 'the certificate is revoked',
          'birthmark devices shows what became of the device',
          'refused',
        )
    })
}

/** What a server's state folder says of its issuers; none where there is no such folder. */
function issuersOf(dir: string): Certificate[] {
  try {
    return readDeviceFolder(join(dir, 'device')).operationalAnchors.map(parseCertificate)
  } catch {
    return []
  }
}
