// `mqtt.enforce` of the configuration: a mosquitto whose dynamic security plugin this server commands, and the file of revocation lists that
// it keeps for that broker's TLS layer.

import { existsSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { z } from 'zod'
import { judged, wrong, type YamlDocument } from './yaml-document.ts'

const File = z.string().min(1).max(4096)

const MosquittoConfiguration = z.strictObject({
  kind: z.literal('mosquitto', { error: 'is mosquitto; other brokers ask a webhook' }),
  /** A certificate that commands and does nothing else; without it the publisher's commands as well. */
  certificate: File.optional(),
  key: File.optional(),
  crl: z.strictObject({ file: File, pid: File }).optional(),
})

interface Pair {
  certificate: string
  key: string
}

export interface MaybePair {
  certificate?: string | undefined
  key?: string | undefined
}

export interface MosquittoSettings {
  /** PEM. Null: the connection that publishes commands too. */
  own: Pair | null
  /** Absolute: the file that mosquitto's `crlfile` names, and the one of its `pid_file`. */
  crl: { file: string; pid: string } | null
}

export interface MosquittoContext {
  document: YamlDocument
  base: string
  /** Reads certificate and key: both, or null for neither. */
  ownOf(path: PropertyKey[], files: MaybePair): Pair | null
  /** The publisher's. */
  own: Pair | null
  /** Whether this server signs revocation lists. */
  lists: boolean
}

/** Throws `configuration` with the line. */
export function settleMosquitto(raw: unknown, { document, base, ownOf, own, lists }: MosquittoContext): MosquittoSettings {
  const path = ['mqtt', 'enforce']
  const { certificate, key, crl } = judged(MosquittoConfiguration, document, raw, path)
  const commander = ownOf(path, { certificate, key })
  if (commander === null && own === null)
    throw wrong(
      `${document.at(path)}: mosquitto takes commands from a certificate that it knows`,
      'give certificate and key here, or beside url',
    )
  if (crl === undefined) return { own: commander, crl: null }
  if (!lists)
    throw wrong(
      `${document.at([...path, 'crl'])}: there are no revocation lists to write`,
      'add status: with the URL under which they are to be had',
    )
  const [file, pid] = [resolve(base, crl.file), resolve(base, crl.pid)]
  if (!existsSync(dirname(file)))
    throw wrong(
      `${document.at([...path, 'crl', 'file'])}: there is no folder ${dirname(file)}`,
      'make it, writable for this server',
    )
  return { own: commander, crl: { file, pid } }
}
