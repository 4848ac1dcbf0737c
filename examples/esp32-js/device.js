// What both boards do, in the device subset: keep the device enrolled, keep its line to the broker open with the identity in use, tell what they measure,
// and obey a notice. Ports, settings and the line are the board's.
import { createAgent, slotOf } from '@birthmark/device-sdk/agent'
import { membershipOf, utf8Bytes } from '@birthmark/device-sdk/core'
import { createDeviceReceiver } from '@birthmark/fleet-revocation/device'

/** A line that ended is opened again after this long, twice as long each time it fails, up to a quarter of an hour; and up to twice that, at random. */
const reopenSeconds = 15
const reopenSecondsMax = 900

/**
 * Returns the agent, started, or about to where `ports.clock` is a TrustedClock. `openBus(identity, events)`: opens a line as `{ deviceId, slot, chain }` (DER, leaf first) and returns a BusSession.
 * `report(line)`: a serial port, an LED, a log. `settings.measure()`: what telemetry carries, as JSON.
 */
export function startDevice(ports, openBus, settings, report) {
  let session = null
  let failures = 0
  let subscribed = []
  let cancelTimer = null

  const after = function (seconds, act) {
    if (cancelTimer) cancelTimer()
    cancelTimer = ports.clock.setTimer(seconds, act)
  }
  const disconnect = function () {
    if (cancelTimer) cancelTimer()
    cancelTimer = null
    if (session) session.close()
    session = null
    subscribed = []
  }
  const agent = createAgent(
    ports,
    {
      label: settings.label || null,
      birthAnchors: settings.birthAnchors,
      operationalAnchors: settings.operationalAnchors,
      secret: null,
      name: new Uint8Array(0),
      algorithms: ['ecdsa-sha256'],
      timeFloor: settings.builtAt,
      prove: null,
    },
    function (type, value) {
      if (type === 'failed') report('failed ' + value.code)
      else if (type === 'active') {
        report('active ' + value.generation)
        connect()
      } else if (type === 'revoked') {
        report('revoked by ' + value)
        disconnect()
        if (ports.clock.stop) ports.clock.stop()
      }
    },
  )
  const receiver = createDeviceReceiver({
    fleet: settings.fleet,
    membership: function () {
      const identity = agent.identity()
      return identity ? membershipOf(identity.chain[0]) : null
    },
    issuerKeyId: function () {
      const identity = agent.identity()
      return identity ? identity.chain[0].authorityKeyId : null
    },
    signers: settings.noticeSigners,
    verify: ports.verify,
    store: ports.store,
  })
  /** What the receiver wants to hear now, which grows while notices are missing. */
  const subscribe = function () {
    const fresh = receiver.topics.filter(function (topic) {
      return subscribed.indexOf(topic) < 0
    })
    if (fresh.length === 0) return
    // Before the call, during which a message may come.
    subscribed = subscribed.concat(fresh)
    if (session.subscribe(fresh)) return
    report('failed to subscribe')
    subscribed = subscribed.filter(function (topic) {
      return fresh.indexOf(topic) < 0
    })
  }
  const tell = function () {
    // What was not taken before is asked for again.
    subscribe()
    const reading = { seq: receiver.progress().seq, value: settings.measure() }
    if (session && session.publish('devices/' + agent.status().deviceId + '/telemetry', utf8Bytes(JSON.stringify(reading))))
      report('published')
    // A line that ended meanwhile is opened again, and that tells.
    if (session) after(settings.telemetrySeconds, tell)
  }
  const hear = function (topic, payload) {
    receiver.receive(topic, payload, function (error, revoked) {
      if (error) report('failed ' + error.code)
      if (revoked) agent.revoke('notice')
      else if (session) subscribe()
    })
  }
  const connect = function () {
    disconnect()
    const identity = agent.identity()
    if (!identity) return
    const chain = identity.chain.map(function (certificate) {
      return certificate.der
    })
    session = openBus(
      { deviceId: agent.status().deviceId, slot: slotOf(identity), chain: chain },
      {
        online: function () {
          failures = 0
          report('connected ' + identity.generation)
          tell()
        },
        message: hear,
        closed: function () {
          report('disconnected')
          disconnect()
          const seconds = Math.min(reopenSeconds << Math.min(failures, 10), reopenSecondsMax)
          failures++
          after(seconds + Math.floor((seconds * ports.rng.random(1)[0]) / 256), connect)
        },
      },
    )
  }
  // From an earlier life: connect with what there is.
  connect()
  // A clock that has to be told the time is told first.
  if (ports.clock.start)
    ports.clock.start(function () {
      agent.start()
    })
  else agent.start()
  return agent
}
