// A subscriber that hears every device, as a cloud application would, and notices what is missing.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { encodePem } from '@birthmark/device-sdk/core'
import { headTopic } from '@birthmark/fleet-revocation'
import { connectMqttBus } from '@birthmark/fleet-revocation/broker'
import type { DeviceFolder } from '../device-folder.ts'

export interface Observer {
  /** Number of the newest measurement of a device; 0 before the first. */
  last(serial: string): number
  /** Measurements of a device that never arrived, or arrived twice or out of order. */
  gaps(serial: string): number
  received(): number
  /** Different notices heard: a broker may bring one twice. */
  notices(): number
  close(): Promise<void>
}

/** Connects with the state folder's observer certificate. */
export async function createObserver(target: DeviceFolder, folder: string): Promise<Observer> {
  const bus = connectMqttBus({
    url: target.mqtt,
    clientId: 'observer',
    tls: {
      ca: target.serverAnchors.map(der => encodePem('CERTIFICATE', der)),
      cert: readFileSync(join(folder, 'server', 'observer.pem')),
      key: readFileSync(join(folder, 'server', 'observer.key.pem')),
    },
    log: { info() {}, warn() {}, error() {} },
    reconnectSeconds: 0,
  })
  const seen = new Map<string, { last: number; gaps: number }>()
  let received = 0
  const notices = new Set<string>()
  await new Promise<void>((resolve, reject) => {
    bus.onConnect(resolve)
    bus.onClose(error => reject(error ?? new Error('the broker refused the observer')))
  })
  await bus.subscribe('devices/#', (topic, payload) => {
    received++
    const serial = topic.split('/')[1]
    const { n } = JSON.parse(Buffer.from(payload).toString('utf8')) as { n: number }
    const device = seen.get(serial) ?? { last: 0, gaps: 0 }
    if (n !== device.last + 1) device.gaps++
    device.last = n
    seen.set(serial, device)
  })
  await bus.subscribe(headTopic(target.fleet), (_topic, payload) => {
    notices.add(Buffer.from(payload).toString('base64'))
  })
  return {
    last: serial => seen.get(serial)?.last ?? 0,
    gaps: serial => seen.get(serial)?.gaps ?? 0,
    received: () => received,
    notices: () => notices.size,
    close: () => bus.close(),
  }
}
