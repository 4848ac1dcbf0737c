// The commands of docs/factory.md, typed as they stand there.
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url))
const page = readFileSync(path('../../docs/factory.md'), 'utf8')
const bin = [
  process.execPath,
  '--conditions=source',
  '--disable-warning=ExperimentalWarning',
  path('../../packages/birthmark/src/birthmark.ts'),
]
let folder: string
const file = (...names: string[]) => join(folder, ...names)

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'bm-line-docs-'))
})
afterAll(() => rmSync(folder, { recursive: true }))

/** The commands of the first block under a heading. A window in dates would end one day: the years in it are those around now. */
function commands(heading: string): string[] {
  const year = new Date().getUTCFullYear()
  const [, block] = page.slice(page.indexOf(heading)).split('```')
  return block
    .trim()
    .split('\n')
    .map(line => line.replace(/--from \S+ --until \S+/, `--from ${year - 1}-01-01 --until ${year + 2}-01-01`))
}

/** Types one line; what it printed, and its exit code. */
function type(line: string): { code: number | null; text: string } {
  const script = `birthmark() { ${bin.map(word => `'${word}'`).join(' ')} "$@"; }\n${line}\n`
  const { status, stdout, stderr } = spawnSync('sh', ['-c', script], { cwd: folder, encoding: 'utf8' })
  return { code: status, text: stdout + stderr }
}
const works = (line: string) => expect({ line, ...type(line) }).toMatchObject({ line, code: 0 })

function request(name: string, serial: string): void {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', file(`${serial}.key`)]
  execFileSync('openssl', ['req', '-new', ...key, '-subj', `/CN=${serial}`, '-out', file(name)], { stdio: 'pipe' })
}

test('a trial in four commands, and the hand-over of what it made', () => {
  request('device.csr', 'SN-0001')
  const [init, issue, manifest, take] = commands('## A trial in four commands')
  for (const line of [init, issue, manifest]) works(line)
  // The fourth goes to a server, and here is none.
  expect(type(take)).toMatchObject({ code: 4 })
  copyFileSync(file('factory', 'root.pem'), file('root.pem'))
  for (const name of ['acme', 'bolt']) {
    const [make, publish] = [/`(openssl genpkey [^`]+)`/, /`(openssl pkey [^`]+)`/].map(form => form.exec(page)?.[1] ?? '')
    works(`umask 077; ${make.replaceAll('acme', name)}`)
    works(publish.replaceAll('acme', name))
  }
  const [first, second, verify, mine] = commands('### Who holds the units')
  for (const line of [first, second, verify]) works(line)
  expect(type(mine)).toMatchObject({ code: 4, text: expect.stringContaining('the units were handed over to us') })
  expect(type(mine.replaceAll('bolt.pub', 'acme.pub'))).toMatchObject({
    code: 3,
    text: expect.stringContaining('handover_refused'),
  })
})

test('a line with its limits in one command, and one with its root offline, to the day’s end', () => {
  rmSync(file('factory'), { recursive: true, force: true })
  const [init] = commands('## A line with its limits')
  works(init.replace(/--until \S+/, `--until ${new Date().getUTCFullYear() + 2}-01-01`))
  for (const made of ['factory', 'desk']) rmSync(file(made), { recursive: true })
  const [root, ask, sign, accept, run, close] = commands('## A line with its root offline')
  works(root)
  // The root comes another way than the grant.
  copyFileSync(file('desk', 'root.pem'), file('root.pem'))
  for (const line of [ask, sign, accept]) works(line)
  writeFileSync(file('units.csv'), 'serial,sku,groups\nSN-1,gw-2,lot=42\nSN-2,gw-2,lot=42\nSN-3,,lot=42\n')
  mkdirSync(file('requests'))
  for (const serial of ['SN-1', 'SN-2', 'SN-3']) request(`requests/${serial}.csr`, serial)
  works(run)
  expect(type(close)).toMatchObject({ code: 3, text: expect.stringContaining('line_unaccounted') })
  // One is read back in the folder, one by hand, one does not make it.
  execFileSync('openssl', ['x509', '-in', file('units', 'SN-1.pem'), '-outform', 'DER', '-out', file('requests', 'SN-1.held.der')])
  works(run)
  works('birthmark line confirm SN-2 --held units/SN-2.pem')
  works((/`(line scrap SERIAL [^`]+)`/.exec(page)?.[1] ?? '').replace('line scrap SERIAL', 'birthmark line scrap SN-3'))
  works(close)
  expect(JSON.parse(readFileSync(file('reports', 'yield.json'), 'utf8'))).toMatchObject({ good: 2, scrapped: 1, unaccounted: 0 })
  expect(readFileSync(file('reports', 'yield.html'), 'utf8')).toMatch(/3 begun = 2 good \+ 1 scrapped \+ 0 unaccounted/)
  for (const line of ['birthmark line status', 'birthmark line collect factory/journal.jsonl --root root.pem']) works(line)
})
