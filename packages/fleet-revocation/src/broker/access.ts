// Who may write and read which topic. Pure: the broker asks it for every PUBLISH, Will, SUBSCRIBE and delivery, so that a subscription
// that slipped in somewhere still delivers nothing. What isn't listed is denied.

import { ringSize } from '../notice.ts'
import type { Peer } from './peer.ts'

// Longer or deeper topics have no use here and cost the matcher.
const topicCharactersMax = 256
const topicLevelsMax = 16

/** No control characters (NUL among them), replacement or byte-order marks, noncharacters or lone surrogates: MQTT 1.5.3, and look-alikes. */
function isPlain(topic: string): boolean {
  if (topic.length === 0 || topic.length > topicCharactersMax) return false
  if (/[\u0000-\u001f\u007f-\u009f\ufdd0-\ufdef\ufeff\ufffd-\uffff]|\p{Cs}/u.test(topic)) return false
  return topic.split('/').length <= topicLevelsMax
}

function isFilter(filter: string): boolean {
  return filter
    .split('/')
    .every((level, i, levels) => level === '+' || (level === '#' && i === levels.length - 1) || !/[+#]/.test(level))
}

/** Whether everything that `filter` can match is matched by `pattern` (which may end in `#` and contain `+`). */
export function within(filter: string, pattern: string): boolean {
  const wanted = filter.split('/')
  const allowed = pattern.split('/')
  for (let i = 0; i < allowed.length; i++) {
    // `a/#` also matches `a` itself (MQTT 4.7.1.2), and so do both sides of this comparison.
    if (allowed[i] === '#') return true
    if (i >= wanted.length || wanted[i] === '#') return false
    if (allowed[i] !== '+' && allowed[i] !== wanted[i]) return false
  }
  return wanted.length === allowed.length
}

interface Access {
  write: string[]
  /** Of `write`, those that may be retained. */
  retain: string[]
  read: string[]
}

/** The table. Patterns use MQTT's wildcards. */
export function accessOf(peer: Peer, fleet: string): Access {
  const fr = `fr/1/${fleet}`
  const notices = [`${fr}/head`, `${fr}/n/+`, `${fr}/hb`]
  if (peer.kind === 'device') {
    const own = `devices/${peer.id}/#`
    return { write: [own, `${fr}/req`], retain: [], read: [own, ...notices, `${fr}/rsp/${peer.id}`] }
  }
  switch (peer.role) {
    case 'publisher': {
      // It takes back the word of a relying party that is retired, whose certificate may be gone.
      const write = [...notices, `${fr}/snap/+`, `${fr}/rsp/+`, `${fr}/ack/+`]
      return { write, retain: write, read: [`${fr}/#`] }
    }
    case 'relying-party': {
      const ack = [`${fr}/ack/${peer.id}`]
      return { write: ack, retain: ack, read: [...notices, `${fr}/snap/+`] }
    }
    case 'observer':
      return { write: [], retain: [], read: ['devices/#', ...notices] }
    case 'operator':
      return { write: ['devices/+/#'], retain: [], read: ['devices/#', ...notices] }
  }
}

export function mayPublish(access: Access, topic: string, retain: boolean): boolean {
  // A wildcard in a topic name would be matched as if it were a level: `+` is never a name (MQTT 3.3.2.1).
  if (!isPlain(topic) || /[+#]/.test(topic) || topic.startsWith('$')) return false
  const levels = topic.split('/').length
  // `devices/x/#` also covers `devices/x`, which is nobody's topic: nothing is published at a parent.
  return (retain ? access.retain : access.write).some(pattern => within(topic, pattern) && levels >= pattern.split('/').length)
}

export function mayRead(access: Access, topic: string): boolean {
  return access.read.some(pattern => within(topic, pattern))
}

export function maySubscribe(access: Access, filter: string): boolean {
  return isPlain(filter) && isFilter(filter) && access.read.some(pattern => within(filter, pattern))
}

/** Filters a peer may hold: every ring topic by itself, and as many of its own again. */
export const filtersMax = 2 * ringSize
