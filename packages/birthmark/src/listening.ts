// Opening the ways in: the broker and the EST port, with errors that say what stands in the way, and the addresses by which devices
// reach them.

import { X509Certificate } from 'node:crypto'
import { isIPv6 } from 'node:net'
import { type Bytes, decodePem, encodePem, type Membership } from '@birthmark/device-sdk/core'
import type { Bus, PublishBus, Status } from '@birthmark/fleet-revocation'
import { connectMqttBus, createEmbeddedBroker, type EmbeddedBroker, type MqttBus } from '@birthmark/fleet-revocation/broker'
import { CommandError } from './command-error.ts'
import type { Ports } from './compose.ts'
import type { Settings } from './configuration.ts'

export interface OpenBroker {
  /** Null with an external one. */
  broker: EmbeddedBroker | null
  /** The connection to an external one. */
  external: MqttBus | null
  bus: PublishBus & Partial<Pick<Bus, 'subscribe' | 'subscribeAgain' | 'onConnect'>>
  url: string
  close(): Promise<void>
}

export async function openBroker(
  settings: Settings,
  deviceAnchors: Bytes[],
  status: (membership: Membership, issuerKeyId: Bytes | null) => Status,
  { clock, log }: Ports,
  onRefused: (idx: number) => void = () => {},
): Promise<OpenBroker> {
  const { mqtt, fleet } = settings
  if (mqtt.kind === 'external') {
    const own = mqtt.certificate && mqtt.key ? { cert: mqtt.certificate, key: mqtt.key } : {}
    const ca = decodePem(mqtt.anchors, 'CERTIFICATE', 16).map(der => encodePem('CERTIFICATE', der))
    const bus = connectMqttBus({ url: mqtt.url, clientId: `birthmark-${fleet}`, tls: { ca, ...own }, log })
    return { broker: null, external: bus, bus, url: mqtt.url, close: () => bus.close() }
  }
  const broker = await named('mqtt', mqtt.host, mqtt.port, () =>
    createEmbeddedBroker({
      host: mqtt.host,
      port: mqtt.port,
      tls: { key: mqtt.key, cert: mqtt.certificate },
      deviceAnchors,
      // With the intermediate beside the root, since the broker sees a service's leaf alone once OpenSSL has accepted its chain.
      serviceAnchors: [...settings.serverAnchors, ...decodePem(mqtt.certificate, 'CERTIFICATE', 16).slice(1)],
      services: mqtt.services,
      fleet,
      status,
      onRefused,
      // A simulated fleet comes from one address.
      ...(settings.development ? { limits: { connectionsPerAddressMax: 20_000, handshakesAtOncePerAddress: 20_000 } } : {}),
      clock,
      log,
    }),
  )
  return {
    broker,
    external: null,
    bus: broker,
    url: `mqtts://${reachableName(mqtt.host, mqtt.certificate)}:${broker.port}`,
    close: () => broker.close(),
  }
}

/** Runs `open`; what commonly stands in the way of listening is said in words. */
export async function named<T>(
  which: 'est' | 'mqtt' | 'metrics' | 'scep' | 'status',
  host: string,
  port: number,
  open: () => Promise<T>,
): Promise<T> {
  try {
    return await open()
  } catch (error) {
    const inner = (error as { cause?: NodeJS.ErrnoException }).cause ?? (error as NodeJS.ErrnoException)
    const place = `${isIPv6(host) ? `[${host}]` : host}:${port}`
    if (inner.code === 'EADDRINUSE')
      throw new CommandError(
        'port_busy',
        `something already listens on ${place}`,
        `see who: ss -ltnp 'sport = :${port}'; or take another port: --${which}-port, or ${which}.port in the configuration`,
        'failed',
        error,
      )
    if (inner.code === 'EACCES')
      throw new CommandError(
        'port_forbidden',
        `this user may not listen on ${place}`,
        `take a port above 1023: --${which}-port`,
        'failed',
        error,
      )
    if (inner.code === 'EADDRNOTAVAIL')
      throw new CommandError(
        'address_unknown',
        `this machine has no address ${host}`,
        `correct ${which}.host, or use 0.0.0.0`,
        'usage',
        error,
      )
    throw error
  }
}

/** What devices write into a URL: the host listened on, or, when that is "every interface", the certificate's first name. */
export function reachableName(host: string, certificate: string): string {
  let name = host
  if (host === '0.0.0.0' || host === '::') {
    const first = (new X509Certificate(certificate).subjectAltName ?? '').split(', ')[0]
    name = first.replace(/^(DNS|IP Address):/, '') || host
  }
  return isIPv6(name) ? `[${name}]` : name
}
