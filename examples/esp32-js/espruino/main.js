// The main script for Espruino on an ESP32 with an ATECC608, behind a gateway that speaks TLS for it. Bundle it first (see README.md).
import { gatewayHttp } from '@birthmark/device-sdk/agent'
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
 * `board`: { element (or null), sha256, storage, timers, serial (or http), openBus, now, config, print }: what is soldered and built in, the UART on whose other
 * end a gateway listens (or an Http of the firmware's own), and its line to the broker. Null where no key can be made.
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
  const clock = espruinoClock(board.timers, board.now)
  return startDevice(
    {
      hash: hash,
      verify: elementVerify(element, hash),
      keys: keys,
      rng: elementRng(element),
      store: storageStore(board.storage),
      http: board.http || gatewayHttp(serialLink(board.serial, clock), keys, hash, clock),
      clock: clock,
    },
    board.openBus,
    board.config,
    board.print,
  )
}
