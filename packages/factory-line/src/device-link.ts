// How a station talks to a device over a line of bytes: a UART, USB-CDC, a pipe. A protocol of ours, small enough for a boot loader.
//
//   frame    = "BM" version(1) type(1) length(u16, big-endian) payload CRC-32(u32, big-endian, over everything before it)
//   station  → HELLO                                   device  → HELLO serial
//   station  → REQUEST serial                          device  → CSR (DER; the device makes its key now, or has it)
//   station  → WRITE certificates (DER, one after another)  device  → WRITTEN
//   station  → READ challenge (32 bytes)               device  → HELD length(u16) certificate algorithm-length(u8) algorithm signature
//   either   → ERROR text
//
// Promises that noise between frames and a boot log before the first are skipped, a broken frame is asked for again, and a silent device is given up.

import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { crc32 } from 'node:zlib'
import { type Bytes, concatBytes, parseCertificate } from '@birthmark/device-sdk/core'
import type { DeviceKey } from './birth-request.ts'
import { birthRequest } from './birth-request.ts'
import { FactoryError } from './errors.ts'
import type { Readback } from './station.ts'

export const HELLO = 1
export const REQUEST = 2
export const CSR = 3
export const WRITE = 4
export const WRITTEN = 5
export const READ = 6
export const HELD = 7
export const ERROR = 8

const VERSION = 1
// A chain of two ML-DSA-65 certificates has about 11 KB.
export const framePayloadMax = 16_384
// What a device may say before its first frame: a boot log.
const noiseMax = 65_536
const HEAD = 6

export interface Frame {
  type: number
  payload: Bytes
}

export function encodeFrame(type: number, payload: Bytes): Bytes {
  const bytes = Buffer.alloc(HEAD + payload.length + 4)
  bytes.write('BM', 'latin1')
  bytes[2] = VERSION
  bytes[3] = type
  bytes.writeUInt16BE(payload.length, 4)
  bytes.set(payload, HEAD)
  bytes.writeUInt32BE(crc32(bytes.subarray(0, HEAD + payload.length)), HEAD + payload.length)
  return bytes
}

/** Feeds on bytes, gives frames. What is no frame, or a broken one, is skipped from its first byte. */
export function frameReader(): (bytes: Bytes) => Frame[] {
  let rest = Buffer.alloc(0)
  return bytes => {
    rest = Buffer.concat([rest, bytes])
    const frames: Frame[] = []
    for (;;) {
      const at = rest.indexOf('BM', 0, 'latin1')
      if (at < 0) {
        rest = rest.subarray(rest[rest.length - 1] === 0x42 ? -1 : rest.length)
        return frames
      }
      rest = rest.subarray(at)
      if (rest.length < HEAD) return frames
      const length = rest.readUInt16BE(4)
      if (rest[2] !== VERSION || length > framePayloadMax) {
        rest = rest.subarray(2)
        continue
      }
      if (rest.length < HEAD + length + 4) return frames
      if (rest.readUInt32BE(HEAD + length) !== crc32(rest.subarray(0, HEAD + length))) {
        rest = rest.subarray(2)
        continue
      }
      frames.push({ type: rest[3], payload: new Uint8Array(rest.subarray(HEAD, HEAD + length)) })
      rest = rest.subarray(HEAD + length + 4)
    }
  }
}

export interface DeviceLink {
  /** The serial that the device says it has; empty when it has none yet. */
  hello(): Promise<string>
  request(serial: string): Promise<Bytes>
  write(certificates: Bytes[]): Promise<void>
  readback(): Promise<Readback>
  close(): void
}

