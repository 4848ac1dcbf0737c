// The day's report as somebody reads it: in a browser, on a desk and on a phone, by day and by night.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import {
  birthRequest,
  createManufacturer,
  generateSigningKey,
  openStation,
  type YieldReport,
  yieldHtml,
  yieldReport,
} from '@birthmark/factory-line'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Browser, openBrowser } from '../support/browser.ts'

let folder: string
let browser: Browser
let report: YieldReport
let url: string

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bm-yield-'))
  const clock = { now: () => 1_790_000_000 }
  const maker = await createManufacturer(folder, 'Example', clock)
  const profile = { organization: 'Example', commonName: true, hardwareType: null }
  const station = openStation({ folder, issuing: maker.issuing, manifestSigner: maker.manifest, profile, clock })
  for (let i = 0; i < 12; i++) {
    const serial = `SN-${i}`
    const { certificate } = await station.issue({ serial, csr: await birthRequest(serial, generateSigningKey().key) })
    if (i < 5) await station.fail(serial, 'radio', i < 3 ? 'no signal' : 'power')
    if (i < 8) await station.confirm(serial, { certificate, proof: null })
    else if (i < 10) await station.scrap(serial, 'x'.repeat(64), 'y'.repeat(64))
  }
  await station.note('order', '<img src="http://127.0.0.1:9/x"><script>document.title = "taken"</script>')
  station.close()
  const { spki, algorithm } = maker.manifest.key
  report = yieldReport(join(folder, 'journal.jsonl'), spki, algorithm)
  writeFileSync(join(folder, 'yield.html'), yieldHtml(report))
  url = pathToFileURL(join(folder, 'yield.html')).href
  browser = await openBrowser()
})
afterAll(async () => {
  await browser?.close()
  rmSync(folder, { recursive: true })
})

test.each([
  { width: 1280, height: 800, scheme: 'light' as const },
  { width: 1280, height: 800, scheme: 'dark' as const },
  { width: 360, height: 700, scheme: 'light' as const },
  { width: 360, height: 700, scheme: 'dark' as const },
])('$width wide, $scheme: it fits, asks nobody for anything, and says what the JSON says', async view => {
  const page = await browser.open(url, view)
  expect(await page.value('document.documentElement.scrollWidth')).toBe(view.width)
  // Text on its ground, by the contrast that WCAG 2.2 1.4.3 asks for.
  const contrast = `(() => {
    const light = text => { const [r, g, b] = text.match(/\\d+/g).map(n => n / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
      return 0.2126 * r + 0.7152 * g + 0.0722 * b }
    const ground = light(getComputedStyle(document.body).backgroundColor)
    return Math.min(...[...document.querySelectorAll('h1,h2,p,dt,dd,th,td,code')].map(e => light(getComputedStyle(e).color))
      .map(ink => (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05)))
  })()`
  expect(await page.value(contrast)).toBeGreaterThan(4.5)
  expect(await page.value<string[]>("[...document.querySelectorAll('dd')].map(e => e.textContent)")).toEqual([
    ...[report.reserved, report.issued, report.good, report.scrapped, report.unaccounted].map(String),
    ...[report.firstPassYield, report.finalYield].map(share => `${(100 * (share ?? 0)).toFixed(2)} %`),
    String(report.hostKeys),
  ])
  const rows = (table: string) =>
    page.value<[string, string, string, number][]>(
      `[...document.querySelectorAll('#${table} tbody tr')].map(row => [...row.cells].slice(0, 3).map(e => e.textContent).concat(row.querySelector('.bar').getBoundingClientRect().width))`,
    )
  const named = [
    ['steps', report.steps.map(({ step, ...rest }) => ({ name: step, ...rest }))],
    ['causes', report.failures.map(({ step, cause, ...rest }) => ({ name: `${step}: ${cause}`, ...rest }))],
  ] as const
  for (const [table, failures] of named) {
    const seen = await rows(table)
    expect(seen.map(row => row.slice(0, 3))).toEqual(
      failures.map(({ name, count, share }) => [name, String(count), `${(100 * share).toFixed(1)} %`]),
    )
    // The bars are a Pareto: seen, the longest first, each as long as its count.
    for (const [i, row] of seen.entries()) expect(row[3] / seen[0][3]).toBeCloseTo(failures[i].count / failures[0].count, 1)
    expect(seen[0][3]).toBeGreaterThan(40)
  }
  expect(await page.value<string>('document.body.innerText')).toContain(report.unaccountedSerials.join(' '))
  expect(await page.value('document.title')).toBe('Yield of Station trial')
  expect(page).toMatchObject({ requests: [], complaints: [] })
})
