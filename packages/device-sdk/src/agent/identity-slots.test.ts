import { createHash, generateKeyPairSync } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { parseCertificate } from '../core/certificate.ts'
import { csrAssemble, csrInfo } from '../core/csr.ts'
import { COMMON_NAME, encodeName } from '../core/distinguished-name.ts'
import { memoryStore } from '../ports/node/store.ts'
import { testAuthority } from '../testing/authority.ts'
import { ACTIVE, type Identity, PENDING, REVOKED, readSlots, writeSlot } from './identity-slots.ts'

const hash = { sha256: (bytes: Uint8Array) => new Uint8Array(createHash('sha256').update(bytes).digest()) }
const authority = testAuthority('Root')
const subject = encodeName([{ oid: COMMON_NAME, value: 'dev-1' }])
const spki = new Uint8Array(generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'der' }))
const certificate = parseCertificate(
  authority.issue({ profile: 'client', subject, spki, notBefore: 1767225600, notAfter: 1798761600 }),
)
const csr = csrAssemble(csrInfo(encodeName([]), spki, []), 'ecdsa-sha256', new Uint8Array(70))
const identity = (generation: number): Identity => ({ generation, state: PENDING, since: 0, csr, chain: [] })

describe('identity slots', () => {
  it('give back what was recorded, field by field', () => {
    const store = memoryStore()
    writeSlot(store, hash, identity(7), ACTIVE, 4_000_000_000, [certificate, certificate])
    const { active, pending } = readSlots(store, hash)
    expect(pending).toBeNull()
    expect(active).toMatchObject({ generation: 7, state: ACTIVE, since: 4_000_000_000 })
    expect(active?.csr).toEqual(csr)
    expect(active?.chain.map(one => one.der)).toEqual([certificate.der, certificate.der])
    expect(store.get('op-1')).not.toBeNull()
    expect(store.get('op-0')).toBeNull()
  })

  it('prefer the newer generation, and call it pending only while it is', () => {
    const store = memoryStore()
    writeSlot(store, hash, identity(4), ACTIVE, 1, [certificate])
    const next = identity(5)
    writeSlot(store, hash, next, PENDING, 0, [])
    expect(readSlots(store, hash)).toMatchObject({ active: { generation: 4 }, pending: { generation: 5 } })
    writeSlot(store, hash, next, ACTIVE, 2, [certificate])
    expect(readSlots(store, hash)).toMatchObject({ active: { generation: 5 }, pending: null })
    writeSlot(store, hash, next, REVOKED, 2, [certificate])
    expect(readSlots(store, hash)).toMatchObject({ active: { generation: 5, state: REVOKED }, pending: null })
  })

  it('[F56] fall back to the older identity when the newer record is damaged anywhere, or is of a later firmware', () => {
    const store = memoryStore()
    writeSlot(store, hash, identity(4), ACTIVE, 1, [certificate])
    writeSlot(store, hash, identity(5), ACTIVE, 2, [certificate])
    const good = store.get('op-1') as Uint8Array
    for (let at = 0; at < good.length; at += 7) {
      const bad = good.slice()
      bad[at] ^= 0x10
      store.put('op-1', bad)
      expect(readSlots(store, hash).active?.generation).toBe(4)
    }
    for (const length of [0, 1, 31, 32, 33, good.length - 1]) {
      store.put('op-1', good.subarray(0, length))
      expect(readSlots(store, hash).active?.generation).toBe(4)
    }
    const later = good.slice(0, -32)
    later[later.indexOf(0x31)] = 0x32
    store.put('op-1', new Uint8Array([...later, ...hash.sha256(later)]))
    expect(readSlots(store, hash).active?.generation).toBe(4)
  })

  it('[F57] keep their fields when the record cannot be written', () => {
    const store = memoryStore()
    const broken = {
      ...store,
      put: () => {
        throw new Error('EROFS')
      },
    }
    const one = identity(1)
    expect(() => writeSlot(broken, hash, one, ACTIVE, 9, [certificate])).toThrow('EROFS')
    expect(one).toMatchObject({ state: PENDING, since: 0, chain: [] })
  })
})
