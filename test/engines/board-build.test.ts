// What examples/esp32-js makes for a board: the commands of its README, and that manifests, modules and mains fit together.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { testAuthority } from '@birthmark/device-sdk/testing'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { writeDeviceFolder } from '../../packages/birthmark/src/device-folder.ts'
import { createTestNoticeKey } from '../../packages/fleet-revocation/src/testing/notice-key.ts'
import { buildBoard, example } from './example-bundle.ts'
import { hexOf } from './recorded.ts'

const { findingsIn } = (await import(new URL('../../tools/lint-subset.mjs', import.meta.url).href)) as {
  findingsIn(code: string): { what: string }[]
}
const folder = mkdtempSync(join(tmpdir(), 'board-'))
const authority = testAuthority('Root')
const notice = createTestNoticeKey()

beforeAll(async () => {
  writeDeviceFolder(join(folder, 'device'), {
    fleet: 'acme',
    est: 'https://est.example.com:8443',
    mqtt: 'mqtts://mqtt.example.com:8883',
    serverAnchors: [authority.certificate],
    birthAnchors: [authority.certificate, testAuthority('Another').certificate],
    operationalAnchors: [authority.certificate],
    noticeKeys: [notice.signer.spki, createTestNoticeKey(-8).signer.spki],
  })
  await buildBoard('moddable', join(folder, 'device'), folder, ['source'])
  await buildBoard('espruino', null, folder, ['source'])
})
afterAll(() => rmSync(folder, { recursive: true }))

/** Every name that a module imports from `from`. */
function importsOf(file: string, from: string): string[] {
  const text = readFileSync(join(example, 'moddable', file), 'utf8')
  const [, names = ''] = new RegExp(`(?:import|export) \\{([^}]*)\\} from '${from}'`).exec(text) ?? []
  return names
    .split(',')
    .map(name => name.trim().split(' as ')[0])
    .filter(Boolean)
}

it('a server’s device folder becomes a module of constants', async () => {
  const { default: fleet } = (await import(pathToFileURL(join(folder, 'fleet.js')).href)) as { default: Record<string, unknown> }
  expect(fleet).toMatchObject({
    fleet: 'acme',
    est: { host: 'est.example.com', port: 8443 },
    mqtt: { host: 'mqtt.example.com', port: 8883 },
    serverAnchors: [hexOf(authority.certificate)],
    noticeSigners: [{ keyId: hexOf(notice.keyId), algorithm: -7, spki: hexOf(notice.signer.spki) }, { algorithm: -8 }],
  })
  expect(fleet.birthAnchors).toHaveLength(2)
})

it('what main and the modules in place of Moddable’s import, the one module brings', async () => {
  const birthmark = (await import(pathToFileURL(join(folder, 'birthmark.js')).href)) as Record<string, unknown>
  const files = readdirSync(join(example, 'moddable')).filter(file => file.endsWith('.js') && file !== 'birthmark.js')
  const wanted = files.flatMap(file => importsOf(file, 'birthmark'))
  expect(wanted).toContain('ecHandshake')
  expect(wanted.filter(name => birthmark[name] === undefined)).toEqual([])
  expect(Object.keys(birthmark).filter(name => !wanted.includes(name))).toEqual([])
})

it('the manifests name files that are there', () => {
  const named = ['manifest.json', 'manifest_tls.json'].flatMap(
    file => readFileSync(join(example, 'moddable', file), 'utf8').match(/"\.\.?\/[^"]+"/g) ?? [],
  )
  expect(named).toContain('"./ssl-handshake"')
  for (const name of named) {
    const path = name.slice(1, -1).replace('../build/', `${folder}/`)
    const at = path.startsWith('/') ? path : join(example, 'moddable', path)
    expect(existsSync(at) || existsSync(`${at}.js`), name).toBe(true)
  }
})

it('Espruino’s script is one CommonJS module with `main`, in the device subset', () => {
  const module = { exports: {} as { main?: unknown } }
  const script = readFileSync(join(folder, 'main.js'), 'utf8')
  new Function('module', 'exports', script)(module, module.exports)
  expect(typeof module.exports.main).toBe('function')
  // But for telemetry's JSON, which Espruino has, and that it is a module.
  expect(findingsIn(script).map(({ what }) => what)).toEqual(['JSON', 'exports'])
})

it('the partitions lie one after the other, on pages, in 4 MB', () => {
  const rows = readFileSync(join(example, 'partitions.csv'), 'utf8')
    .split('\n')
    .filter(line => line && !line.startsWith('#'))
    .map(line => line.split(',').map(field => field.trim()))
  let end = 0x9000
  for (const [name, , , offset, size] of rows) {
    expect(Number(offset), name).toBe(end)
    expect(Number(size) % 0x1000, name).toBe(0)
    end += Number(size)
  }
  expect(end).toBeLessThanOrEqual(0x400000)
})
