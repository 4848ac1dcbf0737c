// What a unit's identity looks like to the tool that writes it into the unit: PEM, DER, an `esp_secure_cert` image and its CSV, a CSV for
// NVS, commands for a PKCS#11 token or a TPM, a row for the label printer. Pure: names and contents; the caller writes them.

import { type Bytes, encodePem } from '@birthmark/device-sdk/core'
import { FactoryError } from './errors.ts'
import { type EspUnit, espCsv, espPartition } from './esp-secure-cert.ts'

export const unitFormats = ['pem', 'der', 'esp', 'esp-csv', 'nvs', 'pkcs11', 'tpm'] as const
export type UnitFormat = (typeof unitFormats)[number]

export interface UnitIdentity {
  serial: string
  certificate: Bytes
  chain: Bytes[]
  /** PKCS#8 DER of a key that the line made; null where it never left the device. */
  hostKey: Bytes | null
}

export interface UnitFile {
  name: string
  content: Bytes | string
  /** It holds a private key. */
  secret: boolean
}

/** `esp`: how the image is made. */
export function unitFile(
  format: UnitFormat,
  unit: UnitIdentity,
  esp: { encoding: 'pem' | 'der'; efuse: number | null } = { encoding: 'pem', efuse: null },
): UnitFile {
  const { serial, certificate, chain, hostKey } = unit
  // A colon is allowed in a serial and not in a file name everywhere.
  const base = serial.replaceAll(':', '_')
  switch (format) {
    case 'pem':
      return {
        name: `${base}.pem`,
        content: [certificate, ...chain].map(der => encodePem('CERTIFICATE', der)).join(''),
        secret: false,
      }
    case 'der':
      return { name: `${base}.der`, content: certificate, secret: false }
    case 'esp':
      return { name: `${base}.esp.bin`, content: espPartition(espUnit(unit, esp)), secret: hostKey !== null }
    case 'esp-csv':
      return { name: `${base}.esp.csv`, content: espCsv(espUnit(unit, esp)), secret: hostKey !== null }
    case 'nvs':
      return { name: `${base}.nvs.csv`, content: nvsCsv(unit), secret: hostKey !== null }
    case 'pkcs11':
      return { name: `${base}.pkcs11.sh`, content: pkcs11Commands(base), secret: false }
    case 'tpm':
      return { name: `${base}.tpm.sh`, content: tpmCommands(base, certificate.length), secret: false }
    default:
      throw new FactoryError('group_malformed', `format '${String(format)}'; known are ${unitFormats.join(', ')}`)
  }
}

function espUnit({ certificate, chain, hostKey }: UnitIdentity, esp: { encoding: 'pem' | 'der'; efuse: number | null }): EspUnit {
  const key: EspUnit['key'] = hostKey
    ? { kind: 'host', pkcs8: hostKey }
    : esp.efuse !== null
      ? { kind: 'efuse', id: esp.efuse }
      : { kind: 'absent' }
  return { certificate, chain, key, encoding: esp.encoding }
}

/** Input of Espressif's nvs_partition_gen.py: a namespace of blobs. Keys have at most 15 characters. */
function nvsCsv({ serial, certificate, chain, hostKey }: UnitIdentity): string {
  const blob = (key: string, bytes: Bytes): string => `${key},data,base64,${Buffer.from(bytes).toString('base64')}`
  const rows = ['key,type,encoding,value', 'birthmark,namespace,,', `serial,data,string,${serial}`, blob('birth.cert', certificate)]
  chain.forEach((der, i) => void rows.push(blob(`birth.ca.${i}`, der)))
  if (hostKey) rows.push(blob('birth.key', hostKey))
  return `${rows.join('\n')}\n`
}

function pkcs11Commands(base: string): string {
  return [
    '#!/bin/sh -e',
    '# The certificate beside its key, which was made in the token: the same id joins them. PKCS11_MODULE names the maker’s library; PKCS11_TOKEN the',
    '# token where there are several; PKCS11_PIN, in the environment, spares the question for it.',
    `tool() { pkcs11-tool --module "$PKCS11_MODULE" \${PKCS11_TOKEN:+--token-label "$PKCS11_TOKEN"} "$@"; }`,
    `tool --login \${PKCS11_PIN:+--pin env:PKCS11_PIN} --write-object ${base}.der --type cert --id 01 --label birth`,
    `tool --read-object --type cert --id 01 --output-file ${base}.readback.der`,
    `cmp ${base}.der ${base}.readback.der`,
    '',
  ].join('\n')
}

function tpmCommands(base: string, length: number): string {
  return [
    '#!/bin/sh -e',
    '# The certificate in the NV range that TCG sets aside for device identity (TPM 2.0 Keys for Device Identity and Attestation).',
    'NV_INDEX=0x01C90000',
    `tpm2_nvdefine "$NV_INDEX" -C o -s ${length} -a "ownerread|authread|ownerwrite"`,
    `tpm2_nvwrite "$NV_INDEX" -C o -i ${base}.der`,
    `tpm2_nvread "$NV_INDEX" -C o -s ${length} -o ${base}.readback.der`,
    `cmp ${base}.der ${base}.readback.der`,
    '',
  ].join('\n')
}

export const LABEL_HEADER = 'serial,sku,qr\n'

/** A label's row. The QR text ties the box to the key inside: serial and SHA-256 of the key, which the manifest has too. */
export function labelRow(serial: string, sku: string | null, spkiSha256: string): string {
  return `${serial},${sku ?? ''},birthmark:1:${serial}:${Buffer.from(spkiSha256, 'hex').toString('base64url')}\n`
}
