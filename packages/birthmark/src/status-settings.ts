// The `status` part of a configuration: where standard consumers find out whether a certificate still holds. Its URL goes into every certificate
// and stays there as long as that lives; without this part certificates name none, and no port is opened.

import { resolve } from 'node:path'
import { isStatusUrl } from '@birthmark/est-server'
import { z } from 'zod'
import type { FileReader } from './issuer-settings.ts'
import { wrong } from './yaml-document.ts'

const Url = z
  .string()
  .refine(isStatusUrl, 'is an http URL of at most 128 characters without a slash at its end, such as http://status.example.com')
const Duration = z.string().regex(/^[1-9]\d{0,3}[mhd]$/, 'is like 24h, 30m or 7d')
const File = z.string().min(1).max(4096)

export const StatusConfiguration = z.strictObject({
  url: Url,
  // What the URL was before; lists answer to these names as well.
  former: z.array(Url).max(8).default([]),
  host: z.string().min(1).default('0.0.0.0'),
  port: z.int().min(1).max(65_535).default(8080),
  crl: Duration.default('24h'),
  ocsp: Duration.default('1h'),
  responder: z.strictObject({ certificate: File, key: File }).optional(),
})

export interface StatusSettings {
  url: string
  former: string[]
  host: string
  port: number
  /** From thisUpdate to nextUpdate. */
  crlSeconds: number
  ocspSeconds: number
  /** PEM of an OCSP responder that the issuer appointed; null where the issuer answers. */
  responder: { certificate: string; key: string } | null
}

export function settleStatus(raw: z.infer<typeof StatusConfiguration> | undefined, files: FileReader): StatusSettings | null {
  if (raw === undefined) return null
  const seconds = (name: 'crl' | 'ocsp', least: number, most: number): number => {
    const text = raw[name]
    const value = Number(text.slice(0, -1)) * ({ m: 60, h: 3600, d: 86_400 }[text.slice(-1)] ?? 0)
    if (value < least || value > most)
      throw wrong(`${files.at(['status', name])} is ${text}`, `choose ${least / 60}m to ${most / 86_400}d`)
    return value
  }
  const { url, former, host, port, responder } = raw
  if (responder && (files.modeOf(resolve(files.base, responder.key)) & 0o077) !== 0)
    throw wrong(`${files.at(['status', 'responder', 'key'])}: ${responder.key} may be read by others`, `chmod 600 ${responder.key}`)
  return {
    ...{ url, former, host, port },
    // Below ten minutes consumers with clocks of their own refuse lists; beyond a month nobody notices a revocation.
    crlSeconds: seconds('crl', 600, 31 * 86_400),
    ocspSeconds: seconds('ocsp', 300, 7 * 86_400),
    responder: responder
      ? {
          certificate: files.read(['status', 'responder', 'certificate'], responder.certificate),
          key: files.read(['status', 'responder', 'key'], responder.key),
        }
      : null,
  }
}
