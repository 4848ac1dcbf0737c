import { createServer, request, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { createRuleSet, type Status, statusOf } from '../rule-set.ts'
import { createManualClock } from '../testing/manual-clock.ts'
import { quietLog } from '../testing/memory-bus.ts'
import { createSessionEnder, emqxSessions } from './remote-sessions.ts'
import { createWebhook, type WebhookOptions } from './webhook.ts'
import { webhookListener } from './webhook-listener.ts'

const fleet = 'acme'
const secret = 'a-secret-of-the-broker'
const servers: Server[] = []
afterEach(() => {
  for (const server of servers.splice(0)) server.close().closeAllConnections()
})

function webhookOf(more: Partial<WebhookOptions> = {}) {
  const rules = createRuleSet()
  const devices: { [id: string]: number } = { 'dev-1': 7, 'dev-2': 8, 'dev.3': 8 }
  const webhook = createWebhook({
    fleet,
    find: id => (Object.hasOwn(devices, id) ? { membership: { fleet, idx: 5, gids: [devices[id]] }, issuerKeyId: null } : null),
    status: statusOf(rules, fleet),
    services: { 'watcher@acme': 'observer' },
    log: quietLog,
    ...more,
  })
  const ask = async (path: string, fields: object) => webhook.answer({ path, fields: fields as { [name: string]: unknown } })
  return { webhook, rules, ask }
}

async function serve(listener: Parameters<typeof createServer>[1]): Promise<number> {
  const server = createServer(listener)
  servers.push(server)
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

/**
 * The body that EMQX 5 sends when it is configured as docs/enforcement.md says. By EMQX' manual, 5.0 to 5.8, "Access Control", "Use HTTP Service"
 * (authentication; authorization): an answer of 200 counts by its `result` when its type is application/json, 204 allows, and any other is
 * "ignore". That the authorizer fills in `${cert_common_name}` and `${retain}`, its source says (emqx_authz_http.erl of 5.x).
 */
const emqx = (name: string, more: object) => ({ clientid: name, username: 'whatever', cert_common_name: name, ...more })

describe('EMQX 5 asks', () => {
  it('and is answered 200 with allow or deny, since it takes any other status for "ask the next"', async () => {
    const { ask, rules, webhook } = webhookOf()
    const allow = { status: 200, type: 'application/json', body: '{"result":"allow"}' }
    const deny = { ...allow, body: '{"result":"deny"}' }
    expect(await ask('/emqx/authn', emqx('dev-1', {}))).toEqual(allow)
    expect(await ask('/emqx/authz', emqx('dev-1', { action: 'publish', topic: 'devices/dev-1/up', retain: 'false' }))).toEqual(
      allow,
    )
    expect(await ask('/emqx/authz', emqx('dev-1', { action: 'subscribe', topic: `fr/1/${fleet}/head` }))).toEqual(allow)
    expect(webhook.admitted()).toEqual(['dev-1'])
    expect(await webhook.mustEnd('dev-1')).toBe(false)
    rules.merge([{ kind: 'group', gid: 7, bound: 9 }])
    expect(await webhook.mustEnd('dev-1')).toBe(true)
    expect(await ask('/emqx/authn', emqx('dev-1', {}))).toEqual(deny)
    expect(await ask('/emqx/authz', emqx('dev-1', { action: 'publish', topic: 'devices/dev-1/up' }))).toEqual(deny)
    expect(await ask('/emqx/authn', emqx('dev-2', {}))).toEqual(allow)
  })

  it.each([
    ['[F49] a retained message of a device', 'dev-1', { action: 'publish', topic: 'devices/dev-1/up', retain: 'true' }],
    ['[F49] a notice from a device', 'dev-1', { action: 'publish', topic: `fr/1/${fleet}/head` }],
    ['[F50] everything', 'dev-1', { action: 'subscribe', topic: '#' }],
    ['[F50] a shared subscription', 'dev-1', { action: 'subscribe', topic: '$share/g/devices/dev-1/#' }],
    ['[F50] another device', 'dev-1', { action: 'subscribe', topic: 'devices/dev-2/#' }],
    ['an unknown device', 'dev-9', { action: 'subscribe', topic: 'devices/dev-9/#' }],
    ['an unknown service', 'root@acme', { action: 'subscribe', topic: 'devices/#' }],
    ['a service beyond its role', 'watcher@acme', { action: 'publish', topic: 'devices/dev-1/cmd' }],
    ['an unknown deed', 'dev-1', { action: 'all', topic: 'devices/dev-1/#' }],
    ['a topic that is no text', 'dev-1', { action: 'publish', topic: ['devices/dev-1/up'] }],
    ['[F8] a name of every object', '__proto__', { action: 'publish', topic: 'devices/__proto__/up' }],
    ['no name', '', { action: 'publish', topic: 'devices//up' }],
  ])('and is denied %s', async (_what, name, fields) => {
    const { ask } = webhookOf()
    expect((await ask('/emqx/authz', emqx(name, fields))).body).toBe('{"result":"deny"}')
  })

  it('[F51] and is denied a ClientId that is not the certificate’s', async () => {
    const { ask } = webhookOf()
    for (const clientid of ['dev-2', '', 'dev-1/2', undefined])
      expect((await ask('/emqx/authn', { ...emqx('dev-1', {}), clientid })).body).toBe('{"result":"deny"}')
    expect((await ask('/emqx/authn', { ...emqx('watcher@acme', {}), clientid: 'watcher@acme/2' })).body).toBe('{"result":"allow"}')
  })

  it('[F48] and is denied everything while status is unknown or can not be told', async () => {
    const unknown = webhookOf({ status: (): Status => 'unknown' })
    expect((await unknown.ask('/emqx/authn', emqx('dev-1', {}))).body).toBe('{"result":"deny"}')
    expect(await unknown.webhook.mustEnd('dev-1')).toBe(false)
    const broken = webhookOf({ find: () => Promise.reject(new Error('store')) })
    expect((await broken.ask('/emqx/authn', emqx('dev-1', {}))).body).toBe('{"result":"deny"}')
  })

  it('to end sessions, by the clients of its API', async () => {
    const ended: string[] = []
    const port = await serve((asked, response) => {
      expect(asked.headers.authorization).toBe(`Basic ${Buffer.from('key:pw').toString('base64')}`)
      const name = /^\/api\/v5\/clients\/(.+)$/.exec(asked.url ?? '')?.[1]
      if (asked.method === 'DELETE' && name) ended.push(name)
      response.writeHead(asked.method === 'DELETE' ? (name === 'dev-1' ? 204 : 404) : 200)
      response.end(
        asked.method === 'DELETE' ? undefined : JSON.stringify({ data: [{ clientid: 'dev-1' }, { clientid: 'dev-2' }], meta: {} }),
      )
    })
    const { webhook, rules } = webhookOf()
    const clock = createManualClock(0)
    const sessions = emqxSessions({ url: `http://127.0.0.1:${port}`, user: 'key', password: 'pw' })
    const ender = createSessionEnder({ sessions, ...webhook, candidates: webhook.admitted, clock, log: quietLog })
    expect(await ender.enforce()).toEqual({ cut: 0 })
    rules.merge([{ kind: 'group', gid: 7, bound: 9 }])
    expect(await ender.enforce()).toEqual({ cut: 1 })
    expect(ended).toEqual(['dev-1'])
    ender.close()
  })
})

it('any other broker is answered 200 or 403', async () => {
  const { ask } = webhookOf()
  expect(await ask('/plain/authn', emqx('dev-1', {}))).toMatchObject({ status: 200 })
  expect(await ask('/plain/authn', emqx('dev-9', {}))).toMatchObject({ status: 403 })
})

it('RabbitMQ is denied a device with a dot in its name, which is a level of a topic there', async () => {
  const { ask } = webhookOf()
  expect((await ask('/rabbitmq/user', { username: 'dev-2' })).body).toBe('allow')
  expect((await ask('/rabbitmq/user', { username: 'dev.3' })).body).toBe('deny')
})

it('answers who knows the secret, within bounds', async () => {
  const { webhook } = webhookOf()
  const port = await serve(webhookListener(webhook, { secret, log: quietLog }))
  const send = (path: string, body: string, headers: object = { 'content-type': 'application/json' }, method = 'POST') =>
    new Promise<string>((resolve, reject) => {
      const asked = request({ host: '127.0.0.1', port, path, method, headers: { ...headers } }, response => {
        let text = ''
        response.on('data', data => (text += data))
        response.on('end', () => resolve(`${response.statusCode} ${text.trim()}`))
      })
      asked.on('error', reject)
      asked.end(body)
    })
  const body = JSON.stringify(emqx('dev-1', {}))
  expect(await send(`/${secret}/emqx/authn`, body)).toBe('200 {"result":"allow"}')
  expect(await send(`/${secret}/rabbitmq/user`, 'username=dev-1', {})).toBe('200 allow')
  expect(await send(`/${secret}x/emqx/authn`, body)).toBe('404 not found')
  expect(await send('/emqx/authn', body)).toBe('404 not found')
  expect(await send(`/${secret}/emqx/other`, body)).toBe('404 not found')
  expect(await send(`/${secret}/emqx/authn`, '', {}, 'GET')).toBe('405 POST')
  expect(await send(`/${secret}/emqx/authn`, '[1]')).toMatch('400')
  expect(await send(`/${secret}/emqx/authn`, `"${'x'.repeat(20_000)}"`)).toMatch('413')
  expect(() => webhookListener(webhook, { secret: 'short', log: quietLog })).toThrow('secret')
})
