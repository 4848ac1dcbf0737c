// The device's whole life as one script for any engine, in the device subset: birth check, refused answers, enrollment, reboot, renewal, notice,
// revoked. Between two of its lives the engine starts anew. What needs keys, signatures, randomness, a medium or a network is lent by the host as bytes, so that a run that was recorded on Node
// can be played to an engine that has none of these: it must ask the same, in the same order, byte for byte.
import type { Agent, AgentPorts, createAgent, Hash, Identity, Verify } from '@birthmark/device-sdk/agent'
import type { Bytes, DeviceError } from '@birthmark/device-sdk/core'
import type { createDeviceReceiver, DeviceReceiver } from '@birthmark/fleet-revocation/device'

export interface Given {
  now: number
  algorithms: string[]
  /** Of the notices' signatures, by COSE. */
  noticeAlgorithm: number
  /** How many there are; the second revokes. */
  notices: number
}

export interface Bundles {
  createAgent: typeof createAgent
  createDeviceReceiver: typeof createDeviceReceiver
  /** Where the engine itself verifies notices. */
  p256Verify?: (hash: Hash) => Verify
}

export interface Waiting {
  /** Method, path and key slot (`-`: none); empty: nothing is asked, it is only the next turn. */
  text: string
  /** Empty: none. */
  body: Bytes
  /** DER certificates, one after the other. */
  chain: Bytes
  /** Status, `|`, content type, `|` and the body; null: the network failed. */
  answer(bytes: Bytes | null): void
}

/**
 * What the host does: the name of a port's function, its textual argument, its bytes, and what comes back. `say` tells what happened, `given`
 * fetches what the device was made with.
 */
export type Lend = (name: string, text: string, one?: Bytes, two?: Bytes, three?: Bytes) => Bytes | null

/** From boot to boot: an answer by a stranger's CA, an answer that is lost, the same request again and all that follows, and revoked. */
export const lives = 4
export const wholeLife = 2

/** Returns what the host has to answer, one at a time, until there is nothing. */
export function startStory(bundles: Bundles, given: Given, lend: Lend, life: number): Waiting[] {
  const waiting: Waiting[] = []
  const say = function (line: string): void {
    lend('say', line)
  }
  const lent = function (name: string, text: string): Bytes {
    return lend(name, text) as Bytes
  }
  const joined = function (parts: Bytes[]): Bytes {
    let length = 0
    for (let i = 0; i < parts.length; i++) length += parts[i].length
    const out = new Uint8Array(length)
    length = 0
    for (let i = 0; i < parts.length; i++) {
      out.set(parts[i], length)
      length += parts[i].length
    }
    return out
  }
  /** Up to the next `|` from `at`. */
  const fieldOf = function (bytes: Bytes, at: number): string {
    let text = ''
    for (let i = at; bytes[i] !== 124; i++) text += String.fromCharCode(bytes[i])
    return text
  }
  const hash: Hash = {
    sha256: function (bytes) {
      return lend('sha256', '', bytes) as Bytes
    },
  }
  const verify: Verify = {
    verify: function (spki, algorithm, message, signature, done) {
      done(lend('verify', algorithm, spki, message, signature) !== null)
    },
  }
  const ports: AgentPorts = {
    hash: hash,
    verify: verify,
    keys: {
      algorithm: 'ecdsa-sha256',
      generate: function (slot, done) {
        done(null, lend('generate', slot))
      },
      publicKey: function (slot, done) {
        done(null, lend('publicKey', slot))
      },
      sign: function (slot, message, done) {
        done(null, lend('sign', slot, message))
      },
    },
    rng: {
      random: function (length) {
        return lent('random', '' + length)
      },
    },
    store: {
      get: function (name) {
        return lend('get', name)
      },
      put: function (name, value) {
        lend('put', name, value)
      },
      remove: function (name) {
        lend('remove', name)
      },
    },
    http: {
      request: function (request, tls, done) {
        waiting.push({
          text: request.method + ' ' + request.path + ' ' + (tls.slot || '-'),
          body: request.body || new Uint8Array(0),
          chain: joined(tls.chain),
          answer: function (bytes) {
            if (bytes) {
              const status = fieldOf(bytes, 0)
              const type = fieldOf(bytes, status.length + 1)
              const body = bytes.subarray(status.length + type.length + 2)
              done(null, { status: +status, headers: { 'content-type': type }, body: body })
            } else {
              const error = new Error('network') as DeviceError
              error.code = 'network'
              done(error, null)
            }
          },
        })
        return function () {}
      },
    },
    clock: {
      now: function () {
        return given.now
      },
      setTimer: function () {
        return function () {}
      },
    },
  }
  /** What comes next comes from the event loop, as on a device, and not from within what comes before. */
  const later = function (go: () => void): void {
    waiting.push({ text: '', body: new Uint8Array(0), chain: new Uint8Array(0), answer: go })
  }
  const agent: Agent = bundles.createAgent(
    ports,
    {
      label: null,
      birthAnchors: [lent('given', 'birthAnchor')],
      operationalAnchors: [],
      secret: null,
      name: new Uint8Array(0),
      algorithms: given.algorithms,
      timeFloor: given.now - 86400,
      prove: null,
    },
    function (type, value) {
      const identity = value as Identity
      say(
        'event ' +
          type +
          ' ' +
          (identity && identity.generation ? identity.generation : typeof value === 'object' ? (value as DeviceError).code : value),
      )
    },
  )
  const receiver: DeviceReceiver = bundles.createDeviceReceiver({
    fleet: 'acme',
    membership: function () {
      return { fleet: 'acme', idx: 10, gids: [7, 9] }
    },
    signers: [{ keyId: lent('given', 'keyId'), algorithm: given.noticeAlgorithm, spki: lent('given', 'spki') }],
    verify: bundles.p256Verify ? bundles.p256Verify(hash) : verify,
    store: ports.store,
  })
  const status = agent.status()
  say(['boot', status.state, status.deviceId, status.generation, status.notAfter, status.renewAt, receiver.revoked()].join(' '))
  const end = function (error: DeviceError | null): void {
    say('ended ' + (error ? error.code : 'well') + ' ' + agent.status().state + ' ' + agent.status().generation)
  }
  const hear = function (at: number): void {
    later(function () {
      receiver.receive(receiver.topics[0], lent('given', 'notice-' + at), function (refused, revoked) {
        say('notice ' + (refused ? refused.code : 'taken') + ' ' + revoked)
        if (revoked) agent.revoke('notice')
        if (at + 1 < given.notices) hear(at + 1)
      })
    })
  }
  later(function () {
    agent.enroll(false, function (error) {
      end(error)
      if (life !== wholeLife) return
      later(function () {
        agent.renew(function (refused) {
          end(refused)
          hear(0)
        })
      })
    })
  })
  return waiting
}
