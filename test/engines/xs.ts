// Plays a recorded story to XS and reads off what it took. The machine is compiled by tools/xs.mjs; xs/host.c says how it is talked to.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Asked, hexOf, lifeScript, type Recorded } from './recorded.ts'
import { lives } from './story.ts'

const { ensureXsHost } = (await import(new URL('../../tools/xs.mjs', import.meta.url).href)) as {
  ensureXsHost(): Promise<string>
}

/** One call of a port, and what the engine had used when it called. */
export interface XsCall {
  asked: Asked
  /** Steps of the engine since its start: byte codes, and what built-in functions count for. */
  meter: number
  /** Slots and chunks beyond what the loaded scripts hold: now, and the most since the call before. */
  heapBytes: number
  peakBytes: number
  /** The deepest since then, from where the scripts were called. */
  stackSlots: number
}

/** Lines and byte strings of a pipe, in turns. */
class Incoming {
  #chunks: AsyncIterator<Buffer>
  #rest = Buffer.alloc(0)
  constructor(stream: AsyncIterable<Buffer>) {
    this.#chunks = stream[Symbol.asyncIterator]()
  }
  async #more(): Promise<boolean> {
    const { value, done } = await this.#chunks.next()
    if (!done) this.#rest = Buffer.concat([this.#rest, value])
    return !done
  }
  /** Null at the end. */
  async line(): Promise<string | null> {
    while (!this.#rest.includes(10)) if (!(await this.#more())) return null
    const end = this.#rest.indexOf(10)
    const line = this.#rest.subarray(0, end).toString()
    this.#rest = this.#rest.subarray(end + 1)
    return line
  }
  async bytes(length: number): Promise<Buffer> {
    while (this.#rest.length < length) if (!(await this.#more())) throw new Error('XS ended within a question')
    const bytes = this.#rest.subarray(0, length)
    this.#rest = this.#rest.subarray(length)
    return bytes
  }
}

// `lend` as the story knows it: with arrays in place of buffers.
const wrap = `
globalThis.ask = lend
globalThis.lend = function (name, text, one, two, three) {
  var answer = one === undefined ? ask(name, text) : two === undefined ? ask(name, text, one) : three === undefined ? ask(name, text, one, two) : ask(name, text, one, two, three)
  return answer && new Uint8Array(answer)
}
`

/** What the engine asked for, and had used when it did. */
export interface XsQuestion {
  name: string
  text: string
  bytes: Buffer[]
  used: Omit<XsCall, 'asked'>
}

/** Runs `files` on one machine, whose questions `answer` answers. Throws when they fail. */
async function run(heapMax: number, files: string[], answer: (question: XsQuestion) => Promise<Uint8Array | null>): Promise<void> {
  const child = spawn(await ensureXsHost(), [String(heapMax), ...files])
  const ended = once(child, 'close')
  let said = ''
  child.stderr.on('data', chunk => {
    said += chunk
  })
  child.stdin.on('error', () => {})
  const incoming = new Incoming(child.stdout)
  try {
    for (let line = await incoming.line(); line !== null; line = await incoming.line()) {
      const [name, text, meter, heap, peak, stack, ...lengths] = line.split('\t')
      const bytes: Buffer[] = []
      for (const length of lengths) bytes.push(await incoming.bytes(Number(length)))
      const used = { meter: Number(meter), heapBytes: Number(heap), peakBytes: Number(peak), stackSlots: Number(stack) }
      const answered = await answer({ name, text, bytes, used })
      child.stdin.write(answered ? `${answered.length}\n` : '-1\n')
      if (answered) child.stdin.write(answered)
    }
    const [status] = await ended
    if (status !== 0) throw new Error(said || `XS ended with ${status}`)
  } finally {
    child.stdin.end()
    await ended
  }
}

/** Runs one script; it lends with arrays (`lend(name, text, …)`), as a story does. */
export async function runOnXs(script: string, answer: (question: XsQuestion) => Promise<Uint8Array | null>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'xs-'))
  writeFileSync(join(folder, 'script.js'), `${wrap}loaded();\n${script}`)
  try {
    await run(0, [join(folder, 'script.js')], answer)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/**
 * Plays every life on a machine of its own. Throws where XS asks for anything but what is in the recording, fails, or needs more than
 * `heapBytesMax` of slots and chunks beyond the loaded scripts (0: no limit; −1: none, and the heap that is told is without garbage).
 */
export async function playOnXs({ bundles, story, given, transcript }: Recorded, heapBytesMax = 0): Promise<XsCall[][]> {
  const folder = mkdtempSync(join(tmpdir(), 'xs-'))
  const file = (name: string, text: string) => {
    const path = join(folder, name)
    writeFileSync(path, text)
    return path
  }
  try {
    const scripts = [file('bundles.js', bundles), file('story.js', story), file('lend.js', wrap)]
    const calls: XsCall[] = []
    const out: XsCall[][] = []
    for (let life = 0; life < lives; life++) {
      const from = calls.length
      const files = [...scripts, file('life.js', `loaded()${lifeScript(given, life)}`)]
      await run(heapBytesMax, files, async ({ name, text, bytes, used }) => {
        const asked = transcript[calls.length]
        const hex = bytes.map(hexOf)
        if (JSON.stringify([name, text, hex]) !== JSON.stringify(asked?.slice(0, 3)))
          throw new Error(`XS asked for ${name} ${text} ${hex} instead of ${asked}`)
        calls.push({ asked, ...used })
        return asked[3] === null ? null : Buffer.from(asked[3], 'hex')
      })
      out.push(calls.slice(from))
    }
    if (calls.length !== transcript.length) throw new Error('XS asked for less')
    return out
  } finally {
    rmSync(folder, { recursive: true })
  }
}
