// The yield report as a page: without a script and without anything from elsewhere, so that it opens on a machine without a network, in a
// mail, or from a drive. What a line's people typed is inert in it. Reads on a desk and on a phone, by day, by night and on paper.

import type { Failures, YieldReport } from './yield-report.ts'

// A page is for reading; the whole lists are in the JSON.
const rowsMax = 50

const escaped = (text: string): string => text.replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`)
const grouped = (count: number): string => String(count).replace(/\B(?=(\d{3})+$)/g, '\u202f')
const percent = (share: number | null): string => (share === null ? '–' : `${(share * 100).toFixed(2)} %`)
const when = (seconds: number): string => (seconds ? new Date(seconds * 1000).toISOString().slice(0, 16).replace('T', ' ') : '–')
const width = (part: number, whole: number): string => `${whole === 0 ? 0 : Number(((100 * part) / whole).toFixed(2))}%`

const STYLE = `
:root{color-scheme:light dark;--ink:#1c2024;--soft:#5b6470;--line:#d9dee4;--page:#fff;--good:#1a7f45;--scrap:#c77f0a;--open:#c22f2f;--bar:#3a6ea5}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#a0a8b3;--line:#363c44;--page:#14171a;--good:#4cc27f;--scrap:#e5a63c;--open:#f47c7c;--bar:#6ba3dc}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:0 auto;padding:1.5rem 1rem 3rem;color:var(--ink);background:var(--page)}
h1{font-size:1.6rem;line-height:1.2;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .5rem}
p{margin:.4rem 0}.soft{color:var(--soft)}.foot{margin-top:2.2rem}time{white-space:nowrap}
.verdict{font-size:1.1rem;font-weight:600;margin:1.2rem 0 .5rem}.ok{color:var(--good)}.bad{color:var(--open)}
.parts{display:flex;height:1rem;border-radius:.25rem;overflow:hidden;background:var(--line)}
.good{background:var(--good)}.scrapped{background:var(--scrap)}.open{background:var(--open)}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.8rem 1.2rem;margin:1.2rem 0 0}
dt{color:var(--soft);font-size:.85rem}dd{margin:0;font-size:1.25rem;font-variant-numeric:tabular-nums}
code{font-size:.85em;overflow-wrap:anywhere}.units code{display:inline-block;max-width:100%;margin-right:.9rem}
table{border-collapse:collapse;table-layout:fixed;width:100%}
th,td{text-align:left;padding:.35rem .8rem .35rem 0;vertical-align:top;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
th{color:var(--soft);font-weight:500;font-size:.85rem}.n,.share{width:5rem;text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}.share{width:6.2rem}
.chart{width:40%;padding-right:0}.bar{background:var(--bar);height:1rem;margin-top:.25rem;border-radius:.15rem;min-width:2px}
#notes td:nth-child(1){width:10.5rem}#notes td:nth-child(2){width:8rem}
@media (max-width:38rem){dl{grid-template-columns:1fr 1fr}.n,.share{width:3.6rem;padding-right:.6rem}.share{width:5.2rem}th{font-size:.75rem}.chart{width:22%}
#notes tr{display:block;padding:.35rem 0;border-bottom:1px solid var(--line)}#notes td{display:inline;padding-right:.5rem;border:0}}
@media print{*{print-color-adjust:exact}}
`

/** Most frequent first; `column` names what each row is about. */
function pareto<T extends Failures>(id: string, column: string, failures: T[], name: (failure: T) => string): string {
  const most = failures[0]?.count ?? 0
  const rows = failures
    .slice(0, rowsMax)
    .map(
      failure =>
        `<tr><td>${escaped(name(failure))}</td><td class="n">${grouped(failure.count)}</td><td class="share">${(failure.share * 100).toFixed(1)} %</td>` +
        `<td class="chart"><div class="bar" style="width:${width(failure.count, most)}"></div></td></tr>`,
    )
  const head = `<th>${column}</th><th class="n">Count</th><th class="share" title="this one and all above">Cumulative</th><th class="chart"></th>`
  return `<table id="${id}"><thead><tr>${head}</tr></thead><tbody>\n${rows.join('\n')}\n</tbody></table>${more(failures.length)}`
}

function more(length: number): string {
  return length > rowsMax ? `\n<p class="soft">${grouped(length - rowsMax)} more in yield.json</p>` : ''
}

export function yieldHtml(report: YieldReport): string {
  const { reserved, good, scrapped, unaccounted, steps, failures, notes, unaccountedSerials } = report
  const station = `Station ${escaped(report.station)}${report.sku ? `, ${escaped(report.sku)}` : ''}`
  const parts = { good, scrapped, open: unaccounted }
  const figures = {
    Begun: grouped(reserved),
    'Certificates issued': grouped(report.issued),
    Good: grouped(good),
    Scrapped: grouped(scrapped),
    Unaccounted: grouped(unaccounted),
    'First-pass yield': percent(report.firstPassYield),
    'Final yield': percent(report.finalYield),
    'Keys made by the line': grouped(report.hostKeys),
  }
  // The newest are about today.
  const shown = notes.slice(-rowsMax).reverse()
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>Yield of ${station}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${station}</h1>
<p class="soft"><time>${when(report.from)}</time> to <time>${when(report.until)}</time> UTC</p>
<p class="verdict ${unaccounted === 0 ? 'ok' : 'bad'}">${grouped(reserved)} begun = ${grouped(good)} good + ${grouped(scrapped)} scrapped + ${grouped(unaccounted)} unaccounted</p>
<div class="parts" aria-hidden="true">${Object.entries(parts)
    .map(([name, count]) => `<div class="${name}" style="width:${width(count, reserved)}"></div>`)
    .join('')}</div>
<dl>
${Object.entries(figures)
  .map(([name, value]) => `<div><dt>${name}</dt><dd>${value}</dd></div>`)
  .join('\n')}
</dl>
${unaccounted ? `<h2>Unaccounted</h2>\n<p>Read each back or scrap it.</p>\n<p class="units">${unaccountedSerials.map(serial => `<code>${escaped(serial)}</code>`).join(' ')}${unaccounted > unaccountedSerials.length ? ` and ${grouped(unaccounted - unaccountedSerials.length)} more` : ''}</p>` : ''}
<h2>Failures by step</h2>
${steps.length ? pareto('steps', 'Step', steps, ({ step }) => step) : '<p>None.</p>'}
${failures.length ? `<h2>Failures by cause</h2>\n${pareto('causes', 'Step: cause', failures, ({ step, cause }) => `${step}: ${cause}`)}` : ''}
${shown.length ? `<h2>Notes</h2>\n<table id="notes"><tbody>\n${shown.map(({ at, what, detail }) => `<tr><td><time>${when(at)}</time></td><td>${escaped(what)}</td><td>${escaped(detail)}</td></tr>`).join('\n')}\n</tbody></table>${more(notes.length)}` : ''}
<p class="soft foot">Journal <code>${escaped(report.journal)}</code>, ${grouped(report.lines)} lines up to the seal <code>${escaped(report.head)}</code></p>
</body>
</html>
`
}
