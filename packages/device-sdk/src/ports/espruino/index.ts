// Espruino: an engine without elliptic curves, certificate checks or a cryptographic random source. Keys, signatures and randomness are those of a
// secure element (ATECC608 and its like); without one this port refuses to make keys. TLS is a gateway's, or a custom firmware's: the Http port is
// the board's own. Device subset. Run on Duktape with simulated peripherals; untested on hardware.

import type { GatewayLink } from '../../agent/gateway-http.ts'
import type { Clock, Hash, KeyStore, Rng, Store, Verify } from '../../agent/ports.ts'
import { streamLink } from '../../agent/stream-link.ts'
import { type Bytes, concatBytes, equalBytes } from '../../core/bytes.ts'
import { ecdsaDerOfRaw, ecdsaRawOfDer } from '../../core/cose.ts'
import { type DeviceErrorCode, deviceError } from '../../core/errors.ts'
import { pointOfSpki, spkiOfPoint } from '../../core/p256-spki.ts'

/** What a driver of the element offers. Points are x and y, 64 octets; signatures r and s, 64; digests 32. Throws when the element does not answer. */
export interface SecureElement {
  /** Makes a key in a slot whose key can't be read; its point. */
  generate(slot: number): Bytes
  /** Null: no key there. */
  publicKey(slot: number): Bytes | null
  sign(slot: number, digest: Bytes): Bytes
  verify(point: Bytes, digest: Bytes, signature: Bytes): boolean
  /** 32 octets. */
  random(): Bytes
}

/** `require('Storage')`: files in flash, of at most 28 characters' names. A file is replaced after the new one is written. */
export interface EspruinoStorage {
  readArrayBuffer(name: string): ArrayBuffer | undefined
  write(name: string, data: ArrayBuffer): boolean
  erase(name: string): void
}

/** Names of key slots and the element's numbers for them. The birth key's is locked on the line. */
export const elementSlots: { [slot: string]: number } = { birth: 0, 'op-0': 2, 'op-1': 3 }

/** `require('crypto').SHA256`, which is in C where the board has it. */
export function espruinoHash(sha256: (data: Bytes) => ArrayBuffer): Hash {
  return {
    sha256: function (bytes) {
      return new Uint8Array(sha256(bytes))
    },
  }
}

/** What `element` does or throws, as the end of a port's call. */
function attempt<T>(
  code: DeviceErrorCode,
  act: () => T,
  done: (error: ReturnType<typeof deviceError> | null, value: T | null) => void,
): void {
  let value: T
  try {
    value = act()
  } catch (error) {
    done(deviceError(code, String(error)), null)
    return
  }
  done(null, value)
}

export function elementKeys(element: SecureElement, hash: Hash): KeyStore {
  const spkiOf = function (point: Bytes): Bytes {
    return spkiOfPoint(concatBytes([new Uint8Array([4]), point]))
  }
  return {
    algorithm: 'ecdsa-sha256',
    generate: function (slot, done) {
      attempt(
        'key_unavailable',
        function () {
          // The birth key is the factory's; whoever asks for another is mistaken.
          if (!elementSlots[slot]) throw deviceError('key_unavailable', slot)
          return spkiOf(element.generate(elementSlots[slot]))
        },
        done,
      )
    },
    publicKey: function (slot, done) {
      attempt<Bytes | null>(
        'key_unavailable',
        function () {
          const point = element.publicKey(elementSlots[slot])
          return point ? spkiOf(point) : null
        },
        done,
      )
    },
    sign: function (slot, message, done) {
      attempt(
        'key_unavailable',
        function () {
          return ecdsaDerOfRaw(element.sign(elementSlots[slot], hash.sha256(message)))
        },
        done,
      )
    },
  }
}

/** Keys of a board without an element: there are none, and none are made. The engine's `Math.random` is no source for one. */
export function stockKeys(): KeyStore {
  return {
    algorithm: 'ecdsa-sha256',
    generate: function (_slot, done) {
      done(deviceError('random_unavailable', 'stock Espruino'), null)
    },
    publicKey: function (_slot, done) {
      done(null, null)
    },
    sign: function (_slot, _message, done) {
      done(deviceError('key_unavailable', 'stock Espruino'), null)
    },
  }
}

export function elementRng(element: SecureElement): Rng {
  return {
    random: function (length) {
      const parts: Bytes[] = []
      for (let left = length; left > 0; left -= 32) parts.push(element.random().subarray(0, Math.min(left, 32)))
      return concatBytes(parts)
    },
  }
}

/** P-256 alone; every other key and algorithm is not good. */
export function elementVerify(element: SecureElement, hash: Hash): Verify {
  return {
    verify: function (spki, algorithm, message, signature, done) {
      let good = false
      try {
        const point = algorithm === 'ecdsa-sha256' ? pointOfSpki(spki) : null
        good = point !== null && element.verify(point.subarray(1), hash.sha256(message), ecdsaRawOfDer(signature, 32)) === true
      } catch (_error) {
        good = false
      }
      done(good)
    },
  }
}

export function storageStore(storage: EspruinoStorage): Store {
  const get = function (name: string): Bytes | null {
    const found = storage.readArrayBuffer('bm.' + name)
    return found && found.byteLength ? new Uint8Array(found) : null
  }
  return {
    get: get,
    put: function (name, value) {
      const written = storage.write('bm.' + name, new Uint8Array(value).buffer)
      const kept = written ? get(name) : null
      if (!kept || !equalBytes(kept, value)) throw deviceError('store_write', name)
    },
    remove: function (name) {
      storage.erase('bm.' + name)
    },
  }
}

/** A UART, as `Serial1` is: what came is a string of a character an octet. */
export interface EspruinoSerial {
  write(data: Bytes): void
  on(event: 'data', callback: (data: string) => void): void
}

/** The line to a gateway, for `gatewayHttp`. */
export function serialLink(serial: EspruinoSerial, clock: Clock): GatewayLink {
  const link = streamLink(function (bytes) {
    serial.write(bytes)
  }, clock)
  serial.on('data', function (data) {
    const bytes = new Uint8Array(data.length)
    for (let i = 0; i < data.length; i++) bytes[i] = data.charCodeAt(i)
    link.receive(bytes)
  })
  return link
}

/** `now`: seconds since 1970, −1 until the clock was set. */
export function espruinoClock(
  timers: { setTimeout(callback: () => void, milliseconds: number): unknown; clearTimeout(timer: unknown): void },
  now: () => number,
): Clock {
  return {
    now: now,
    setTimer: function (seconds, callback) {
      const running = timers.setTimeout(callback, seconds * 1000)
      return function () {
        timers.clearTimeout(running)
      }
    },
  }
}
