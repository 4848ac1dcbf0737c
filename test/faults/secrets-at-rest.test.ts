// Where PIN, passphrase and one-time secret are looked for while a real server runs: its whole memory, what it wrote, its store. What cannot be
// shown is in docs/keys.md: a software key is in the memory that signs with it, a PIN in the process of its token.
import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, it } from 'vitest'
import { prepareServing, type Serving } from '../support/serving.ts'
import { type SoftToken, softToken } from '../support/soft-token.ts'

let s: Serving | null = null
let token: SoftToken | null = null
afterEach(async () => {
  await s?.remove()
  token?.remove()
  s = null
  token = null
})

const sliceBytes = 4_194_304

/** How often `needle` stands in the memory that the process may write to: what a core file would hold. */
function inMemory(pid: number, needle: Buffer): number {
  const room = Buffer.allocUnsafe(sliceBytes)
  const memory = openSync(`/proc/${pid}/mem`, 'r')
  let hits = 0
  let read = 0
  try {
    for (const line of readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n')) {
      const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line) ?? []
      if (!from) continue
      const end = BigInt(`0x${to}`)
      for (let at = BigInt(`0x${from}`); at < end; at += BigInt(sliceBytes - needle.length)) {
        const length = Number(end - at < BigInt(sliceBytes) ? end - at : BigInt(sliceBytes))
        const slice = room.subarray(0, length)
        try {
          read += readSync(memory, slice, 0, length, at)
        } catch {
          // A guard page, or memory that is only reserved.
          continue
        }
        for (let found = slice.indexOf(needle); found >= 0; found = slice.indexOf(needle, found + 1)) hits++
      }
    }
  } finally {
    closeSync(memory)
  }
  // The look itself worked: a Node process has tens of megabytes.
  expect(read).toBeGreaterThan(20_000_000)
  return hits
}

/** Of text in one octet or two a character, as V8 keeps it. */
const anywhere = (pid: number, text: string) => inMemory(pid, Buffer.from(text)) + inMemory(pid, Buffer.from(text, 'utf16le'))

function inFiles(folder: string, text: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter(
    name => statSync(join(folder, name)).isFile() && readFileSync(join(folder, name)).includes(text),
  )
}

const childrenOf = (pid: number) =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number)

it('[F42] a PIN is in no memory of the server, no log and no file but its own', async () => {
  token = softToken()
  const { library, label, pin, pinFile } = token
  s = await prepareServing(yaml =>
    yaml.replace(
      / {2}key: issuer\/issuing.key.pem.*\n {2}passphrase:\n.*\n/,
      `  pkcs11: { library: ${library}, token: { label: ${label} }, key: { id: "01" }, pin: { file: ${pinFile} } }\n`,
    ),
  )
  const { createPrivateKey } = await import('node:crypto')
  const passphrase = readFileSync(join(s.folder, 'issuer', 'passphrase'), 'utf8').trim()
  const sealed = readFileSync(join(s.folder, 'issuer', 'issuing.key.pem'), 'utf8')
  const plain = createPrivateKey({ key: sealed, passphrase }).export({ type: 'pkcs8', format: 'pem' }).toString()
  token.importKey(plain, 'issuer', '01')
  const program = await s.start()
  await s.enroll('gw-1')
  const pid = program.child.pid as number
  // The look finds what is there.
  expect(anywhere(pid, token.pinFile)).toBeGreaterThan(0)
  expect(anywhere(pid, pin)).toBe(0)
  // The key itself is in neither process's reach but the token's.
  const scalar = Buffer.from(createPrivateKey(plain).export({ format: 'jwk' }).d as string, 'base64url')
  expect(inMemory(pid, scalar)).toBe(0)
  // No process of ours may leave a core file of the token.
  for (const child of childrenOf(pid)) expect(readFileSync(`/proc/${child}/limits`, 'utf8')).toMatch(/Max core file size\s+0\s+0/)
  const { stdout, stderr } = await program.stop('SIGTERM')
  expect(`${stdout}${stderr}`).not.toContain(pin)
  expect(inFiles(s.folder, pin)).toEqual([])
}, 120_000)

it('[F42] a passphrase is in no memory of the server, and a one-time secret in no log or file of it', async () => {
  s = await prepareServing()
  const passphrase = readFileSync(join(s.folder, 'issuer', 'passphrase'), 'utf8').trim()
  const program = await s.start()
  const minted = await s.administration.mintSecret({ device: 'gw-1', groups: [], minutes: 5 })
  const connection = await s.connect()
  expect((await s.ask(connection, minted))?.status).toBe(200)
  expect((await s.ask(connection, minted))?.status).toBe(401)
  connection.close()
  expect(anywhere(program.child.pid as number, passphrase)).toBe(0)
  const { stdout, stderr } = await program.stop('SIGTERM')
  for (const text of [passphrase, minted.secret, Buffer.from(`gw-1:${minted.secret}`).toString('base64')]) {
    expect(`${stdout}${stderr}`).not.toContain(text)
    expect(inFiles(s.state, text)).toEqual([])
  }
}, 120_000)