/** Throws `device_silent` when no answer comes in `timeoutMs`, three times over. */
export function openDeviceLink(stream: Duplex, timeoutMs = 5000, random: (n: number) => Bytes = randomBytes): DeviceLink {
  const read = frameReader()
  let waiting: ((frame: Frame) => void) | null = null
  let heard = 0
  stream.on('data', (bytes: Buffer) => {
    heard += bytes.length
    if (heard > noiseMax) stream.destroy()
    for (const frame of read(bytes)) {
      heard = 0
      waiting?.(frame)
    }
  })
  stream.on('error', () => {})

  const ask = async (type: number, payload: Bytes, answer: number): Promise<Bytes> => {
    for (let attempt = 0; attempt < 3; attempt++) {
      const frame = await new Promise<Frame | null>(resolve => {
        const timer = setTimeout(() => resolve(null), timeoutMs)
        waiting = each => {
          // An answer to an earlier attempt may come late: only the kind that was asked for counts.
          if (each.type !== answer && each.type !== ERROR) return
          clearTimeout(timer)
          resolve(each)
        }
        stream.write(encodeFrame(type, payload))
      })
      waiting = null
      if (frame?.type === ERROR) throw new FactoryError('device_silent', `the device says: ${printable(frame.payload)}`)
      if (frame) return frame.payload
    }
    throw new FactoryError('device_silent', `the device did not answer ${NAMES[type]}`)
  }

  return {
    hello: async () => printable(await ask(HELLO, new Uint8Array(0), HELLO)),
    request: serial => ask(REQUEST, Buffer.from(serial), CSR),
    async write(certificates) {
      await ask(WRITE, concatBytes(certificates), WRITTEN)
    },
    async readback() {
      const challenge = concatBytes([Buffer.from('birthmark-readback/1\n'), random(32)])
      const answer = Buffer.from(await ask(READ, challenge, HELD))
      const bad = new FactoryError('readback_mismatch', 'the answer to READ is malformed')
      if (answer.length < 3) throw bad
      const end = 2 + answer.readUInt16BE(0)
      if (end >= answer.length) throw bad
      const algorithmEnd = end + 1 + answer[end]
      return {
        certificate: new Uint8Array(answer.subarray(2, end)),
        proof: {
          challenge,
          algorithm: answer.toString('latin1', end + 1, algorithmEnd),
          signature: new Uint8Array(answer.subarray(algorithmEnd)),
        },
      }
    },
    close: () => void stream.destroy(),
  }
}

const NAMES: Record<number, string> = { [HELLO]: 'HELLO', [REQUEST]: 'REQUEST', [WRITE]: 'WRITE', [READ]: 'READ' }

function printable(bytes: Bytes): string {
  return Buffer.from(bytes.subarray(0, 100))
    .toString('latin1')
    .replace(/[^\x20-\x7e]/g, '?')
}

/**
 * The other end: a device that makes a key, keeps what it is given and proves it. For tests and for trying a line without hardware.
 * `key` makes the key when it is first asked for.
 */
export function simulateDevice(stream: Duplex, key: () => DeviceKey, faults: { forgets?: boolean; bootLog?: string } = {}): void {
  const read = frameReader()
  let own: DeviceKey | null = null
  let held: Bytes = new Uint8Array(0)
  if (faults.bootLog) stream.write(faults.bootLog)
  const answer = async ({ type, payload }: Frame): Promise<Bytes> => {
    if (type === HELLO) return encodeFrame(HELLO, new Uint8Array(0))
    own ??= key()
    if (type === REQUEST) return encodeFrame(CSR, await birthRequest(Buffer.from(payload).toString(), own))
    if (type === WRITE) {
      // The first of the certificates is its own.
      const own1 = payload.subarray(0, derLength(payload))
      if (!faults.forgets) held = parseCertificate(own1).der
      return encodeFrame(WRITTEN, new Uint8Array(0))
    }
    if (type === READ) {
      const length = Buffer.alloc(2)
      length.writeUInt16BE(held.length)
      const algorithm = Buffer.from(own.algorithm)
      return encodeFrame(HELD, concatBytes([length, held, Uint8Array.of(algorithm.length), algorithm, await own.sign(payload)]))
    }
    return encodeFrame(ERROR, Buffer.from('unknown frame'))
  }
  stream.on('error', () => {})
  stream.on('data', (bytes: Buffer) => {
    for (const frame of read(bytes)) void answer(frame).then(reply => stream.write(reply))
  })
}

function derLength(bytes: Bytes): number {
  const octets = bytes[1] & 0x7f
  if (bytes[1] < 0x80) return 2 + bytes[1]
  let length = 0
  for (let i = 0; i < octets; i++) length = length * 256 + bytes[2 + i]
  return 2 + octets + length
}
