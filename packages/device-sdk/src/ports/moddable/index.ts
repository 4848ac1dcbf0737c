// Moddable (XS on an ESP32 and others): keys by `crypt`, `curve` and `ecdsa`, records in `preference`, HTTP and MQTT by ECMA-419, and what takes the place of
// modules of its TLS so that an EC certificate can be shown (examples/esp32-js has the manifest). Signatures are verified by the P-256 fallback, which is strict
// where Moddable's reader of signatures is lenient. CI runs it on XS with simulated modules; a desktop build ran it with Moddable's own
// (docs/decisions/engines.md); untested on hardware.

import type { Clock, Verify } from '../../agent/ports.ts'
import { p256Verify } from '../p256-verify.ts'
import { moddableHash } from './keys.ts'
import type { ModdableCrypto, ModdableTimer } from './modules.ts'

export { moddableHttp } from './http.ts'
export { type ModdableKeys, moddableHash, moddableKeys, moddableRng } from './keys.ts'
export type {
  ModdableCrypto,
  ModdableCurve,
  ModdableHttpClient,
  ModdablePreference,
  ModdableRequest,
  ModdableTimer,
} from './modules.ts'
export {
  type BusEvents,
  type BusSession,
  type ModdableMqttClient,
  type ModdableMqttHandlers,
  type ModdableMqttLimits,
  moddableMqtt,
} from './mqtt.ts'
export { preferenceStore } from './store.ts'
export { type ModdableSecure, type ModdableTlsSettings, moddableTls } from './tls.ts'
export { ModdableCertificates, type ModdableTlsIdentity } from './tls-certificates.ts'
export { ecHandshake } from './tls-handshake.ts'
export type { TlsHandshake } from './tls-modules.ts'
export { type ModdableTlsSocket, type ModdableTlsSocketOptions, moddableTlsSocket } from './tls-socket.ts'

export function moddableVerify(crypto: ModdableCrypto): Verify {
  return p256Verify(moddableHash(crypto))
}

/** `now`: seconds since 1970, −1 until SNTP or the server set the clock: `() => Date.now() / 1000` once it did. */
export function moddableClock(timer: ModdableTimer, now: () => number): Clock {
  return {
    now,
    setTimer(seconds, callback) {
      const running = timer.set(callback, seconds * 1000)
      return () => timer.clear(running)
    },
  }
}
