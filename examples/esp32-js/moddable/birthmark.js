// What of Birthmark goes into the firmware, as one module: main and the modules that take the place of Moddable's share it.
export { bytesOfHex } from '@birthmark/device-sdk/core'
export {
  ecHandshake,
  ModdableCertificates,
  moddableClock,
  moddableHash,
  moddableHttp,
  moddableKeys,
  moddableMqtt,
  moddableRng,
  moddableTls,
  moddableTlsSocket,
  moddableVerify,
  preferenceStore,
} from '@birthmark/device-sdk/moddable'
export { startDevice } from '../device.js'
