// What a broker elsewhere asks before it lets a client connect, publish or subscribe, and the answer: the access table and the status of the
// embedded broker, in the words of EMQX 5, of RabbitMQ's rabbitmq_auth_backend_http, and in plain HTTP status codes for any other. Pure but for
// `find`. A broker names a client by its certificate's common name, which its own TLS has verified; nothing here sees the certificate.

import { createHash, timingSafeEqual } from 'node:crypto'
import type { Bytes, Membership } from '@birthmark/device-sdk/core'
import { accessOf, mayPublish, maySubscribe } from '../broker/access.ts'
import { deviceIdForm, type Peer, type ServiceRole } from '../broker/peer.ts'
import type { Log } from '../ports.ts'
import type { CertificateStatus } from './device-peer.ts'

/** What is known of a device by name: its newest certificate. */
export interface KnownDevice {
  membership: Membership
  issuerKeyId: Bytes | null
}

export interface WebhookOptions {
  fleet: string
  /**
   * The newest certificate of a device; null for a name that has none. A name says less than a certificate: whoever holds a device's older,
   * revoked certificate is told apart by the broker's TLS layer alone, which wants the CRL.
   */
  find(deviceId: string): Promise<KnownDevice | null> | KnownDevice | null
  status: CertificateStatus
  /** Service certificates by common name, which holds an `@` so that no device can have it. */
  services?: { [commonName: string]: ServiceRole }
  /** Who may use RabbitMQ's management: name, and SHA-256 of the password in hex. They have no certificate and reach no topic. */
  administrators?: { [name: string]: string }
  log: Log
}

export interface WebhookRequest {
  /** Below the endpoint's own prefix: `/emqx/authn`, `/rabbitmq/topic`, … */
  path: string
  /** Parsed from JSON or a form; only strings, numbers and booleans count. */
  fields: { [name: string]: unknown }
}

export interface WebhookAnswer {
  status: 200 | 403 | 404
  type: 'application/json' | 'text/plain'
  body: string
}

export interface Webhook {
  answer(request: WebhookRequest): Promise<WebhookAnswer>
  /** Devices that were admitted, newest last, at most 100,000: those whose session a revocation may have to end. */
  admitted(): string[]
  /** Whether a session under this name has to end. A service's does not, and neither does a device's while its status is unknown. */
  mustEnd(name: string): Promise<boolean>
}

type Deed =
  | { kind: 'connect'; clientId: string }
  | { kind: 'publish'; topic: string; retain: boolean }
  | { kind: 'subscribe'; filter: string }

// As many sessions as one broker node commonly serves; who fell out is found in the broker's own list at the next sweep.
const admittedMax = 100_000

