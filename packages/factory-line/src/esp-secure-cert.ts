// The `esp_secure_cert` partition of Espressif's chips, byte for byte as the vendor's tool (esp-secure-cert-tool 2.6) writes it from a CSV: TLVs and
// the integrity TLV; erased flash after them ends the list. Promises nothing about where it is flashed: type 0x3F, at 0xD000 by default.
//
// A TLV: header of 12 bytes, little-endian (magic u32, flags u8, 3 reserved, type u8, subtype u8, length u16), data, zeros up to a
// multiple of 16, CRC-32 over all of that, started from 0xffffffff.

import { createPrivateKey, type KeyObject } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { type Bytes, encodePem } from '@birthmark/device-sdk/core'
import { FactoryError } from './errors.ts'
import { sha256 } from './signing-key.ts'

export const ESP_PARTITION_BYTES = 0x2000
const MAGIC = 0xba5eba11
const CA_CERTIFICATE = 0
const DEVICE_CERTIFICATE = 1
const PRIVATE_KEY = 2
const SECURITY_CONFIGURATION = 6
const INTEGRITY = 9
/** Flags bit 3: the key is in an eFuse block, and the chip's ECDSA peripheral signs with it. */
const ECDSA_PERIPHERAL = 1 << 3

export interface EspUnit {
  /** DER. */
  certificate: Bytes
  /** Issuing CA upwards, DER: written one after another as one CA certificate file, as the tool does. */
  chain: Bytes[]
  /**
   * Where the key is. `absent`: in the chip, and the firmware knows where. `efuse`: eFuse key number 0 to 5. `host`: here, PKCS#8 DER, made
   * on the line and written into flash in the clear.
   */
  key: { kind: 'absent' } | { kind: 'efuse'; id: number } | { kind: 'host'; pkcs8: Bytes }
  /** How certificates and key are stored: PEM is what most firmware expects, DER is smaller. */
  encoding: 'pem' | 'der'
}

function tlv(type: number, flags: number, data: Bytes): Bytes {
  if (data.length > 0xffff) throw new FactoryError('image_too_large', `a TLV of ${data.length} bytes does not exist`)
  const padded = Math.ceil(data.length / 16) * 16
  const bytes = Buffer.alloc(12 + padded + 4)
  bytes.writeUInt32LE(MAGIC, 0)
  bytes[4] = flags
  bytes[8] = type
  bytes.writeUInt16LE(data.length, 10)
  bytes.set(data, 12)
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 12 + padded), 0xffffffff), 12 + padded)
  return bytes
}

/** The image, to be flashed at the start of the erased partition. Throws `image_too_large` beyond 8 KiB. */
export function espPartition(unit: EspUnit): Bytes {
  const parts: Bytes[] = []
  for (const { type, flags, data } of fieldsOf(unit)) parts.push(tlv(type, flags, data))
  parts.push(tlv(INTEGRITY, 0, sha256(Buffer.concat(parts))))
  const image = Buffer.concat(parts)
  if (image.length > ESP_PARTITION_BYTES)
    throw new FactoryError(
      'image_too_large',
      `${image.length} bytes; the partition has ${ESP_PARTITION_BYTES}: use DER, or P-256 keys`,
    )
  return image
}

interface Field {
  type: number
  flags: number
  data: Bytes
}

function fieldsOf({ certificate, chain, key, encoding }: EspUnit): Field[] {
  // The tool ends PEM with a NUL, since mbedTLS wants it counted.
  const stored = (label: string, ders: Bytes[]): Bytes =>
    encoding === 'der' ? Buffer.concat(ders) : Buffer.from(`${ders.map(der => encodePem(label, der)).join('')}\0`)
  const fields: Field[] = []
  if (key.kind === 'efuse') {
    if (!Number.isInteger(key.id) || key.id < 0 || key.id > 5)
      throw new FactoryError('key_refused', `eFuse key ${key.id}; 0 to 5 exist`)
    // eFuse key n is block n + 4; 39 bytes are reserved. The tool writes it before everything that its CSV lists.
    const configuration = new Uint8Array(40)
    configuration[0] = key.id + 4
    fields.push({ type: SECURITY_CONFIGURATION, flags: 0, data: configuration })
  }
  if (chain.length) fields.push({ type: CA_CERTIFICATE, flags: 0, data: stored('CERTIFICATE', chain) })
  fields.push({ type: DEVICE_CERTIFICATE, flags: 0, data: stored('CERTIFICATE', [certificate]) })
  if (key.kind === 'host') {
    // As the tool stores keys: SEC 1 or PKCS #1, whatever they came as.
    const made = privateKeyOf(key.pkcs8)
    const type = made.asymmetricKeyType === 'rsa' ? 'pkcs1' : 'sec1'
    const data =
      encoding === 'der' ? made.export({ type, format: 'der' }) : Buffer.from(`${made.export({ type, format: 'pem' }) as string}\0`)
    fields.push({ type: PRIVATE_KEY, flags: 0, data })
  }
  if (key.kind === 'efuse') fields.push({ type: PRIVATE_KEY, flags: ECDSA_PERIPHERAL, data: new Uint8Array(0) })
  return fields
}

/** The chips sign with ECDSA and RSA. Throws `key_refused` for anything else. */
function privateKeyOf(pkcs8: Bytes): KeyObject {
  const key = createPrivateKey({ key: Buffer.from(pkcs8), format: 'der', type: 'pkcs8' })
  if (key.asymmetricKeyType !== 'ec' && key.asymmetricKeyType !== 'rsa')
    throw new FactoryError('key_refused', `esp_secure_cert has no place for keys of type ${key.asymmetricKeyType}; use P-256`)
  return key
}

const CSV_HEADER = 'tlv_type,tlv_subtype,data_value,data_type,priv_key_type,algorithm,key_size,efuse_id,efuse_key'

/**
 * The same as input of the vendor's `configure_esp_secure_cert.py --esp_secure_cert_csv`, for whoever lets that tool make the image or burn
 * the fuses. Self-contained: certificates as base64 of what is stored.
 */
export function espCsv(unit: EspUnit): string {
  const encoded = (label: string, ders: Bytes[]): string =>
    Buffer.from(unit.encoding === 'der' ? Buffer.concat(ders) : ders.map(der => encodePem(label, der)).join('')).toString('base64')
  const rows = [CSV_HEADER]
  if (unit.chain.length) rows.push(`ESP_SECURE_CERT_CA_CERT_TLV,0,${encoded('CERTIFICATE', unit.chain)},base64,,,,,`)
  rows.push(`ESP_SECURE_CERT_DEV_CERT_TLV,0,${encoded('CERTIFICATE', [unit.certificate])},base64,,,,,`)
  if (unit.key.kind === 'host') {
    const key = privateKeyOf(unit.key.pkcs8)
    const rsa = key.asymmetricKeyDetails?.modulusLength
    const kind = rsa ? `RSA,${rsa}` : `ECDSA,${key.asymmetricKeyDetails?.namedCurve === 'secp384r1' ? 384 : 256}`
    rows.push(`ESP_SECURE_CERT_PRIV_KEY_TLV,0,${encoded('PRIVATE KEY', [unit.key.pkcs8])},base64,plaintext,${kind},,`)
  }
  return `${rows.join('\n')}\n`
}
