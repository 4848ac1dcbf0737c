// ECMA-419's TLS socket over Moddable's TLS session. Whatever goes wrong, an alert included, ends in `onError` and a closed connection: nothing
// is thrown into the engine's event loop, and nothing of the application leaves, or is taken, before the handshake is over.

import type { ModdableTimer } from './modules.ts'
import type { ModdableTcp, ModdableTlsSession, ModdableTlsSessions } from './tls-modules.ts'

/** What HTTP and MQTT clients pass on to their socket. */
export interface ModdableTlsSocketOptions {
  host: string
  /** The options of a session: `moddableTls` makes them. */
  secure: object
  TCP: { io: new (options: object) => ModdableTcp & { read(into: Uint8Array): unknown; write(data: Uint8Array): number } }
  onReadable?(count: number): void
  onWritable?(count: number): void
  onError?(error?: unknown): void
}

/** Header, nonce and tag of a record, and of an alert after it. */
const recordOverhead = 96
const SERVER_HELLO_DONE = 14
const FINISHED = 20
const TLS_1_2 = 0x303

type Data = ArrayBuffer | Uint8Array

export interface ModdableTlsSocket {
  /** `number` or `buffer`. */
  format: string
  /** One octet where the format is `number`; otherwise as much as there is, up to a count or into a buffer. */
  read(wanted?: number | Data): number | ArrayBuffer | undefined
  /** How much may be written next. Throws before the handshake is over. */
  write(data: Data, options?: object): number
  close(): void
}

/** `Session`: Moddable's `ssl/session`. The class to pass as `socket: { io }`. */
export function moddableTlsSocket(
  Session: ModdableTlsSessions,
  timer: ModdableTimer,
): new (
  options: ModdableTlsSocketOptions,
) => ModdableTlsSocket {
  return class TlsSocket implements ModdableTlsSocket {
    #tcp: ModdableTcp | null = null
    #session: ModdableTlsSession
    #options: ModdableTlsSocketOptions
    #ready = false
    #reading = false
    #data = new Uint8Array(0)
    #numbers = false
    #later: unknown = null

    constructor(options: ModdableTlsSocketOptions) {
      this.#options = options
      this.#session = new Session({ serverName: options.host, ...options.secure, protocolVersion: TLS_1_2 })
      this.#session.initiateHandshake()
      const tcp = new options.TCP.io({
        ...options,
        onReadable: (count: number) => this.#turn(open => this.#onReadable(open, count)),
        onWritable: (count: number) => this.#turn(open => this.#onWritable(open, count)),
        onError: () => this.#fail(),
      })
      tcp.readable = 0
      tcp.writable = 0
      this.#tcp = tcp
    }

    close(): void {
      timer.clear(this.#later)
      this.#tcp?.close()
      this.#tcp = null
    }

    set format(format: string) {
      this.#numbers = format === 'number'
    }
    get format(): string {
      return this.#numbers ? 'number' : 'buffer'
    }

    read(wanted?: number | Data): number | ArrayBuffer | undefined {
      const length = this.#numbers
        ? 1
        : wanted === undefined
          ? this.#data.length
          : typeof wanted === 'number'
            ? wanted
            : wanted.byteLength
      const part = this.#data.slice(0, length)
      this.#data = this.#data.subarray(part.length)
      if (!this.#data.length && this.#tcp?.readable && !this.#reading)
        this.#later ??= timer.set(() => {
          this.#later = null
          this.#turn(open => this.#hear(open))
        }, 0)
      if (!part.length) return undefined
      if (this.#numbers) return part[0]
      if (wanted === undefined || typeof wanted === 'number') return part.buffer
      const into = ArrayBuffer.isView(wanted)
        ? new Uint8Array(wanted.buffer, wanted.byteOffset, wanted.byteLength)
        : new Uint8Array(wanted)
      into.set(part)
      return part.length
    }

    write(data: Data, options?: object): number {
      if (!this.#ready || !this.#tcp) throw new Error('TLS is not open')
      return this.#session.write(this.#tcp, data, options)
    }

    /** Runs one event to its end while there is a connection. */
    #turn(act: (open: ModdableTcp) => void): void {
      try {
        if (this.#tcp) act(this.#tcp)
      } catch (error) {
        this.#fail(error)
      }
    }

    #fail(error?: unknown): void {
      const told = this.#tcp !== null
      this.close()
      if (told) this.#options.onError?.(error)
    }

    #onWritable(tcp: ModdableTcp, count: number): void {
      tcp.writable = count
      if (!this.#ready) this.#shakeHands(tcp)
      else if (count > recordOverhead) this.#options.onWritable?.(count - recordOverhead)
    }

    #onReadable(tcp: ModdableTcp, count: number): void {
      tcp.readable = count
      if (!this.#ready) this.#shakeHands(tcp)
      if (this.#ready) this.#hear(tcp)
    }

    #shakeHands(tcp: ModdableTcp): void {
      const session = this.#session
      do {
        this.#ready = session.handshake(tcp)
        // Moddable ends a handshake that came to an alert as it ends a good one.
        if (session.alert) throw new Error('TLS alert')
        // RFC 5246 7.4.9: application data only after the other side's Finished, whose step reads nothing behind it. Moddable keeps what came earlier.
        if (session.applicationData !== undefined) throw new Error('TLS: application data in the handshake')
      } while (
        !this.#ready &&
        (tcp.readable > 0 || session.handshakeProcess === SERVER_HELLO_DONE || session.handshakeProcess === FINISHED)
      )
      if (this.#ready) this.#onWritable(tcp, tcp.writable)
    }

    /** Hands on what has come, a record at a time, for as long as it is taken. */
    #hear(tcp: ModdableTcp): void {
      if (this.#reading) return
      this.#reading = true
      try {
        while (this.#tcp && !this.#data.length && tcp.readable > 0) {
          const data = this.#session.read(tcp)
          if (data === undefined) break
          if (data === null) throw new Error('TLS was ended by the peer')
          this.#data = data as Uint8Array<ArrayBuffer>
          if (data.length) this.#options.onReadable?.(data.length)
        }
      } finally {
        this.#reading = false
      }
    }
  }
}
