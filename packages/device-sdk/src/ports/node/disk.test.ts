import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { codeOf } from '../../core/errors.ts'
import { type CrashOutcome, crashDisk } from '../../testing/power-cut.ts'
import { nodeDisk, openFolder } from './disk.ts'
import { fileKeys } from './keys.ts'
import { fileStore } from './store.ts'

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'disk-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const bytes = (text: string) => new Uint8Array(Buffer.from(text))
const code = (f: () => unknown) => {
  try {
    f()
  } catch (error) {
    return codeOf(error)
  }
  return 'nothing thrown'
}

describe('fileStore', () => {
  it('keeps records over instances, absent ones are null, removing twice is fine', () => {
    const path = join(folder, 'a', 'b')
    const store = fileStore(path)
    expect(store.get('op-0')).toBeNull()
    store.put('op-0', bytes('one'))
    store.put('op-0', bytes('two'))
    expect(fileStore(path).get('op-0')).toEqual(bytes('two'))
    expect(readdirSync(path)).toEqual(['op-0'])
    expect(statSync(path).mode & 0o777).toBe(0o700)
    store.remove('op-0')
    store.remove('op-0')
    expect(store.get('op-0')).toBeNull()
  })

  it('a name is no way out of the folder', () => {
    const store = fileStore(join(folder, 'names'))
    for (const name of ['', '.', '..', '../x', 'a/b', '/etc/passwd', 'A', 'x'.repeat(65), 'a\0b']) {
      expect(() => store.get(name), name).toThrow(TypeError)
      expect(() => store.put(name, bytes('x')), name).toThrow(TypeError)
    }
  })

  it('[F57] an unwritable folder is store_write and an unreadable record store_read', () => {
    const path = join(folder, 'file-in-the-way')
    writeFileSync(path, '')
    expect(code(() => fileStore(path).put('op-0', bytes('x')))).toBe('store_write')
    const store = fileStore(join(folder, 'odd'))
    store.put('op-0', bytes('x'))
    mkdirSync(join(folder, 'odd', 'op-1'))
    expect(code(() => store.get('op-1'))).toBe('store_read')
    // The rename fails; the half file is taken away again and the old records stay.
    expect(code(() => store.put('op-1', bytes('x')))).toBe('store_write')
    expect(readdirSync(join(folder, 'odd')).sort()).toEqual(['op-0', 'op-1'])
  })

  it('a left-over temporary file, or a link in its place, is replaced and not followed', () => {
    const path = join(folder, 'left')
    const store = fileStore(path)
    store.put('op-0', bytes('x'))
    writeFileSync(join(folder, 'victim'), 'untouched')
    symlinkSync(join(folder, 'victim'), join(path, 'op-0.tmp'))
    store.put('op-0', bytes('y'))
    expect(store.get('op-0')).toEqual(bytes('y'))
    expect(nodeDisk.read(join(folder, 'victim'))).toEqual(bytes('untouched'))
  })
})

describe('replacing a file', () => {
  it('[F56] survives a power cut at every operation, whatever the cache lost: the old content or the new', () => {
    const first = crashDisk()
    openFolder('/f', first).replace('record', bytes('old'))
    for (let cut = 0; cut < 5; cut++) {
      for (const outcome of ['nothing', 'everything', 'torn'] satisfies CrashOutcome[]) {
        const disk = first.reboot('everything', cut)
        let done = true
        try {
          openFolder('/f', disk).replace('record', bytes('new'))
        } catch {
          done = false
        }
        const found = Buffer.from(openFolder('/f', disk.reboot(outcome)).read('record') ?? []).toString()
        expect(done ? ['new'] : ['old', 'new'], `${cut} ${outcome}`).toContain(found)
      }
    }
  })

  it('[F56] and the model of the disk would catch a store that does not fsync', () => {
    const disk = crashDisk()
    disk.write('/f/tmp', bytes('new'))
    disk.rename('/f/tmp', '/f/record')
    disk.syncFolder('/f')
    expect(disk.reboot('torn').read('/f/record')).toEqual(bytes('n'))
    expect(disk.reboot('nothing').read('/f/record')).toEqual(new Uint8Array(0))
  })
})

describe('fileKeys', () => {
  const generate = (keys: ReturnType<typeof fileKeys>, slot: string) =>
    new Promise<Uint8Array>((resolve, reject) => keys.generate(slot, (error, spki) => (spki ? resolve(spki) : reject(error))))
  const publicKey = (keys: ReturnType<typeof fileKeys>, slot: string) =>
    new Promise<Uint8Array | null>((resolve, reject) =>
      keys.publicKey(slot, (error, spki) => (error ? reject(error) : resolve(spki))),
    )

  it('keeps keys over instances, mode 0600, and an empty slot is null', async () => {
    const path = join(folder, 'keys')
    const spki = await generate(fileKeys(path), 'op-1')
    expect(await publicKey(fileKeys(path), 'op-1')).toEqual(spki)
    expect(await publicKey(fileKeys(path), 'op-0')).toBeNull()
    expect(fileKeys(path).tlsKey('op-0')).toBeNull()
    expect(statSync(join(path, 'op-1.key')).mode & 0o777).toBe(0o600)
    expect(existsSync(join(path, 'op-1.key.tmp'))).toBe(false)
  })

  it('a file that holds no key says so without quoting it', async () => {
    const path = join(folder, 'broken')
    await generate(fileKeys(path), 'op-0')
    writeFileSync(join(path, 'op-0.key'), 'SECRET GARBAGE')
    chmodSync(join(path, 'op-0.key'), 0o600)
    await expect(publicKey(fileKeys(path), 'op-0')).rejects.toMatchObject({
      code: 'key_unavailable',
      message: expect.not.stringContaining('GARBAGE'),
    })
  })
})
