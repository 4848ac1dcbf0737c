// The byte-exact examples of docs/revocation-format.md. The file is compared with what this version writes; `vitest run -u` on this file writes
// it anew, and whoever does that has changed the format.
import { createHash, createPrivateKey, createPublicKey, sign } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { hexOf } from '@birthmark/device-sdk/core'
import { expect, it } from 'vitest'
import { encodeAcknowledgement } from './acknowledgement.ts'
import { encodeAnswerBody, encodeQuestion } from './answer.ts'
import { checkBlockProof } from './block-proof.ts'
import { encodeHeartbeat, heartbeatChain } from './heartbeat.ts'
import { encodeRange, encodeRice, runsOf } from './list-encoder.ts'
import { createRevokedTree, nodeSha256 } from './revoked-tree.ts'
import type { Rule } from './rule.ts'
import { packRules, rulesOfIndices } from './rule-packing.ts'
import { createRuleSet } from './rule-set.ts'
import { type NoticeKey, noticeKeyId, noticeSha256, signNotice, signPayload } from './sign-notice.ts'
import { signSnapshot } from './snapshot.ts'

/** Ed25519, since its signatures are the same every time; the seed is 32 times one byte. */
function exampleKey(octet: number): NoticeKey & { spki: Uint8Array } {
  const der = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), Buffer.alloc(32, octet)])
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
  const spki = new Uint8Array(createPublicKey(key).export({ format: 'der', type: 'spki' }))
  return { algorithm: -8, keyId: noticeKeyId(spki), spki, sign: async bytes => new Uint8Array(sign(null, bytes, key)) }
}

it('the examples in the documentation are what is written', async () => {
  const out: string[] = ['Examples of docs/revocation-format.md, in hexadecimal, 32 bytes a line.\n']
  const show = (what: string, bytes: Uint8Array): void => {
    out.push(`${what} (${bytes.length} bytes)\n${(hexOf(bytes).match(/.{1,64}/g) ?? []).join('\n')}\n`)
  }
  const [one, two] = [exampleKey(1), exampleKey(2)]
  const secret = new Uint8Array(32).fill(3)
  const body = (seq: number, previousSha256: Uint8Array | null, rules: Rule[]) => ({
    ...{ fleet: 'example', seq, previousSha256, issuedAt: 1_800_000_000 + seq, maxAgeSeconds: 30 },
    ...{ heartbeatAnchor: heartbeatChain(secret, 'example', seq).anchor, rules, root: null, floor: 0 },
  })

  show('key 1: SubjectPublicKeyInfo, Ed25519 from the seed 01 … 01', one.spki)
  show('key 1: key id', one.keyId)
  show('key 2: SubjectPublicKeyInfo, from 02 … 02', two.spki)

  const first = await signNotice(body(1, null, [{ kind: 'group', gid: 7, bound: 1000, reason: 1 }]), one)
  show('notice 1: group 7, bound 1000, reason 1; the first, signed by key 1', first)
  show('notice 1: what it is known by', noticeSha256(first))

  const rules: Rule[] = [
    ...packRules([
      { kind: 'group', gid: 7, bound: 1000 },
      { kind: 'group', gid: 300, bound: 70_000 },
    ]),
    { kind: 'range', start: 5000, length: 64 },
    { kind: 'issuer', keyId: new Uint8Array(20).fill(0xaa) },
    ...rulesOfIndices([10, 11, 15, 1000], 8192),
  ]
  const tree = createRevokedTree()
  for (const [start, length] of [
    [10, 2],
    [15, 1],
    [1000, 1],
    [5000, 64],
  ])
    tree.add(start, length)
  const second = await signNotice({ ...body(2, noticeSha256(first), rules), root: tree.root(), floor: 3 }, [one, two], {
    countersign: true,
  })
  show(
    'notice 2: groups 7 and 300, range 5000 + 64, an issuer, certificates 10 11 15 1000, a root, floor 3; countersigned by key 2',
    second,
  )

  const indices = runsOf([0, 1, 5, 990])
  show('list of 0 1 5 990 in a span of 991, code 1 (Golomb-Rice)', encodeRice(991, indices))
  show('the same, code 2 (range coder)', encodeRange(991, indices))
  const everyThird = runsOf([...Array(600).keys()].map(n => 3 * n))
  show('list of every third below 1800, span 1800, code 1: three blocks', encodeRice(1800, everyThird))
  show('the same, code 2', encodeRange(1800, everyThird))

  const chain = heartbeatChain(secret, 'example', 1)
  show('heartbeat of notice 1 at step 2', encodeHeartbeat({ seq: 1, i: 2, link: chain.link(2) }))
  const proof = tree.prove(2, 15)
  show('block proof for certificate 15 under the root of notice 2: revoked', proof)
  expect(checkBlockProof(proof, 2, tree.root(), 15, nodeSha256)).toBe('revoked')
  show('block proof for certificate 123456: good', tree.prove(2, 123_456))
  show('tree: root', tree.root())

  const set = createRuleSet(rules, 3)
  const facts = { seq: 2, noticeSha256: noticeSha256(second), rules: set }
  for (const [shard, bytes] of (await signSnapshot('example', facts, 1_800_000_010, [one])).entries())
    show(`snapshot at notice 2, shard ${shard}, signed by key 1`, bytes)

  const nonce = new Uint8Array(createHash('sha256').update('nonce').digest().subarray(0, 16))
  show('question of unit-1', encodeQuestion({ device: 'unit-1', nonce, idx: -1 }))
  const answer = { fleet: 'example', seq: 2, noticeSha256: noticeSha256(second), issuedAt: 1_800_000_020, nonce, device: 'unit-1' }
  show('answer to it, signed by key 1', await signPayload('answer', encodeAnswerBody({ ...answer, proof: null }), [one]))
  show(
    'acknowledgement of gateway: notice 2, at 1800000003, 12 sessions',
    encodeAcknowledgement({ relyingParty: 'gateway', seq: 2, appliedAt: 1_800_000_003, sessionsClosed: 12 }),
  )
  const file = fileURLToPath(new URL('../../../docs/revocation-examples.txt', import.meta.url))
  await expect(out.join('\n')).toMatchFileSnapshot(file)
})
