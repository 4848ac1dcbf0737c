// The main module for Moddable on an ESP32. Bundle it first (see README.md): Moddable's own modules stay imports.
import {
  moddableClock,
  moddableHash,
  moddableHttp,
  moddableKeys,
  moddableRng,
  moddableVerify,
  preferenceStore,
} from '@birthmark/device-sdk/moddable'
import { Digest } from 'crypt'
import Curve from 'curve'
import ECDSA from 'ecdsa'
import entropy from 'entropy'
import config from 'mc/config'
import Preference from 'preference'
import secureClient from 'secure-client'
import Timer from 'timer'
import { startDevice } from '../device.js'

const crypto = { Digest: Digest, Curve: Curve, ECDSA: ECDSA, entropy: entropy }
// SNTP sets the clock after the network is up; until then it shows 1970, and the agent is told that nothing is known.
const now = () => (Date.now() / 1000 < config.builtAt ? -1 : Math.floor(Date.now() / 1000))

startDevice(
  {
    hash: moddableHash(crypto),
    verify: moddableVerify(crypto),
    keys: moddableKeys(crypto, Preference),
    rng: moddableRng(crypto),
    store: preferenceStore(Preference),
    http: moddableHttp(tls => secureClient(config.host, config.port, tls), Timer),
    clock: moddableClock(Timer, now),
  },
  { builtAt: config.builtAt, birthAnchors: [], operationalAnchors: [] },
  line => trace(line + '\n'),
)
