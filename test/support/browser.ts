// A real browser, Debian's Chromium without a window, spoken to by the DevTools protocol over two pipes: opens a page at a width, by day or
// by night, says what it asked the network for and what it complained about, and takes a picture for whoever wants to look.

import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'

export interface View {
  width: number
  height: number
  scheme: 'light' | 'dark'
}

export interface Page {
  /** The value of an expression in the page, as JSON carries it. */
  value<T>(expression: string): Promise<T>
  /** URLs that the page asked for besides itself. */
  requests: string[]
  /** What stands in the console, and errors that nobody caught. */
  complaints: string[]
  /** The whole page, not only what is in view. */
  picture(file: string): Promise<void>
}

export interface Browser {
  /** A tab of its own; resolves when the page has loaded. */
  open(url: string, view: View): Promise<Page>
  close(): Promise<void>
}

type Message = { id?: number; method?: string; sessionId?: string; params?: never; result?: never; error?: { message: string } }

export async function openBrowser(): Promise<Browser> {
  const profile = mkdtempSync(join(tmpdir(), 'bm-browser-'))
  // Chromium's sandbox does not start as root; what is opened here are pages of our own.
  const flags = ['--remote-debugging-pipe', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', `--user-data-dir=${profile}`]
  // Debian's command is a shell around the browser: a process group, so that both can be ended.
  const child = spawn('chromium-headless-shell', flags, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'], detached: true })
  const ended = new Promise<void>(resolve => child.once('close', () => resolve()))
  const failed = new Promise<never>((_, reject) => {
    child.once('error', reject)
    child.once('exit', code => reject(new Error(`the browser ended with ${code}`)))
  })
  failed.catch(() => {})
  const [, , , to, from] = child.stdio as unknown as [null, null, null, Writable, Readable]
  to.on('error', () => {})
  const answers = new Map<number, (message: Message) => void>()
  const listeners = new Set<(message: Message) => void>()
  let rest = ''
  from.on('data', (part: Buffer) => {
    const texts = (rest + part.toString('utf8')).split('\0')
    rest = texts.pop() ?? ''
    for (const text of texts) {
      const message = JSON.parse(text) as Message
      if (message.id !== undefined) answers.get(message.id)?.(message)
      else for (const listener of listeners) listener(message)
    }
  })
  let last = 0
  const ask = <T>(method: string, params: object = {}, sessionId?: string): Promise<T> => {
    const id = ++last
    const answer = new Promise<T>((resolve, reject) =>
      answers.set(id, ({ result, error }) => {
        answers.delete(id)
        if (error) reject(new Error(`${method}: ${error.message}`))
        else resolve(result as T)
      }),
    )
    to.write(`${JSON.stringify({ id, method, params, sessionId })}\0`)
    return Promise.race([answer, failed])
  }

  return {
    async open(url, { width, height, scheme }) {
      const { targetId } = await ask<{ targetId: string }>('Target.createTarget', { url: 'about:blank' })
      const { sessionId } = await ask<{ sessionId: string }>('Target.attachToTarget', { targetId, flatten: true })
      const tell = <T>(method: string, params?: object): Promise<T> => ask<T>(method, params, sessionId)
      const requests: string[] = []
      const complaints: string[] = []
      let loaded = (): void => {}
      const load = new Promise<void>(resolve => {
        loaded = resolve
      })
      listeners.add(({ method, sessionId: of, params }) => {
        if (of !== sessionId) return
        if (method === 'Page.loadEventFired') loaded()
        if (method === 'Network.requestWillBeSent') {
          const { request } = params as unknown as { request: { url: string } }
          if (request.url !== url) requests.push(request.url)
        }
        if (method === 'Runtime.consoleAPICalled' || method === 'Runtime.exceptionThrown' || method === 'Log.entryAdded')
          complaints.push(JSON.stringify(params))
      })
      for (const domain of ['Page', 'Network', 'Runtime', 'Log']) await tell(`${domain}.enable`)
      await tell('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: width < 600 })
      await tell('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] })
      await tell('Page.navigate', { url })
      await Promise.race([load, failed])
      return {
        requests,
        complaints,
        async value<T>(expression: string): Promise<T> {
          const { result } = await tell<{ result: { value: T } }>('Runtime.evaluate', { expression, returnByValue: true })
          return result.value
        },
        async picture(file) {
          const { data } = await tell<{ data: string }>('Page.captureScreenshot', { captureBeyondViewport: true })
          writeFileSync(file, Buffer.from(data, 'base64'))
        },
      }
    },
    async close() {
      if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid)
      await ended
      rmSync(profile, { recursive: true, force: true })
    },
  }
}