function text(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

/** A service may hold several connections: `name/1`. No device id has a slash. */
function clientIdFits(name: string, clientId: string): boolean {
  return (
    clientId === name ||
    (name.includes('@') && clientId.startsWith(`${name}/`) && /^[A-Za-z0-9._-]{1,32}$/.test(clientId.slice(name.length + 1)))
  )
}

// RabbitMQ's MQTT plugin writes topics as AMQP routing keys: `/` as `.`, `+` as `*`.
const topicOfRoutingKey = (key: string) => key.replaceAll('.', '/').replaceAll('*', '+')

export function createWebhook(options: WebhookOptions): Webhook {
  const { fleet, log } = options
  const services = options.services ?? {}
  const admitted = new Set<string>()

  function note(deviceId: string): void {
    admitted.delete(deviceId)
    admitted.add(deviceId)
    if (admitted.size > admittedMax) for (const oldest of admitted) return void admitted.delete(oldest)
  }

  /** Who is called `name`, and may do anything at all; a string says why nobody may. */
  async function peerOf(name: string): Promise<Peer | string> {
    if (name.includes('@')) {
      const role = Object.hasOwn(services, name) ? services[name] : null
      return role ? { kind: 'service', id: name, role, notAfter: Number.POSITIVE_INFINITY } : 'no such service'
    }
    if (!deviceIdForm.test(name)) return 'no device id'
    const known = await options.find(name)
    if (!known) return 'no such device'
    if (known.membership.fleet !== fleet) return 'another fleet'
    const status = options.status(known.membership, known.issuerKeyId)
    // Unknown as well: nothing here is a live session, and whoever asks for one while nothing is known has to come again.
    return status === 'good' ? { kind: 'device', id: name, ...known, notAfter: Number.POSITIVE_INFINITY } : `status ${status}`
  }

  async function allows(name: string, deed: Deed): Promise<boolean> {
    let reason: string | null = null
    try {
      const peer = await peerOf(name)
      if (typeof peer === 'string') reason = peer
      else {
        const access = accessOf(peer, fleet)
        if (deed.kind === 'connect' && !clientIdFits(name, deed.clientId)) reason = 'the ClientId is not the certificate’s'
        if (deed.kind === 'publish' && !mayPublish(access, deed.topic, deed.retain)) reason = 'PUBLISH denied'
        if (deed.kind === 'subscribe' && !maySubscribe(access, deed.filter)) reason = 'SUBSCRIBE denied'
        if (!reason && deed.kind === 'connect' && peer.kind === 'device') note(name)
      }
    } catch (error) {
      log.error({ err: error, peer: name.slice(0, 64) }, 'the status of a client can not be told')
      return false
    }
    if (reason) log.warn({ peer: name.slice(0, 64), deed: deed.kind, reason }, 'a broker’s client is refused')
    return reason === null
  }

  function deedOf({ action, topic, retain }: { [name: string]: unknown }): Deed | null {
    if (action === 'publish')
      return { kind: 'publish', topic: text(topic), retain: retain === true || retain === 'true' || retain === 1 || retain === '1' }
    return action === 'subscribe' ? { kind: 'subscribe', filter: text(topic) } : null
  }

  /** `cert_common_name` names the client, and nothing that it could choose for itself. */
  async function authorize(question: string, fields: WebhookRequest['fields']): Promise<boolean> {
    const name = text(fields.cert_common_name)
    if (question === 'authn') return allows(name, { kind: 'connect', clientId: text(fields.clientid) })
    const deed = deedOf(fields)
    return deed !== null && allows(name, deed)
  }

  function isAdministrator(name: string, password: string): boolean {
    const { administrators = {} } = options
    if (!Object.hasOwn(administrators, name)) return false
    const [given, wanted] = [createHash('sha256').update(password).digest(), Buffer.from(administrators[name], 'hex')]
    return given.length === wanted.length && timingSafeEqual(given, wanted)
  }

  /** `/user` by name (and password, of an administrator), `/vhost` with the ClientId, `/resource` for a client's queue and the exchange, `/topic`. */
  async function rabbit(question: string, fields: WebhookRequest['fields']): Promise<string> {
    const name = text(fields.username)
    if (question === 'user' && fields.password !== undefined)
      return isAdministrator(name, text(fields.password)) ? 'allow administrator' : 'deny'
    // A dot is a level there, so a device with one in its name could be another's neighbour.
    if (name.includes('.') && !name.includes('@')) return 'deny'
    const said = (allowed: boolean) => (allowed ? 'allow' : 'deny')
    if (question === 'user') return said(typeof (await peerOf(name)) !== 'string')
    if (question === 'vhost') return said(await allows(name, { kind: 'connect', clientId: text(fields.client_id) }))
    if (question === 'resource') {
      const { resource } = fields
      const own = /^mqtt-subscription-(.*)qos[01]$/.exec(text(fields.name))?.[1] ?? ''
      const touched =
        resource === 'queue' ? clientIdFits(name, own) : fields.name === 'amq.topic' && fields.permission !== 'configure'
      return said(touched && typeof (await peerOf(name)) !== 'string')
    }
    const topic = topicOfRoutingKey(text(fields.routing_key))
    return said(
      fields.name === 'amq.topic' &&
        (await allows(
          name,
          fields.permission === 'write' ? { kind: 'publish', topic, retain: false } : { kind: 'subscribe', filter: topic },
        )),
    )
  }

  const json = (status: 200 | 403, allowed: boolean): WebhookAnswer => ({
    status,
    type: 'application/json',
    body: JSON.stringify({ result: allowed ? 'allow' : 'deny' }),
  })

  return {
    answer: async ({ path, fields }) => {
      const [, dialect, question] = /^\/(emqx|rabbitmq|plain)\/([a-z]+)$/.exec(path) ?? []
      if (dialect === 'rabbitmq' && ['user', 'vhost', 'resource', 'topic'].includes(question))
        return { status: 200, type: 'text/plain', body: await rabbit(question, fields) }
      if (question !== 'authn' && question !== 'authz') return { status: 404, type: 'text/plain', body: 'not found\n' }
      const allowed = await authorize(question, fields)
      // EMQX takes every other status for "ask the next", and the last of its chain may allow.
      return json(dialect === 'emqx' || allowed ? 200 : 403, allowed)
    },
    admitted: () => [...admitted],
    mustEnd: async name => {
      if (name.includes('@') || Object.hasOwn(options.administrators ?? {}, name)) return false
      const known = await options.find(name)
      return known === null || !['good', 'unknown'].includes(options.status(known.membership, known.issuerKeyId))
    },
  }
}
