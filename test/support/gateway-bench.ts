// A server of its own for devices and gateways that are born here, with the switches that tests of gateways need.
import { createHash } from 'node:crypto'
import { type Bytes, COMMON_NAME, decodePem, encodeName, SERIAL_NUMBER } from '@birthmark/device-sdk/core'
import { memoryKeys, memoryStore } from '@birthmark/device-sdk/node'
import { neverExpires, testAuthority } from '@birthmark/device-sdk/testing'
import type { DeviceRecord } from '@birthmark/est-server'
import { fleet, startEstServer } from './est-server.ts'

export interface GatewayBench {
  url: string
  trust: { server: string; birth: string; operational: string }
  operationalAnchors: Bytes[]
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
  const server = await startEstServer({ root: { certificate: maker.certificate } }, { profile })
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
