// The device's whole life as one script for any engine, in the device subset: birth check, refused answers, enrollment, reboot, renewal, notice,
// revoked. What needs keys, signatures, randomness or a network is lent by the host as text, so that a run that was recorded on Node can be
// played to an engine that has none of these: it must ask the same, in the same order, byte for byte.
import type { Agent, AgentPorts, createAgent, Identity } from '@birthmark/device-sdk/agent'
import type { Bytes, DeviceError } from '@birthmark/device-sdk/core'
import type { createDeviceReceiver, DeviceReceiver } from '@birthmark/fleet-revocation/device'

export interface Given {
  now: number
  /** Hex. */
  birthChain: string
  birthAnchor: string
  algorithms: string[]
  signer: { keyId: string; algorithm: number; spki: string }
  /** Hex; the second revokes. */
  notices: string[]
}

export interface Bundles {
  createAgent: typeof createAgent
  createDeviceReceiver: typeof createDeviceReceiver
}

export interface Story {
  /** What happened so far. */
  lines: string[]
  /** Requests that the host has to answer, one at a time, until there are none. */
  waiting: { ask: string; answer: (text: string) => void }[]
}

/** `name` of a port's function, its arguments and its answer as text; bytes in hex. */
export type Lend = (name: string, argument: string) => string

const digits = '0123456789abcdef'

function hex(bytes: Bytes): string {
  let out = ''
  for (let i = 0; i < bytes.length; i++) out += digits.charAt(bytes[i] >> 4) + digits.charAt(bytes[i] & 15)
  return out
}

function unhex(text: string): Bytes {
  const out = new Uint8Array(text.length / 2)
  for (let i = 0; i < out.length; i++) out[i] = parseInt(text.substr(2 * i, 2), 16)
  return out
}

export function startStory(bundles: Bundles, given: Given, lend: Lend): Story {
  const story: Story = { lines: [], waiting: [] }
  const records: { [name: string]: Bytes | null } = { 'birth.chain': unhex(given.birthChain) }
  const say = function (line: string): void {
    story.lines.push(line)
  }
  const ports: AgentPorts = {
    hash: {
      sha256: function (bytes) {
        return unhex(lend('sha256', hex(bytes)))
      },
    },
    verify: {
      verify: function (spki, algorithm, message, signature, done) {
        done(lend('verify', [hex(spki), algorithm, hex(message), hex(signature)].join(' ')) === 'good')
      },
    },
    keys: {
      algorithm: 'ecdsa-sha256',
      generate: function (slot, done) {
        done(null, unhex(lend('generate', slot)))
      },
      publicKey: function (slot, done) {
        const spki = lend('publicKey', slot)
        done(null, spki ? unhex(spki) : null)
      },
      sign: function (slot, message, done) {
        done(null, unhex(lend('sign', slot + ' ' + hex(message))))
      },
    },
    rng: {
      random: function (length) {
        return unhex(lend('random', '' + length))
      },
    },
    store: {
      get: function (name) {
        return records[name] || null
      },
      put: function (name, value) {
        records[name] = unhex(hex(value))
      },
      remove: function (name) {
        records[name] = null
      },
    },
    http: {
      request: function (request, tls, done) {
        const ask = [
          request.method,
          request.path,
          request.body ? hex(request.body) : '-',
          tls.slot || '-',
          tls.chain.map(hex).join(','),
        ]
        story.waiting.push({
          ask: ask.join(' '),
          // `network`, or the status, the content type and the body.
          answer: function (text) {
            const parts = text.split('|')
            if (parts.length === 1) {
              const error = new Error(text) as DeviceError
              error.code = 'network'
              done(error, null)
            } else done(null, { status: +parts[0], headers: { 'content-type': parts[1] }, body: unhex(parts[2]) })
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
  let agent: Agent
  let receiver: DeviceReceiver
  const boot = function (): void {
    agent = bundles.createAgent(
      ports,
      {
        label: null,
        birthAnchors: [unhex(given.birthAnchor)],
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
            (identity && identity.generation
              ? identity.generation
              : typeof value === 'object'
                ? (value as DeviceError).code
                : value),
        )
      },
    )
    receiver = bundles.createDeviceReceiver({
      fleet: 'acme',
      membership: function () {
        return { fleet: 'acme', idx: 10, gids: [7, 9] }
      },
      signers: [{ keyId: unhex(given.signer.keyId), algorithm: given.signer.algorithm, spki: unhex(given.signer.spki) }],
      verify: ports.verify,
      store: ports.store,
    })
    const status = agent.status()
    say(['boot', status.state, status.deviceId, status.generation, status.notAfter, status.renewAt, receiver.revoked()].join(' '))
  }
  let step = 0
  const next = function (error: DeviceError | null): void {
    if (step) say('ended ' + (error ? error.code : 'well') + ' ' + agent.status().state + ' ' + agent.status().generation)
    step++
    // 1: an answer by a stranger's CA; 2: the answer is lost; 3: the same request again.
    if (step <= 3) {
      boot()
      agent.enroll(false, next)
    } else if (step === 4) agent.renew(next)
    else if (step === 5) {
      for (let i = 0; i < given.notices.length; i++)
        receiver.receive(receiver.topics[0], unhex(given.notices[i]), function (refused, revoked) {
          say('notice ' + (refused ? refused.code : 'taken') + ' ' + revoked)
          if (revoked) agent.revoke('notice')
        })
      boot()
      agent.enroll(false, next)
    }
  }
  next(null)
  return story
}
