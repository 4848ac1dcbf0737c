import { describe, expect, it } from 'vitest'
import type { HttpRequest } from '../../agent/ports.ts'
import { moddableHttp } from './http.ts'
import type { ModdableHttpClient, ModdableRequest } from './modules.ts'

type Asked = Parameters<ModdableHttpClient['request']>[0]
const post: HttpRequest = {
  method: 'POST',
  path: '/.well-known/est/simpleenroll',
  headers: { 'content-type': 'application/pkcs10' },
  body: new Uint8Array(1000).fill(65),
  bodyBytesMax: 4096,
  timeoutSeconds: 60,
}

/** One exchange over a client that does what the test says; `opened`: what opening it does. */
function exchange(request = post, opened: (untrusted: () => void) => void = () => {}) {
  const told: [string | null, number | null, object | null, number | null][] = []
  const timers = new Map<number, { callback: () => void; milliseconds: number }>()
  let made = 0
  const timer = {
    set: (callback: () => void, milliseconds: number) => {
      timers.set(++made, { callback, milliseconds })
      return made
    },
    clear: (one: unknown) => void timers.delete(one as number),
  }
  let asked: Asked | null = null
  let open = 0
  let untrusted = (): void => {}
  const client = {
    request: (options: Asked) => {
      asked = options
    },
    close: () => void open--,
  }
  const http = moddableHttp((_, refuse) => {
    opened(refuse)
    untrusted = refuse
    open++
    return client
  }, timer)
  const cancel = http.request(request, { slot: 'birth', chain: [] }, (error, response) =>
    told.push([error?.code ?? null, response?.status ?? null, response?.headers ?? null, response?.body.length ?? null]),
  )
  const written: Uint8Array[] = []
  let read = 0
  const stream: ModdableRequest = {
    read(count) {
      read += count
      return new Uint8Array(count).buffer
    },
    write: data => written.push(new Uint8Array(data)),
  }
  return {
    ...{ told, cancel, written },
    asked: () => asked as Asked,
    open: () => open,
    read: () => read,
    running: () => timers.size,
    refuse: () => untrusted(),
    /** Time passes. */
    after(milliseconds: number) {
      for (const [one, { callback, milliseconds: due }] of [...timers]) if (due <= milliseconds && timers.delete(one)) callback()
    },
    answer: (status: number, headers: Record<string, string>) =>
      asked?.onHeaders.call(stream, status, new Map(Object.entries(headers))),
    arrive: (count: number) => asked?.onReadable.call(stream, count),
    room: (count: number) => asked?.onWritable.call(stream, count),
    end: (error: unknown = null) => asked?.onDone.call(stream, error),
  }
}
const certificates = { 'content-type': 'application/pkcs7-mime', 'retry-after': '5', server: 'x' }

it('says how long the body is, writes it as there is room, and tells of the answer what EST reads', () => {
  const one = exchange()
  expect(one.told).toEqual([])
  one.after(0)
  expect([...one.asked().headers]).toEqual([
    ['content-type', 'application/pkcs10'],
    ['content-length', '1000'],
  ])
  for (const room of [300, 300, 800, 100]) one.room(room)
  expect(one.written.map(part => part.length)).toEqual([300, 300, 400])
  one.answer(200, certificates)
  for (const count of [100, 200]) one.arrive(count)
  one.end()
  const headers = { 'content-type': 'application/pkcs7-mime', 'retry-after': '5' }
  expect(one.told).toEqual([[null, 200, headers, 300]])
  // The client and the limit are let go.
  expect([one.open(), one.running()]).toEqual([0, 0])
})

describe('[F58] a server that lies', () => {
  it('a gigabyte: read to the bound and no further', () => {
    const one = exchange()
    one.after(0)
    one.answer(200, certificates)
    for (let came = 0; came < 2 ** 30; came += 2 ** 20) one.arrive(came ? 2 ** 20 : 1000)
    one.end()
    expect(one.told).toEqual([['est_response_malformed', null, null, null]])
    expect([one.read(), one.open(), one.running()]).toEqual([1000, 0, 0])
  })

  it('a drip: given up when the time is over, and what comes after that is not read', () => {
    const one = exchange()
    one.after(0)
    one.answer(200, certificates)
    one.arrive(1)
    one.after(60_000)
    one.arrive(1)
    one.end()
    expect(one.told).toEqual([['timeout', null, null, null]])
    expect([one.read(), one.open()]).toEqual([1, 0])
  })

  it('a connection that is cut, before or within the answer', () => {
    for (const answered of [false, true]) {
      const one = exchange()
      one.after(0)
      if (answered) one.answer(200, certificates)
      one.end(answered ? new Error('cut') : null)
      one.end()
      expect(one.told).toEqual([['network', null, null, null]])
    }
  })

  it('one that TLS does not believe, at once or later', () => {
    const late = exchange()
    late.after(0)
    late.refuse()
    late.end(new Error('closed'))
    const early = exchange(post, refuse => {
      refuse()
      throw new Error('no anchor')
    })
    early.after(0)
    expect([...late.told, ...early.told].map(([code]) => code)).toEqual(['server_untrusted', 'server_untrusted'])
  })
})

it('given up before or while it runs, it tells nothing and holds nothing', () => {
  for (const started of [false, true]) {
    const one = exchange()
    if (started) one.after(0)
    one.cancel()
    one.after(60_000)
    if (started) one.end(new Error('closed'))
    expect([one.told, one.open(), one.running()]).toEqual([[], 0, 0])
  }
})
