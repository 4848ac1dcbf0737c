// What was published, as others still hold it: a broker outside keeps the newest notices, and so does another server of the fleet. Asked by a
// restore, for this machine may have lost what it had noted, or gone back together with its store. Nothing of it is believed here: the caller
// verifies each notice.

import { type Bytes, decodePem, encodePem, parseSign1 } from '@birthmark/device-sdk/core'
import { decodeNoticeBody, headTopic, httpsGet, noticeBytesMax, pullPath } from '@birthmark/fleet-revocation'
import { connectMqttBus, type MqttBus } from '@birthmark/fleet-revocation/broker'
import { CommandError } from './command-error.ts'
import type { MqttSettings } from './configuration.ts'

export interface Held {
  /** For people. */
  where: string
  notices: Bytes[]
}

// A broker says nothing when it has shown all that it retains. The head comes first, and 64 notices of 8 KiB take no second.
const answerSeconds = 5
const quietSeconds = 1
/** The ring, its head, and room for a broker that repeats itself. */
const retainedMax = 256
/** As many of the last notices as are fetched one by one: a restore that is further behind knows the groups from their repetition. */
const pulledMax = 1024

const unasked = (where: string, error: unknown) =>
  new CommandError(
    'published_unasked',
    `${where} cannot be asked what was published: ${error instanceof Error ? error.message : String(error)}`,
    'see to it; or give --above N, where nothing published has an index, notice or CRL number above N',
    'refused',
    error,
  )

/** The retained head and ring. Rejects with `published_unasked`. */
export async function heldByBroker(mqtt: Extract<MqttSettings, { kind: 'external' }>, fleet: string): Promise<Held> {
  const own = mqtt.certificate && mqtt.key ? { cert: mqtt.certificate, key: mqtt.key } : {}
  const ca = decodePem(mqtt.anchors, 'CERTIFICATE', 16).map(der => encodePem('CERTIFICATE', der))
  let bus: MqttBus | null = null
  try {
    const silent = { info() {}, warn() {}, error() {} }
    // As the server calls itself, for the broker may know it by that name.
    bus = connectMqttBus({ url: mqtt.url, clientId: `birthmark-${fleet}`, tls: { ca, ...own }, log: silent, reconnectSeconds: 0 })
    await connected(bus)
    return { where: mqtt.url, notices: await retained(bus, fleet) }
  } catch (error) {
    throw unasked(mqtt.url, error)
  } finally {
    await bus?.close()
  }
}

function connected(bus: MqttBus): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('no answer in time')), answerSeconds * 1000)
    bus.onConnect(() => {
      clearTimeout(timer)
      resolve()
    })
    bus.onClose(error => {
      clearTimeout(timer)
      reject(error ?? new Error('the connection ended'))
    })
  })
}

async function retained(bus: MqttBus, fleet: string): Promise<Bytes[]> {
  const found: Bytes[] = []
  let heard = () => {}
  const take = (_topic: string, payload: Uint8Array): void => {
    if (found.length < retainedMax && payload.length <= noticeBytesMax) found.push(new Uint8Array(payload))
    heard()
  }
  const silence = (seconds: number) =>
    new Promise<void>(resolve => {
      let timer = setTimeout(resolve, seconds * 1000)
      heard = () => {
        clearTimeout(timer)
        timer = setTimeout(resolve, quietSeconds * 1000)
      }
    })
  const first = silence(answerSeconds)
  await bus.subscribe(headTopic(fleet), take)
  await first
  const ring = silence(quietSeconds)
  await bus.subscribe(`fr/1/${fleet}/n/+`, take)
  await ring
  return found
}

/** From another server, down from its head. `anchors`: PEM or DER, of its TLS certificate. Rejects with `published_unasked`. */
export async function heldByServer(url: string, anchors: Bytes[], fleet: string): Promise<Held> {
  try {
    const get = httpsGet({ url, tls: { ca: anchors.map(der => encodePem('CERTIFICATE', der)) } })
    const head = await get(`${pullPath(fleet)}head`, noticeBytesMax)
    if (head === null) return { where: url, notices: [] }
    const body = decodeNoticeBody(parseSign1(head).payload)
    if (typeof body === 'string') throw new Error(`its newest notice is none (${body})`)
    const notices = [head]
    for (let seq = body.seq - 1; seq > Math.max(0, body.seq - pulledMax); seq--) {
      const notice = await get(`${pullPath(fleet)}n/${seq}`, noticeBytesMax)
      if (notice === null) break
      notices.push(notice)
    }
    return { where: url, notices }
  } catch (error) {
    throw unasked(url, error)
  }
}
