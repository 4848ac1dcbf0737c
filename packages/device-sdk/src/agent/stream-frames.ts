// Messages on a line of bytes that may lose, change or insert some (a UART, a radio): CBOR between ends of frame as SLIP has them (RFC 1055). What does not
// read as a message is dropped and the next end begins anew, so that noise costs one message. Who speaks on the line, nobody can tell: what the messages
// carry is signed. Device subset.

import type { Bytes } from '../core/bytes.ts'
import { type CborValue, decodeCbor, encodeCbor } from '../core/cbor.ts'

const END = 0xc0
const ESCAPE = 0xdb
const ESCAPED_END = 0xdc
const ESCAPED_ESCAPE = 0xdd

/** An array of an array of headers, at most 8 of two texts each. */
const frameLimits = { depthMax: 3, itemsMax: 24 }

export function encodeFrame(message: CborValue): Bytes {
  const bytes = encodeCbor(message)
  let escapes = 0
  for (let i = 0; i < bytes.length; i++) if (bytes[i] === END || bytes[i] === ESCAPE) escapes++
  const out = new Uint8Array(bytes.length + escapes + 2)
  let at = 1
  for (let i = 0; i < bytes.length; i++) {
    const octet = bytes[i]
    if (octet === END || octet === ESCAPE) {
      out[at++] = ESCAPE
      out[at++] = octet === END ? ESCAPED_END : ESCAPED_ESCAPE
    } else out[at++] = octet
  }
  out[0] = out[at] = END
  return out
}

/** Takes bytes as they come, and calls `onMessage` within that call for each whole message. Frames beyond `frameBytesMax` are dropped. */
export function frameReader(frameBytesMax: number, onMessage: (message: CborValue) => void): (bytes: Bytes) => void {
  let kept = new Uint8Array(128)
  let length = 0
  let escaping = false
  let broken = false
  const put = (octet: number): void => {
    if (length >= frameBytesMax) broken = true
    else {
      if (length === kept.length) {
        const longer = new Uint8Array(2 * length)
        longer.set(kept)
        kept = longer
      }
      kept[length++] = octet
    }
  }
  const ended = (): void => {
    const frame = broken || escaping || !length ? null : kept.subarray(0, length)
    // Not used again: the message is made of views on it.
    kept = new Uint8Array(128)
    length = 0
    escaping = broken = false
    if (!frame) return
    let message: CborValue
    try {
      message = decodeCbor(frame, frameLimits)
    } catch (_error) {
      return
    }
    onMessage(message)
  }
  return bytes => {
    for (let i = 0; i < bytes.length; i++) {
      const octet = bytes[i]
      if (octet === END) ended()
      else if (escaping) {
        escaping = false
        if (octet === ESCAPED_END || octet === ESCAPED_ESCAPE) put(octet === ESCAPED_END ? END : ESCAPE)
        else broken = true
      } else if (octet === ESCAPE) escaping = true
      else put(octet)
    }
  }
}
