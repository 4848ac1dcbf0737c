// A chain of hand-overs: who may hand over, and what is refused.
import { expect, test } from 'vitest'
import { handOver, readOwners } from './ownership.ts'
import { generateSigningKey, keyTypes } from './signing-key.ts'

const line = generateSigningKey().key
const manifest = { digest: 'ab'.repeat(32), signerKey: line.spki }
const acme = generateSigningKey('P-384').key
const bolt = generateSigningKey('Ed25519').key
const coil = generateSigningKey('RSA-2048').key

async function sold(): Promise<string> {
  const first = await handOver('', manifest, { name: 'Acme Fleet', key: acme.spki }, line, 100)
  const second = await handOver(first, manifest, { name: 'Bolt', key: bolt.spki }, acme, 200)
  return handOver(second, manifest, { name: 'Coil & Söhne', key: coil.spki }, bolt, 300)
}

test('each holder is named by the one before, from the line on', async () => {
  const owners = readOwners(await sold(), manifest)
  expect(owners.map(({ to, made }) => [to.name, made])).toEqual([
    ['Acme Fleet', 100],
    ['Bolt', 200],
    ['Coil & Söhne', 300],
  ])
  expect(readOwners('', manifest)).toEqual([])
})

test('only the last holder hands over: not a stranger, not one who had them before', async () => {
  const chain = await sold()
  for (const key of [line, acme, generateSigningKey().key])
    await expect(handOver(chain, manifest, { name: 'Thief', key: key.spki }, key, 400)).rejects.toMatchObject({
      code: 'handover_refused',
    })
  await expect(handOver('', manifest, { name: 'Thief', key: bolt.spki }, bolt, 400)).rejects.toMatchObject({
    code: 'handover_refused',
  })
})

test('every kind of key that the line knows can hold and hand over', async () => {
  let chain = ''
  let holder = line
  for (const type of keyTypes) {
    const { key } = generateSigningKey(type)
    chain = await handOver(chain, manifest, { name: type, key: key.spki }, holder, 1)
    holder = key
  }
  expect(readOwners(chain, manifest).map(({ to }) => to.name)).toEqual(keyTypes)
})

test('a changed, forged, missing, moved or repeated line, and one of another manifest, are refused', async () => {
  const chain = await sold()
  const lines = chain.split('\n').slice(0, -1)
  const join = (...of: string[]) => of.map(each => `${each}\n`).join('')
  const code = (text: string, about = manifest) => {
    try {
      readOwners(text, about)
      return 'taken'
    } catch (error) {
      return (error as { code: string }).code
    }
  }
  const changed = (text: string, change: (payload: object) => void) => {
    const parsed = JSON.parse(text)
    const payload = JSON.parse(Buffer.from(parsed.payload, 'base64').toString())
    change(payload)
    return JSON.stringify({ ...parsed, payload: Buffer.from(JSON.stringify(payload)).toString('base64') })
  }
  expect(
    code(
      join(
        lines[0],
        changed(lines[1], payload => Object.assign(payload, { made: 150 })),
        lines[2],
      ),
    ),
  ).toBe('handover_signature')
  expect(
    code(
      join(
        lines[0],
        changed(lines[1], payload => Object.assign(payload, { to: { name: 'Thief', key: 'AAAA' } })),
        lines[2],
      ),
    ),
  ).toBe('handover_signature')
  expect(code(join(lines[0], lines[2]))).toBe('handover_order')
  expect(code(join(lines[1], lines[0], lines[2]))).toBe('handover_order')
  expect(code(join(...lines, lines[2]))).toBe('handover_order')
  expect(code(chain, { ...manifest, digest: 'cd'.repeat(32) })).toBe('handover_order')
  expect(code(chain, { ...manifest, signerKey: acme.spki })).toBe('handover_signature')
  // Cut short is a chain that ends earlier: whoever buys sees that it does not end with the seller.
  expect(readOwners(join(lines[0], lines[1]), manifest).at(-1)?.to.name).toBe('Bolt')
  const forged = { ...JSON.parse(lines[2]), algorithm: 'none' }
  expect(code(join(lines[0], lines[1], JSON.stringify(forged)))).toBe('handover_signature')
})

test('[F8] garbage, deep, long and half lines are malformed, and every byte of a chain counts', async () => {
  for (const text of ['x', 'x\n', '[]\n', '{}\n', `${'{"a":'.repeat(9000)}\n`, `"${'a'.repeat(40_000)}"\n`, '\n'.repeat(101)])
    expect(() => readOwners(text, manifest)).toThrow(expect.objectContaining({ code: 'handover_malformed' }))
  const chain = await sold()
  for (let i = 0; i < chain.length; i += 5) {
    const broken = `${chain.slice(0, i)}${chain[i] === 'A' ? 'B' : 'A'}${chain.slice(i + 1)}`
    expect(() => readOwners(broken, manifest)).toThrow(expect.objectContaining({ code: expect.stringMatching(/^handover_/) }))
  }
})
