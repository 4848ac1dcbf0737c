// A device on Bun whose keys are in a token: no TLS of Bun's can use them, and through a gateway they are all that it needs. SoftHSM, and a TPM (swtpm) by its PKCS #11.
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { decodePem, membershipOf, parseCertificate } from '@birthmark/device-sdk/core'
import { createGateway, serveStream } from '@birthmark/device-sdk/gateway'
import { createIdentity } from '@birthmark/device-sdk/node'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { findBun } from '../runtimes/bun-process.ts'
import { lifeByLine } from '../support/birth-by-line.ts'
import { type GatewayBench, gatewayBench } from '../support/gateway-bench.ts'
import { bareToken, privateKeysIn, softHsm } from '../support/soft-token.ts'
import { tpmPkcs11, tpmToken, withTpm } from '../support/tpm.ts'

const bun = findBun()
const program = [bun ?? '', '--conditions=source', fileURLToPath(new URL('../support/gateway-device.ts', import.meta.url))]
const pin = 'pin-735182'

describe.skipIf(!bun)('a device on Bun with its keys in a token', () => {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-gateway-token-'))
  const closing: (() => unknown)[] = [() => rmSync(folder, { recursive: true })]
  let bench: GatewayBench
  let server: string

  beforeAll(async () => {
    bench = await gatewayBench({ gateways: ['role=gateway'] })
    closing.push(() => bench.close())
    const own = await bench.bear('gw-1', ['role=gateway'])
    const identity = createIdentity({ ...own, server: { url: bench.url }, trust: bench.trust })
    await identity.enroll()
    const gateway = createGateway({ identity, server: bench.url, trust: bench.trust.server })
    const lines = createServer(line => void serveStream(gateway, line))
    await new Promise<void>(resolve => lines.listen(0, '127.0.0.1', resolve))
    closing.push(() => lines.close(), identity.close)
    server = join(folder, 'server.json')
    writeFileSync(server, JSON.stringify({ url: bench.url, trust: bench.trust, port: (lines.address() as AddressInfo).port }))
  })
  afterAll(async () => {
    for (const close of closing.reverse()) await close()
  })

  /** Whole life of unit `id`: what it said, checked against what the server has. */
  async function live(id: string, child: ChildProcessWithoutNullStreams): Promise<void> {
    const before = await bench.issued()
    const made: Uint8Array[] = []
    const told = await lifeByLine(child, spki => {
      made.push(spki)
      return bench.certify(id, ['role=meter'], spki)
    })
    // At the server's own door it does not get as far as TLS, and says so.
    expect(told).toMatchObject({ runtime: 'Bun', refused: 'key_unavailable', state: 'active', generation: 2, deviceId: id })
    expect(told.shown).not.toContain(pin)
    const [first, last] = [told.first, told.last].map(pem => parseCertificate(decodePem(pem, 'CERTIFICATE', 2)[0]))
    expect(new Set([made[0], first.spki, last.spki].map(spki => Buffer.from(spki).toString('hex'))).size).toBe(3)
    expect(membershipOf(last)?.gids).toEqual((await bench.device(id)).gids)
    expect((await bench.issued()) - before).toBe(2)
  }

  test('SoftHSM: enrolls through a gateway and renews, and no key leaves the token', async () => {
    const env = bareToken(folder, 'device', pin)
    await live(
      'meter-1',
      spawn(program[0], [...program.slice(1), softHsm, 'device', pin, server], { env, stdio: 'pipe', timeout: 60_000 }),
    )
    expect(privateKeysIn(env, pin)).toEqual(Array(3).fill('sensitive, always sensitive, never extractable, local'))
  }, 70_000)

  test('a TPM by its PKCS #11: enrolls through a gateway and renews', async () => {
    const command = [...program, tpmPkcs11(), 'device', pin, server]
    await live('meter-2', withTpm(folder, command, { prepared: tpmToken('device', pin) }))
  }, 70_000)
})
