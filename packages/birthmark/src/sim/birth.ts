// How a simulated device is born: it makes its key in its own key store, the station signs, and what a real line would flash is put
// into its store.

import { birthChain, memoryKeys, memoryStore, type NodeKeyStore, type Store } from '@birthmark/device-sdk/node'
import { birthRequest, type DeviceKey, type Station } from '@birthmark/factory-line'

export interface BornDevice {
  serial: string
  groups: string[]
  keys: NodeKeyStore
  store: Store
}

/** The birth key of a device's own key store, for the station's request. */
export async function birthKeyOf(keys: NodeKeyStore): Promise<DeviceKey> {
  const spki = await new Promise<Uint8Array>((resolve, reject) => {
    keys.publicKey('birth', (error, known) => {
      if (error) reject(error)
      else if (known) resolve(known)
      else keys.generate('birth', (failure, made) => (made ? resolve(made) : reject(failure ?? new Error('no key was made'))))
    })
  })
  const sign = (message: Uint8Array): Promise<Uint8Array> =>
    new Promise((resolve, reject) => {
      keys.sign('birth', message, (error, signature) => (signature ? resolve(signature) : reject(error ?? new Error('not signed'))))
    })
  return { spki, algorithm: keys.algorithm, sign }
}

export async function bearDevice(station: Station, serial: string, groups: string[]): Promise<BornDevice> {
  const device: BornDevice = { serial, groups, keys: memoryKeys(), store: memoryStore() }
  const csr = await birthRequest(serial, await birthKeyOf(device.keys))
  const { certificate, chain } = await station.issue({ serial, csr, groups })
  device.store.put('birth.chain', birthChain([certificate, ...chain]))
  return device
}
