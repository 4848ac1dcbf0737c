// What is used of Moddable's modules, as they declare themselves in its documentation: the firmware imports them and hands them in, so that this
// port type-checks and runs without the Moddable SDK, and a test hands in others.

/** `crypt`, `curve` and `ecdsa`. */
export interface ModdableCrypto {
  Digest: new (type: 'SHA256') => { write(data: ArrayBuffer | Uint8Array): void; close(): ArrayBuffer }
  Curve: new (name: 'secp256r1') => ModdableCurve
  ECDSA: new (key: bigint, curve: ModdableCurve) => { sign(hash: ArrayBuffer, der: true): ArrayBuffer }
  /**
   * `length` octets of the chip's hardware source (`esp_fill_random`, with radio or bootloader entropy on). Moddable's own `rng` is a
   * generator seeded from the clock, and is not asked.
   */
  entropy(length: number): ArrayBuffer
}

export interface ModdableCurve {
  /** The secret number of the next signature. Where it is set, ECDSA takes it in place of one from `rng`. */
  k?: bigint
  /** The uncompressed point, 65 octets, of a private key of 32. */
  dh(key: ArrayBuffer): ArrayBuffer
}

/** `preference`: non-volatile storage, NVS on an ESP32. A name has at most 15 characters. */
export interface ModdablePreference {
  set(domain: string, key: string, value: ArrayBuffer): void
  get(domain: string, key: string): unknown
  delete(domain: string, key: string): void
}

export interface ModdableRequest {
  read(count: number): ArrayBuffer | undefined
  write(data: ArrayBuffer | Uint8Array): number
}

/** ECMA-419's HTTP client, `device.network.https.io` or `embedded:network/http/client`. */
export interface ModdableHttpClient {
  request(options: {
    method: string
    path: string
    headers: Map<string, string>
    onHeaders(this: ModdableRequest, status: number, headers: Map<string, string>): void
    onReadable(this: ModdableRequest, count: number): void
    onWritable(this: ModdableRequest, count: number): void
    onDone(this: ModdableRequest, error: unknown): void
  }): void
  close(): void
}

/** `timer`. */
export interface ModdableTimer {
  set(callback: () => void, milliseconds: number): unknown
  clear(timer: unknown): void
}
