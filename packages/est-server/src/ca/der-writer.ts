// DER written from its end to its front, into one buffer: by the time an element's header is due its length is known, and no level is copied
// into the next. For the hot path alone; everything else uses the core's encoder, which is easier to read.

import type { Bytes } from '@birthmark/device-sdk/core'

/** The longest TBSCertificate: an RSA-4096 key and an issuer name of some lines leave most of it free. Writing beyond throws RangeError. */
const certificateBytesMax = 8192

export interface DerWriter {
  /** Puts whole bytes in front of what was written so far. */
  put(bytes: Bytes): void
  /** Puts ASCII text in front. Its characters must be below 0x80: the caller has seen to that. */
  text(ascii: string): void
  /** Where the content of an element ends: hand it to `wrap` when its content was written. */
  mark(): number
  /** Puts the header of an element whose content is everything written since `end` was marked. */
  wrap(tag: number, end: number): void
  /** A copy of what was written; the writer is empty again. */
  take(): Bytes
}

/** `bytesMax`: room for the longest element it will write. */
export function derWriter(bytesMax: number = certificateBytesMax): DerWriter {
  const buffer = new Uint8Array(bytesMax)
  let at = bytesMax
  const room = (bytes: number) => {
    if (bytes > at) {
      at = bytesMax
      throw new RangeError(`DER of more than ${bytesMax} bytes`)
    }
    at -= bytes
  }
  return {
    put(bytes) {
      room(bytes.length)
      buffer.set(bytes, at)
    },
    text(ascii) {
      room(ascii.length)
      for (let i = 0; i < ascii.length; i++) buffer[at + i] = ascii.charCodeAt(i)
    },
    mark: () => at,
    wrap(tag, end) {
      const length = end - at
      if (length < 0x80) {
        room(2)
        buffer[at + 1] = length
      } else if (length < 0x100) {
        room(3)
        buffer[at + 1] = 0x81
        buffer[at + 2] = length
      } else {
        room(4)
        buffer[at + 1] = 0x82
        buffer[at + 2] = length >> 8
        buffer[at + 3] = length & 0xff
      }
      buffer[at] = tag
    },
    take() {
      const out = buffer.slice(at)
      at = bytesMax
      return out
    },
  }
}
