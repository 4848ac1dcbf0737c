// The main module for Moddable on an ESP32. The network clients are Moddable's; TLS is Moddable's with the parts that this folder puts in their place.
import {
  bytesOfHex,
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
  startDevice,
} from 'birthmark'
import { Digest } from 'crypt'
import Curve from 'curve'
import ECDSA from 'ecdsa'
import entropy from 'entropy'
import fleet from 'fleet'
import Preference from 'preference'
import Session from 'ssl/session'
import Timer from 'timer'

const crypto = { Digest, Curve, ECDSA, entropy }
const keys = moddableKeys(crypto, Preference)
const verify = moddableVerify(crypto)
// SNTP sets the clock after the network is up; until then it shows 1970, and the agent is told that nothing is known.
const now = () => (Date.now() / 1000 < fleet.builtAt ? -1 : Math.floor(Date.now() / 1000))
const secure = moddableTls({ anchors: fleet.serverAnchors.map(bytesOfHex), keys, verify, now, timeFloor: fleet.builtAt })
const TlsSocket = moddableTlsSocket(Session, Timer)
const { http, mqtt } = device.network
const report = line => trace(line + '\n')
const over = (client, tls, untrusted) => ({ io: TlsSocket, TCP: client.socket, secure: secure(tls, untrusted) })

startDevice(
  {
    hash: moddableHash(crypto),
    verify,
    keys,
    rng: moddableRng(crypto),
    store: preferenceStore(Preference),
    http: moddableHttp((tls, untrusted) => new http.io({ ...http, ...fleet.est, socket: over(http, tls, untrusted) }), Timer),
    clock: moddableClock(Timer, now),
  },
  (identity, events) =>
    moddableMqtt(
      handlers =>
        new mqtt.io({
          ...mqtt,
          ...fleet.mqtt,
          id: identity.deviceId,
          keepAlive: 60_000,
          socket: over(mqtt, identity, () => report('the broker is not trusted')),
          ...handlers,
        }),
      events,
    ),
  {
    fleet: fleet.fleet,
    builtAt: fleet.builtAt,
    birthAnchors: fleet.birthAnchors.map(bytesOfHex),
    operationalAnchors: fleet.operationalAnchors.map(bytesOfHex),
    noticeSigners: fleet.noticeSigners.map(({ keyId, algorithm, spki }) => ({
      keyId: bytesOfHex(keyId),
      algorithm,
      spki: bytesOfHex(spki),
    })),
    telemetrySeconds: 60,
    measure: () => Math.floor(Date.now() / 1000),
  },
  report,
)
