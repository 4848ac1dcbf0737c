// OpenSSL's fuzzing corpus of malformed and odd certificates: each through our parser. Whatever OpenSSL refuses, we refuse.
// Hardly any of it is sound; that the parser accepts what is, paths.test.ts and the mutations of test/faults/wire.test.ts see to.
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { codeOf, parseCertificate } from '@birthmark/device-sdk/core'
import { describe, expect, it } from 'vitest'
import { vectorFile } from './folder.ts'

/** The regular files of a ustar archive (POSIX 1003.1): 512-byte headers, size in octal at 124, type at 156. */
function filesOf(tar: Buffer): { name: string; body: Buffer }[] {
  const out = []
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0; ) {
    const field = (from: number, length: number) => tar.toString('latin1', at + from, at + from + length).replace(/\0.*$/s, '')
    const size = parseInt(field(124, 12), 8)
    const type = field(156, 1)
    if (type === '' || type === '0') out.push({ name: field(0, 100), body: tar.subarray(at + 512, at + 512 + size) })
    at += 512 + Math.ceil(size / 512) * 512
  }
  return out
}

function openSslReads(der: Buffer): boolean {
  try {
    // OpenSSL reads one certificate from the front; more behind it is its caller's affair, and an error for us.
    new X509Certificate(der)
    return true
  } catch {
    return false
  }
}

const file = vectorFile('x509-corpus', 'x509.tar.gz')
describe.runIf(file)('OpenSSL’s certificate corpus', () => {
  it('[F1][F2] no hang, no error but our own, nothing accepted that OpenSSL refuses', () => {
    const files = filesOf(gunzipSync(readFileSync(file as string)))
    const started = Date.now()
    const wronglyAccepted: string[] = []
    const foreign: string[] = []
    for (const { name, body } of files) {
      try {
        parseCertificate(body)
        if (!openSslReads(body)) wronglyAccepted.push(name)
      } catch (error) {
        if (codeOf(error) === null) foreign.push(`${name}: ${error}`)
      }
    }
    expect(files.length).toBe(849)
    expect(foreign).toEqual([])
    expect(wronglyAccepted).toEqual([])
    expect(Date.now() - started).toBeLessThan(20_000)
  })
})
