import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { addressRefusal } from './outbound-address.ts'
import { createOutbound, type OutboundRequest } from './outbound-request.ts'

const stops: (() => void)[] = []
afterEach(() => {
  for (const stop of stops.splice(0)) stop()
})

async function server(answer: RequestListener): Promise<number> {
  const http = createServer(answer)
  await new Promise<void>(done => http.listen(0, '127.0.0.1', done))
  stops.push(() => {
    http.closeAllConnections()
    http.close()
  })
  return (http.address() as AddressInfo).port
}

const ask = (url: string, more: Partial<OutboundRequest> = {}): OutboundRequest => ({
  ...{ url: new URL(url), method: 'POST', headers: {}, body: Buffer.from('{}'), timeoutSeconds: 5 },
  ...{ answerBytesMax: 100, allowLoopback: true, anchors: null },
  ...more,
})

describe('addresses', () => {
  it('[F62] of this machine, link-local, metadata, multicast, unspecified, and whatever hides one of them', () => {
    const refused = [
      ...['127.0.0.1', '127.9.9.9', '::1', '0.0.0.0', '::', '169.254.169.254', 'fe80::1', 'fe80::1%eth0', 'ff02::1', '224.0.0.1'],
      ...[
        '255.255.255.255',
        '240.0.0.1',
        '::ffff:127.0.0.1',
        '::ffff:7f00:1',
        '::FFFF:169.254.169.254',
        '0:0:0:0:0:ffff:a9fe:a9fe',
      ],
      ...['::127.0.0.1', '64:ff9b::7f00:1', '64:ff9b::169.254.169.254', '2002:7f00:1::', '2001::1', 'fd00:ec2::254', 'fec0::1'],
      ...['100.100.100.200', '', 'localhost', '1.2.3', '::ffff:0.0.0.0'],
    ]
    for (const address of refused) expect(addressRefusal(address, false), address).not.toBeNull()
    for (const address of ['192.0.2.1', '10.1.2.3', '192.168.1.1', '2001:db8::1', 'fd12::1', '::ffff:10.0.0.1'])
      expect(addressRefusal(address, false), address).toBeNull()
  })

  it('[F62] of this machine may be allowed, link-local never', () => {
    for (const address of ['127.0.0.1', '::1', '::ffff:127.0.0.1']) expect(addressRefusal(address, true), address).toBeNull()
    for (const address of ['169.254.169.254', 'fe80::1', '0.0.0.0', '::', '::ffff:169.254.1.1'])
      expect(addressRefusal(address, true), address).not.toBeNull()
  })
})

describe('an outbound request', () => {
  it('[F62] spells of one address in a URL are one address', async () => {
    const outbound = createOutbound()
    for (const host of ['127.1', '0x7f000001', '2130706433', '[::ffff:127.0.0.1]', '017700000001', '127.0.0.1'])
      await expect(outbound(ask(`https://${host}/`, { allowLoopback: false })), host).rejects.toThrow('an address of this machine')
  })

  it('[F62] goes to the address that was judged: a name is looked up once', async () => {
    let asked = 0
    const port = await server((_, answer) => answer.end('ok'))
    const rebinding = createOutbound(async () => [asked++ === 0 ? '127.0.0.1' : '169.254.169.254'])
    const { status, body } = await rebinding(ask(`http://hook.example:${port}/`))
    expect([status, body.toString(), asked]).toEqual([200, 'ok', 1])
    await expect(rebinding(ask(`http://hook.example:${port}/`))).rejects.toThrow('169.254.169.254 is link-local')
    const mixed = createOutbound(async () => ['192.0.2.1', '127.0.0.1'])
    await expect(mixed(ask('https://hook.example/', { allowLoopback: false }))).rejects.toThrow('127.0.0.1 is an address')
  })

  it('[F62] follows no redirect', async () => {
    let hits = 0
    const port = await server((_, answer) => {
      hits++
      answer.writeHead(302, { location: 'http://169.254.169.254/' }).end()
    })
    await expect(createOutbound()(ask(`http://127.0.0.1:${port}/`))).rejects.toThrow('redirect')
    expect(hits).toBe(1)
  })

  it('is bounded in bytes and time, and undoes no content coding', async () => {
    const outbound = createOutbound()
    const large = await server((_, answer) => answer.end('x'.repeat(101)))
    await expect(outbound(ask(`http://127.0.0.1:${large}/`))).rejects.toThrow('more than 100 bytes')
    const silent = await server(() => {})
    await expect(outbound(ask(`http://127.0.0.1:${silent}/`, { timeoutSeconds: 0.2 }))).rejects.toThrow('no answer within 0.2 s')
    const coded = await server((_, answer) => answer.writeHead(200, { 'content-encoding': 'gzip' }).end('x'))
    await expect(outbound(ask(`http://127.0.0.1:${coded}/`))).rejects.toThrow('content coding')
    const dripping = await server((_, answer) => void setInterval(() => answer.write('x'), 50).unref())
    await expect(outbound(ask(`http://127.0.0.1:${dripping}/`, { timeoutSeconds: 0.3 }))).rejects.toThrow('no answer within')
  })
})
