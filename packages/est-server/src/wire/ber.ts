// BER to DER, once, before the strict reader sees anything. SCEP's clients on Java write indefinite lengths and octet strings in pieces
// (X.690 8.1.3.6, 8.7.3); everything else of BER is refused here or by the reader. What was DER stays the very same bytes, so that what is
// signed inside is verified as it was received.

import { type Bytes, concatBytes, encodeElement, OCTET_STRING } from '@birthmark/device-sdk/core'
import { CmsError } from './cms-error.ts'

/** A SCEP message nests 12 deep where its names and algorithms are deepest; certificates inside are 8 more. */
const depthMax = 32
/** A renewal with three certificates has about 500 elements. An octet string of 64 KB in pieces of 1,000 octets has 66. */
const elementsMax = 4096

const OCTET_STRING_IN_PIECES = 0x20 | OCTET_STRING
const INDEFINITE = -1

interface Head {
  tag: number
  content: number
  /** INDEFINITE, or where the element ends. */
  end: number
  /** Whether the length is spelt as DER spells it. */
  minimal: boolean
}

const malformed = (at: number) => new CmsError('cms_malformed', `BER at ${at}`)

function readHead(bytes: Bytes, at: number, end: number): Head {
  if (at + 2 > end) throw malformed(at)
  const tag = bytes[at]
  // High tag numbers occur in no message of ours.
  if ((tag & 31) === 31) throw malformed(at)
  const first = bytes[at + 1]
  if (first === 0x80) {
    if ((tag & 0x20) === 0) throw malformed(at)
    return { tag, content: at + 2, end: INDEFINITE, minimal: false }
  }
  let length = first
  let content = at + 2
  if (first > 0x80) {
    const octets = first & 0x7f
    if (octets > 4 || content + octets > end) throw malformed(at)
    length = 0
    for (let i = 0; i < octets; i++) length = length * 256 + bytes[content++]
  }
  if (content + length > end) throw malformed(at)
  const size = length < 0x80 ? 2 : length < 0x100 ? 3 : length < 0x10000 ? 4 : 5
  return { tag, content, end: content + length, minimal: content - at === size }
}

/** Whether nothing has to be changed: no indefinite or long-winded length, no octet string in pieces. */
function isDefinite(bytes: Bytes): boolean {
  const ends: number[] = [bytes.length]
  let at = 0
  for (let elements = 0; elements < elementsMax; elements++) {
    while (ends.length > 0 && at === ends[ends.length - 1]) ends.pop()
    if (ends.length === 0) return true
    const head = readHead(bytes, at, ends[ends.length - 1])
    if (!head.minimal || head.tag === OCTET_STRING_IN_PIECES) return false
    at = head.end
    if ((head.tag & 0x20) !== 0) {
      if (ends.length > depthMax) throw malformed(at)
      ends.push(head.end)
      at = head.content
    }
  }
  throw new CmsError('cms_malformed', `more than ${elementsMax} elements`)
}

/** `bytes` as DER in its lengths and octet strings. Throws `cms_malformed` for what is no BER, is too deep or has too many elements. */
export function derOfBer(bytes: Bytes): Bytes {
  if (bytes.length === 0) throw malformed(0)
  if (isDefinite(bytes)) return bytes
  let elements = 0

  function convert(start: number, end: number, depth: number): { der: Bytes; end: number } {
    if (depth > depthMax || ++elements > elementsMax) throw malformed(start)
    const head = readHead(bytes, start, end)
    if ((head.tag & 0x20) === 0) {
      const content = bytes.subarray(head.content, head.end)
      return { der: head.minimal ? bytes.subarray(start, head.end) : encodeElement(head.tag, [content]), end: head.end }
    }
    const parts: Bytes[] = []
    const limit = head.end === INDEFINITE ? end : head.end
    let at = head.content
    for (;;) {
      if (head.end === INDEFINITE) {
        if (at + 2 > limit) throw malformed(at)
        // End of contents (8.1.5).
        if (bytes[at] === 0 && bytes[at + 1] === 0) {
          at += 2
          break
        }
      } else if (at === limit) break
      const part = convert(at, limit, depth + 1)
      parts.push(part.der)
      at = part.end
    }
    if (head.tag !== OCTET_STRING_IN_PIECES) return { der: encodeElement(head.tag, parts), end: at }
    return { der: encodeElement(OCTET_STRING, [joinedOctets(parts)]), end: at }
  }

  const whole = convert(0, bytes.length, 0)
  if (whole.end !== bytes.length) throw malformed(whole.end)
  return whole.der
}

/** The octets of an octet string's pieces, each a DER OCTET STRING. */
export function joinedOctets(pieces: Bytes[]): Bytes {
  const octets = pieces.map(piece => {
    const head = readHead(piece, 0, piece.length)
    if (head.tag !== OCTET_STRING) throw malformed(0)
    return piece.subarray(head.content, head.end)
  })
  return concatBytes(octets)
}
