import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { addressOctets, ensureServerCertificate, ensureServiceCertificate, ensureTwoTier } from './server-certificate.ts'

test.each([
  ['127.0.0.1', '7f000001'],
  ['::1', '00000000000000000000000000000001'],
  ['::', '00000000000000000000000000000000'],
  ['2001:db8::7:0:1', '20010db8000000000000000700000001'],
  ['fe80:0:0:0:1:2:3:4', 'fe800000000000000001000200030004'],
  ['::ffff:192.0.2.1', '00000000000000000000ffffc0000201'],
])('the octets of %s', (address, hex) => {
  expect(Buffer.from(addressOctets(address)).toString('hex')).toBe(hex)
})

test('openssl accepts the chain for each name and purpose, and nothing else', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bm-'))
  try {
    const { issuing } = await ensureTwoTier(folder, 'Acme', 'server', randomBytes)
    await ensureServerCertificate(folder, ['est.acme.test', '127.0.0.1', '::1'], issuing, randomBytes)
    await ensureServiceCertificate(folder, 'observer', issuing, randomBytes)
    const verify = (...args: string[]): string => {
      try {
        return execFileSync('openssl', ['verify', '-x509_strict', '-CAfile', 'root.pem', '-untrusted', 'issuing.pem', ...args], {
          cwd: folder,
          encoding: 'utf8',
          stdio: 'pipe',
        })
      } catch (error) {
        return String((error as { stderr: string }).stderr)
      }
    }
    for (const name of [
      ['-verify_hostname', 'est.acme.test'],
      ['-verify_ip', '127.0.0.1'],
      ['-verify_ip', '::1'],
    ])
      expect(verify('-purpose', 'sslserver', ...name, 'server.pem')).toBe('server.pem: OK\n')
    expect(verify('-purpose', 'sslclient', 'observer.pem')).toBe('observer.pem: OK\n')
    expect(verify('-verify_hostname', 'other.test', 'server.pem')).toContain('hostname mismatch')
    expect(verify('-purpose', 'sslserver', 'observer.pem')).toContain('unsuitable certificate purpose')
    expect(verify('-purpose', 'sslclient', 'server.pem')).toContain('unsuitable certificate purpose')
    expect(statSync(join(folder, 'server.key.pem')).mode & 0o777).toBe(0o600)

    // Found again as it is; made anew for a name that it lacks.
    const before = readFileSync(join(folder, 'server.pem'), 'utf8')
    await ensureServerCertificate(folder, ['est.acme.test'], issuing, randomBytes)
    expect(readFileSync(join(folder, 'server.pem'), 'utf8')).toBe(before)
    await ensureServerCertificate(folder, ['new.acme.test'], issuing, randomBytes)
    expect(readFileSync(join(folder, 'server.pem'), 'utf8')).not.toBe(before)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
