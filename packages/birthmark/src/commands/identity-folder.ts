// A device's identity as a folder: `keys/` and `identity/` for the SDK, and beside them the operational certificate and key as PEM for
// programs that want files.

import { createPrivateKey, createPublicKey } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { decodePem, equalBytes, nameAttribute, parseCertificate, SERIAL_NUMBER } from '@birthmark/device-sdk/core'
import { birthChain, fileKeys, fileStore } from '@birthmark/device-sdk/node'
import { writeDurably } from '@birthmark/factory-line'
import { CommandError, usageError } from '../command-error.ts'
import type { BornDevice } from '../sim/birth.ts'
import { readInput } from './common.ts'

/**
 * Puts a birth certificate and its key, as PEM files, into `folder`. The serial number is the certificate's. Throws `usage` for files that
 * are not what they should be; nothing is written then.
 */
export function bornFromFiles(certificateFile: string, keyFile: string, folder: string): BornDevice {
  const chain = decodePem(readInput(certificateFile, 262_144).toString('utf8'), 'CERTIFICATE', 8)
  if (chain.length === 0) throw usageError(`${certificateFile} holds no PEM certificate`, 'name the birth certificate')
  const leaf = parseCertificate(chain[0])
  const serial = nameAttribute(leaf.subject, SERIAL_NUMBER)
  if (!serial) throw usageError(`${certificateFile} names no serialNumber`, 'a birth certificate (802.1AR) has one in its subject')
  let pem: string
  try {
    const key = createPrivateKey(readInput(keyFile, 65_536))
    pem = key.export({ type: 'pkcs8', format: 'pem' }) as string
    if (!equalBytes(createPublicKey(key).export({ type: 'spki', format: 'der' }), leaf.spki))
      throw usageError(`${keyFile} is not the key of ${certificateFile}`, 'name files that belong together')
  } catch (error) {
    if (error instanceof CommandError) throw error
    throw usageError(`${keyFile} holds no private key without a passphrase`, 'give a PKCS#8 PEM key')
  }
  const keys = fileKeys(join(folder, 'keys'))
  const store = fileStore(join(folder, 'identity'))
  mkdirSync(join(folder, 'keys'), { recursive: true, mode: 0o700 })
  writeDurably(join(folder, 'keys', 'birth.key'), pem, 0o600)
  store.put('birth.chain', birthChain(chain))
  return { serial, groups: [], keys, store }
}
