import { expect, test } from 'vitest'
import { addressGroup, type Connection, createConnectionGate } from './connection-gate.ts'
import { defaultLimits, type Limits } from './limits.ts'

function gateWith(limits: Partial<Limits>) {
  const time = { now: 1000 }
  const gate = createConnectionGate({ ...defaultLimits, ...limits }, () => time.now)
  const destroyed: string[] = []
  function admit(name: string, address = name): Connection | null {
    const connection = gate.admit(address, () => {
      destroyed.push(name)
      // What a socket's 'close' event does.
      if (connection) gate.leave(connection)
    })
    return connection
  }
  return { gate, time, admit, destroyed }
}

test('each phase ends at its own deadline, oldest first', () => {
  const { gate, time, admit, destroyed } = gateWith({ handshakeSeconds: 10, headSeconds: 20 })
  admit('silent')
  const idle = admit('idle')!
  time.now += 5
  gate.enter(idle, 'head')
  admit('late')
  time.now += 6
  gate.sweep()
  expect(destroyed).toEqual(['silent'])
  time.now += 14
  gate.sweep()
  expect(destroyed).toEqual(['silent', 'late', 'idle'])
  expect(gate.size).toBe(0)
})

test('[F71] a full gate lets go of who waited longest, and of nobody who is owed an answer', () => {
  const { gate, time, admit, destroyed } = gateWith({ connectionsMax: 3 })
  const asked = admit('asked')!
  gate.enter(asked, 'answer')
  time.now++
  admit('dripping')
  time.now++
  const idle = admit('idle')!
  gate.enter(idle, 'head')
  time.now++
  expect(admit('newcomer')).not.toBeNull()
  expect(destroyed).toEqual(['dripping'])
  expect(admit('another')).not.toBeNull()
  expect(destroyed).toEqual(['dripping', 'idle'])
  expect(gate.size).toBe(3)
})

test('[F71] who announces a body and does not send it makes room like any other', () => {
  const { gate, time, admit, destroyed } = gateWith({ connectionsMax: 3 })
  const sending = ['first', 'second', 'third'].map(name => admit(name)!)
  for (const connection of sending) {
    time.now++
    gate.enter(connection, 'body')
  }
  gate.enter(sending[0], 'answer')
  expect(admit('newcomer')).not.toBeNull()
  expect(destroyed).toEqual(['second'])
})

test('[F71] with everybody being answered a newcomer is refused', () => {
  const { gate, admit } = gateWith({ connectionsMax: 2 })
  for (const name of ['a', 'b']) gate.enter(admit(name)!, 'answer')
  expect(admit('c')).toBeNull()
})

test('one address has its share and no more, and gets it back', () => {
  const { gate, admit } = gateWith({ connectionsPerAddressMax: 2 })
  const first = admit('1', '10.0.0.1')!
  admit('2', '10.0.0.1')
  expect(admit('3', '10.0.0.1')).toBeNull()
  expect(admit('4', '10.0.0.2')).not.toBeNull()
  gate.leave(first)
  gate.leave(first)
  expect(admit('5', '10.0.0.1')).not.toBeNull()
  expect(admit('6', '10.0.0.1')).toBeNull()
})

test('[F72] a flood from one address is cut to its rate, even when every connection is closed again', () => {
  const { gate, time, admit } = gateWith({ connectionBurstPerAddress: 5, connectionsPerSecondPerAddress: 2 })
  function burst(): number {
    let admitted = 0
    for (let i = 0; i < 20; i++) {
      const connection = admit('x', '10.0.0.1')
      if (!connection) continue
      admitted++
      gate.leave(connection)
    }
    return admitted
  }
  expect(burst()).toBe(5)
  time.now += 1
  expect(burst()).toBe(2)
  time.now += 60
  expect(burst()).toBe(5)
})

test('[F72] a costly handshake counts as several', () => {
  const { gate, admit } = gateWith({ connectionBurstPerAddress: 5, connectionsPerSecondPerAddress: 2 })
  const costly = admit('a', '10.0.0.1')!
  gate.charge(costly, 3)
  gate.leave(costly)
  expect(admit('b', '10.0.0.1')).not.toBeNull()
  expect(admit('c', '10.0.0.1')).toBeNull()
})

test('an expiry that can end in an answer gets one more turn, then the socket goes', () => {
  const { gate, time, admit, destroyed } = gateWith({ bodySeconds: 5 })
  const slow = admit('slow')!
  gate.enter(slow, 'body')
  let answered = 0
  slow.expire = () => answered++
  time.now += 5
  gate.sweep()
  expect([answered, destroyed]).toEqual([1, []])
  time.now += 5
  gate.sweep()
  expect([answered, destroyed]).toEqual([1, ['slow']])
})

test('an IPv6 host is its /64, a mapped IPv4 address is IPv4', () => {
  expect(addressGroup('192.0.2.7')).toBe('192.0.2.7')
  expect(addressGroup('::ffff:192.0.2.7')).toBe('192.0.2.7')
  expect(addressGroup('2001:db8:1:2:3:4:5:6')).toBe('2001:db8:1:2::/64')
  expect(addressGroup('2001:db8:1:2::6')).toBe('2001:db8:1:2::/64')
  expect(addressGroup('2001:db8::6')).toBe('2001:db8:0:0::/64')
  expect(addressGroup('fe80::1%eth0')).toBe('fe80:0:0:0::/64')
  expect(addressGroup('::1')).toBe('0:0:0:0::/64')
})
