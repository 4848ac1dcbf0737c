// The main script for Espruino on an ESP32 with an ATECC608, behind a gateway that speaks TLS for it. Bundle it first (see README.md).
import { gatewayHttp, trustedClock } from '@birthmark/device-sdk/agent'
import {
  elementKeys,
  elementRng,
  elementVerify,
  espruinoClock,
  espruinoHash,
  serialLink,
  stockKeys,
  storageStore,
} from '@birthmark/device-sdk/espruino'
import { startDevice } from '../device.js'

/**
 * `board`: { element (or null), sha256, storage, timers, serial (or http), openBus, now (or uptime), config, print }: what is soldered and built in, the UART on whose
 * other end a gateway listens (or an Http of the firmware's own), and its line to the broker. `now()`: seconds since 1970, −1 until known; a board without a clock has
 * `uptime()` in its place, seconds that only grow, and goes by the server's signed time. Null where no key can be made.
 */
export function main(board) {
  const element = board.element
  const hash = espruinoHash(board.sha256)
  const keys = element ? elementKeys(element, hash) : stockKeys()
  if (!element) {
    keys.generate('op-0', function (error) {
      board.print('failed ' + error.code)
    })
    return null
  }
  const verify = elementVerify(element, hash)
  const rng = elementRng(element)
  const store = storageStore(board.storage)
  const engine = espruinoClock(board.timers, board.now)
  const link = board.http ? null : serialLink(board.serial, engine)
  const clock = board.now
    ? engine
    : trustedClock({
        trust: 'signed',
        clock: engine,
        elapsed: board.uptime,
        floor: board.config.builtAt,
        store: store,
        source: {
          // Over the bare line: nobody has to prove himself for it, and without the time nobody can.
          http: board.http || {
            request: function (request, _tls, done) {
              return link.exchange(request, done)
            },
          },
          signers: board.config.noticeSigners,
          fleet: board.config.fleet,
          verify: verify,
          rng: rng,
        },
      })
  return startDevice(
    {
      hash: hash,
      verify: verify,
      keys: keys,
      rng: rng,
      store: store,
      http: board.http || gatewayHttp(link, keys, hash, clock),
      clock: clock,
    },
    board.openBus,
    board.config,
    board.print,
  )
}
