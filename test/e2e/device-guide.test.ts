// docs/device-guide.md promises that its blocks run, in their order: here they do, with the SDK packed and installed as anybody would install it.
import { execFileSync, spawn } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const guide = readFileSync(join(root, 'docs/device-guide.md'), 'utf8')
const blocks = [...guide.matchAll(/^```(sh|js)\n([\s\S]*?)^```$/gm)].map(([, kind, text]) => ({ kind, text }))

/** A shell in `folder`, where `birthmark` is this repository's and `npm i` of the SDK takes what would be published. */
function shell(folder: string, bin: string, text: string) {
  const { BIRTHMARK_STATE: _, ...env } = process.env
  const child = spawn('sh', ['-e', '-c', `exec 2>&1\n${text}`], {
    cwd: folder,
    env: { ...env, PATH: `${bin}:${process.env.PATH}`, npm_config_update_notifier: 'false' },
    detached: true,
  })
  let said = ''
  child.stdout.on('data', part => {
    said += part
  })
  const ended = new Promise<number | null>(resolve => child.once('close', resolve))
  return {
    said: () => said,
    ended,
    async stop() {
      // The shell and what it started, which is a group of its own.
      if (child.pid && child.exitCode === null) process.kill(-child.pid, 'SIGTERM')
      await ended
    },
  }
}

it('takes a firmware engineer from npm i to a renewing device', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-guide-'))
  const bin = join(folder, 'bin')
  mkdirSync(join(folder, 'package'))
  mkdirSync(bin)
  execFileSync(process.execPath, [join(root, 'tools/build.mjs'), 'device-sdk', join(folder, 'package')], { stdio: 'pipe' })
  cpSync(join(root, 'packages/device-sdk/package.json'), join(folder, 'package/package.json'))
  execFileSync('tar', ['-czf', join(folder, 'sdk.tgz'), '-C', folder, 'package'])
  const npm = execFileSync('sh', ['-c', 'command -v npm'], { encoding: 'utf8' }).trim()
  const program = join(root, 'packages/birthmark/src/birthmark.ts')
  const scripts = {
    npm: `case "$*" in "i @birthmark/device-sdk") exec '${npm}' install --offline --no-audit --no-fund '${folder}/sdk.tgz';; *) exec '${npm}' "$@";; esac`,
    // On free ports, since the tests are many.
    birthmark: `case "$1" in dev) set -- "$@" --est-port 0 --mqtt-port 0;; esac; exec '${process.execPath}' --conditions=source --disable-warning=ExperimentalWarning '${program}' "$@"`,
    node: `exec '${process.execPath}' "$@"`,
  }
  for (const [name, text] of Object.entries(scripts)) {
    writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`)
    chmodSync(join(bin, name), 0o755)
  }
  const home = join(folder, 'my-device')
  const [install, serve, birth, code, enroll, renew, ...more] = blocks
  expect([more, code.kind]).toEqual([[], 'js'])

  const installing = shell(folder, bin, install.text)
  expect(await installing.ended, installing.said()).toBe(0)
  const server = shell(home, bin, serve.text)
  try {
    await expect.poll(server.said, { timeout: 30_000 }).toContain('https://')
    const bearing = shell(home, bin, birth.text)
    expect(await bearing.ended, bearing.said()).toBe(0)
    writeFileSync(join(home, 'device.js'), code.text)
    const first = shell(home, bin, enroll.text)
    await expect
      .poll(first.said, { timeout: 30_000 })
      .toMatch(/unit-1 has certificate 1[\s\S]*"state":"active"[\s\S]*"trust":"signed"/)
    await first.stop()
    const second = shell(home, bin, renew.text)
    await expect.poll(second.said, { timeout: 30_000 }).toMatch(/unit-1 has certificate 2[\s\S]*"state":"active"/)
    await second.stop()
  } finally {
    await server.stop()
    rmSync(folder, { recursive: true, force: true })
  }
}, 120_000)
