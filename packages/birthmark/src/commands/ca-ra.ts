// `birthmark ca ra`: SCEP's registration authority for the issuer to come, or for the present one. It signs with the issuer's key as the
// configuration names it, records nothing and changes no configuration: it says the lines that go in.

import { createPublicKey, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import {
  type Bytes,
  decodePem,
  equalBytes,
  nameAttribute,
  nameText,
  ORGANIZATION,
  parseCertificate,
} from '@birthmark/device-sdk/core'
import { type Issuer, readRaCertificate } from '@birthmark/est-server'
import { writeDurably } from '@birthmark/factory-line'
import { systemClock } from '@birthmark/fleet-revocation'
import type { Command } from 'commander'
import { usageError } from '../command-error.ts'
import { readConfiguration } from '../configuration.ts'
import { openIssuer } from '../open-issuer.ts'
import { certifyRa, isRaOf, makeRa } from '../ra-certificate.ts'
import { printable, type Terminal } from '../terminal.ts'
import { leaf, quoted, readInput } from './common.ts'

const quiet = () => {}
const keyBytesMax = 16_384

export function defineRa(command: Command, terminal: Terminal): void {
  leaf(
    command
      .command('ra')
      .argument('<folder>', 'where ra.pem and ra.key.pem go; what is there already stays')
      .description('Make the registration authority of SCEP under the issuer to come (issuer.next), or under the present one.'),
    [
      ['birthmark ca ra scep-2 --config birthmark.yaml', 'before ca prepare'],
      ['birthmark ca ra scep-2 --config birthmark.yaml --public-key ra.pub.pem', 'its key is in a token'],
    ],
    'Clients are shown it from ca prepare on, and use it from ca switch on; the present RA goes on being understood.',
  )
    .requiredOption('--config <file>', 'configuration of the server, YAML')
    .option('--public-key <file>', 'PEM of an RSA key that lives elsewhere; no key is made then')
    .action(async (folder: string, options: { config: string; publicKey?: string }) => {
      const { issuer: issuers, fleet, state } = readConfiguration(options.config)
      const signer = issuers.next ?? issuers
      const [authority] = signer.certificates
      const file = (name: string) => join(folder, name)
      const where = { certificate: file('ra.pem'), key: options.publicKey === undefined ? file('ra.key.pem') : null }
      const spki = options.publicKey === undefined ? null : publicKeyIn(options.publicKey)
      const present = existsSync(where.certificate)
      if (present) requireAsked(where, authority, options.publicKey ?? file('ra.key.pem'), spki)
      else if (where.key && existsSync(where.key))
        throw usageError(`${where.key} is there, and no certificate of it`, 'name a new folder')
      if (!present) {
        const now = Math.floor(systemClock.now())
        const issuer = await openIssuer(signer, { state, clock: systemClock, log: { info: quiet, warn: quiet, error: quiet } })
        try {
          await write(where, issuer, nameAttribute(issuer.certificate.subject, ORGANIZATION) ?? fleet, spki, now)
        } finally {
          await issuer.close?.()
        }
      }
      const ra = readRaCertificate(readFileSync(where.certificate, 'utf8'))
      const role = issuers.next ? 'next' : 'present'
      terminal.done(
        `registration authority under the ${role === 'next' ? 'issuer to come' : 'present issuer'}${present ? ', as it was' : ''}`,
        `${where.certificate} (${printable(nameText(ra.subject))}, until ${new Date(ra.notAfter * 1000).toISOString().slice(0, 10)})`,
      )
      const base = resolve(options.config, '..')
      const pair = [
        `certificate: ${relative(base, resolve(where.certificate))}`,
        where.key ? `key: ${relative(base, resolve(where.key))}` : 'pkcs11: { … }',
      ].join(', ')
      terminal.line(`  in ${options.config}, under scep:`)
      terminal.line(role === 'next' ? `    next: { ${pair} }` : `    ${pair.replace(', ', '\n    ')}`)
      terminal.commands(
        'Then:',
        role === 'next' ? ['birthmark ca prepare'] : [`birthmark serve --config ${quoted(options.config)} --check`],
      )
      terminal.result({ role, ...where, issuer: nameText(ra.issuer), notAfter: ra.notAfter, fresh: !present })
    })
}

/** What is there stays, so it has to be what is asked for. `keyFile`: of whose key, and `spki` that key where it is a public one. */
function requireAsked(where: { certificate: string }, authority: Bytes, keyFile: string, spki: Bytes | null): void {
  const [present] = decodePem(readFileSync(where.certificate), 'CERTIFICATE', 1)
  if (!isRaOf(present, authority))
    throw usageError(`${where.certificate} is of another issuer, and clients may hold it`, 'name a new folder')
  if (!equalBytes(parseCertificate(present).spki, spki ?? publicHalf(keyFile, where.certificate)))
    throw usageError(
      `${where.certificate} is of another key than ${keyFile}, and clients may hold it`,
      'name a new folder; or the key that it is of',
    )
}

/** Throws where it can't be told, as of a key that is encrypted. */
function publicHalf(keyFile: string, certificate: string): Bytes {
  try {
    return createPublicKey(readInput(keyFile, keyBytesMax)).export({ type: 'spki', format: 'der' })
  } catch (error) {
    throw usageError(
      `${certificate} is there, and whether it is of ${keyFile} can not be told: ${(error as Error).message}`,
      'name the public half of its key with --public-key FILE, or a new folder',
    )
  }
}

async function write(
  where: { certificate: string; key: string | null },
  issuer: Issuer,
  organization: string,
  spki: Bytes | null,
  now: number,
): Promise<void> {
  const { der, spki: issuerSpki } = issuer.certificate
  const key = { spki: issuerSpki, algorithm: issuer.algorithm, sign: async (message: Bytes) => issuer.sign(message) }
  const of = { certificate: der, key }
  const made = spki
    ? { certificate: await certifyRa(of, spki, { organization }, now, randomBytes), key: null }
    : await makeRa(of, { organization }, now, randomBytes)
  // Before it is anywhere: a public key that no RA can have ends here.
  readRaCertificate(made.certificate)
  mkdirSync(resolve(where.certificate, '..'), { recursive: true, mode: 0o700 })
  if (made.key !== null && where.key !== null) writeDurably(where.key, made.key, 0o600)
  // Last: with it, everything is there.
  writeDurably(where.certificate, made.certificate, 0o644)
}

function publicKeyIn(file: string): Bytes {
  const pem = readInput(file, keyBytesMax).toString('utf8')
  try {
    const key = createPublicKey(pem)
    const bits = key.asymmetricKeyDetails?.modulusLength ?? 0
    if (key.asymmetricKeyType === 'rsa' && bits >= 2048 && bits <= 4096 && !pem.includes('PRIVATE KEY'))
      return key.export({ type: 'spki', format: 'der' })
  } catch {
    // Said below.
  }
  throw usageError(
    `${file} is no RSA public key of 2048 to 4096 bits in PEM`,
    'export the public key of the token’s key, and it alone',
  )
}
