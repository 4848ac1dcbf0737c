// A server of its own for devices and gateways that are born here, with the switches that tests of gateways need.
import { createHash, generateKeyPairSync } from 'node:crypto'
import { type Bytes, COMMON_NAME, decodePem, encodeName, SERIAL_NUMBER, type TimeSigner } from '@birthmark/device-sdk/core'
import { memoryKeys, memoryStore } from '@birthmark/device-sdk/node'
import { neverExpires, testAuthority } from '@birthmark/device-sdk/testing'
import type { DeviceRecord } from '@birthmark/est-server'
import { noticeKeyId } from '@birthmark/fleet-revocation'
import { signedTime } from '../../packages/birthmark/src/signed-time.ts'
import { fleet, startEstServer } from './est-server.ts'

export interface GatewayBench {
  url: string
  trust: { server: string; birth: string; operational: string }
  operationalAnchors: Bytes[]
  /** Whose word the server gives on the time, and of which fleet. */
  timeSigner: TimeSigner
  fleet: string
  /** A unit with a birth key, known to the server in these groups. */
  bear(id: string, groups: string[]): Promise<{ keys: ReturnType<typeof memoryKeys>; store: ReturnType<typeof memoryStore> }>
  /** The same for a birth key that was made elsewhere; its birth certificate. */
  certify(id: string, groups: string[], spki: Bytes): Promise<Bytes>
  /** What the server has on record. */
  device(id: string): Promise<DeviceRecord>
  /** Signatures for certificates so far. */
  issued(): Promise<number>
  /** Everybody of the group, from now on. */
  revoke(group: string): Promise<void>
  close(): Promise<void>
}

export async function gatewayBench(profile: { gateways?: string[] }): Promise<GatewayBench> {
  const maker = testAuthority('Maker')
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
  const time = signedTime({ fleet, notices: { keys: [privateKey], countersignAbove: null } }, { now: () => Date.now() / 1000 })
  const server = await startEstServer(
    { root: { certificate: maker.certificate } },
    { profile, routes: app => void app.get(time.path, time.answer) },
  )
  const record = async (id: string) => {
    const none = new Uint8Array(32)
    const { device } = await server.store.enrollmentFacts(fleet, id, none, none)
    if (device === null) throw new Error(`${id} is not known`)
    return device
  }
  const certify = async (id: string, groups: string[], spki: Bytes) => {
    const spkiSha256 = createHash('sha256').update(spki).digest('hex')
    await server.registry.importManifest([{ serial: id, spkiSha256, groups, keyOrigin: 'device' }], 'test')
    const subject = encodeName([
      { oid: COMMON_NAME, value: 'unit' },
      { oid: SERIAL_NUMBER, value: id },
    ])
    return maker.issue({ profile: 'birth', subject, spki, notBefore: 1577836800, notAfter: neverExpires })
  }
  return {
    url: server.url,
    trust: { server: server.identity.rootPem, birth: maker.pem, operational: server.issuerRootPem },
    timeSigner: { keyId: noticeKeyId(spki), algorithm: -7, spki },
    fleet,
    operationalAnchors: decodePem(server.issuerRootPem, 'CERTIFICATE', 1),
    async bear(id, groups) {
      const keys = memoryKeys()
      const store = memoryStore()
      const spki = await new Promise<Bytes>((resolve, reject) =>
        keys.generate('birth', (error, made) => (made ? resolve(made) : reject(error))),
      )
      store.put('birth.chain', await certify(id, groups, spki))
      return { keys, store }
    },
    certify,
    device: record,
    issued: async () => server.signatures(),
    async revoke(group) {
      const gid = (await server.store.groups(fleet)).find(({ name }) => name === group)?.gid ?? -1
      server.setStatus(({ gids }) => (gids.includes(gid) ? 'revoked' : 'good'))
    },
    close: () => server.stop(),
  }
}
