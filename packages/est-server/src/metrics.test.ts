import { expect, test } from 'vitest'
import { createLogBudget } from './log-budget.ts'
import { aggregateMetrics, createMetrics } from './metrics.ts'

const series = (text: string) => text.split('\n').filter(line => line !== '' && !line.startsWith('#'))

test('[F74] a hundred thousand labels and ids of strangers make no more series than one does', async () => {
  const metrics = createMetrics({ profiles: [null, 'gateways'] })
  metrics.http.answered('simpleenroll', null, 'ok', 0.01)
  metrics.http.answered('simpleenroll', 'gateways', 'ok', 0.01)
  metrics.http.answered('simpleenroll', 'nobody', 'label_unknown', 0.01)
  const before = series(await metrics.text()).length
  for (let i = 0; i < 100_000; i++) metrics.http.answered('simpleenroll', `label-${i}`, 'label_unknown', 0.01)
  const text = await metrics.text()
  expect(series(text).length).toBe(before)
  expect(text).toContain('birthmark_est_requests_total{operation="simpleenroll",profile="other",outcome="label_unknown"} 100001')
  expect(text).toContain('birthmark_est_requests_total{operation="simpleenroll",profile="gateways",outcome="ok"} 1')
})

test('steps of the store are timed and their failures counted; everything else of it is as it was', async () => {
  const metrics = createMetrics({ profiles: [null] })
  const store = metrics.store({
    enrollmentFacts: async () => 'facts',
    recordIntent: async () => {
      throw Object.assign(new Error('no'), { code: 'store_busy' })
    },
    recordCertificate: async () => 'recorded',
    appendAudit: async () => {},
    lastTime: async () => 7,
  } as never) as unknown as Record<string, () => Promise<unknown>>
  expect([await store.enrollmentFacts(), await store.lastTime()]).toEqual(['facts', 7])
  await expect(store.recordIntent()).rejects.toThrow('no')
  const text = await metrics.text()
  expect(text).toContain('birthmark_step_seconds_count{step="look_up"} 1')
  expect(text).toContain('birthmark_step_seconds_count{step="record_intent"} 1')
})

test('an issuer whose signatures are counted is asked as it was: for the patient, or not', async () => {
  const metrics = createMetrics({ profiles: [null] })
  const asked: unknown[] = []
  const issuer = metrics.issuer({
    algorithm: 'rsa-pkcs1-sha256',
    sign: async (_tbs: Uint8Array, patient?: boolean) => {
      asked.push(patient)
      if (patient) throw new Error('no')
      return new Uint8Array(1)
    },
    unready: (patient?: boolean) => (patient ? 'away' : null),
  } as never)
  await issuer.sign(new Uint8Array(1))
  await expect(issuer.sign(new Uint8Array(1), true)).rejects.toThrow('no')
  expect([asked, issuer.unready?.(true), issuer.unready?.(), issuer.algorithm]).toEqual([
    [undefined, true],
    'away',
    null,
    'rsa-pkcs1-sha256',
  ])
  const text = await metrics.text()
  for (const outcome of ['signed', 'failed']) expect(text).toContain(`birthmark_issuer_signatures_total{outcome="${outcome}"} 1`)
})

test('what several processes count is one page', async () => {
  const [one, two] = [createMetrics({ profiles: [null] }), createMetrics({ profiles: [null] })]
  for (const metrics of [one, two, two]) metrics.http.connectionRefused('address_rate')
  two.gauge('connections', () => 5)
  const text = await aggregateMetrics([await one.json(), await two.json()])
  expect(text).toContain('birthmark_connections_refused_total{reason="address_rate"} 3')
  expect(text).toMatch(/birthmark_connections 5/)
})

test('[F66] lines that strangers cause are logged within a budget, and how many were left out is said', () => {
  const lines: Record<string, unknown>[] = []
  let now = 0
  const budget = createLogBudget(
    { info: fields => lines.push(fields as Record<string, unknown>), warn: () => {}, error: () => {} },
    { now: () => now },
  )
  for (let i = 0; i < 10_000; i++) budget.info({ i }, 'refused')
  expect(lines.length).toBe(200)
  now = 1
  budget.info({ i: 'later' }, 'refused')
  expect(lines.at(-1)).toEqual({ i: 'later', leftOut: 9800 })
})

test('[F74] SCEP and status answers, the queue of the store and notices have series of their own, as many as the program has names', async () => {
  const metrics = createMetrics({ profiles: [null] })
  metrics.scep.scepAnswered('PKIOperation', null, 'success', 0.01)
  metrics.scep.scepAnswered('PKIOperation', 'nobody', 'badRequest', 0.01)
  metrics.statusAnswer('crl', 200)
  metrics.statusAnswer('crl', 304)
  metrics.statusAnswer('ocsp', 413)
  metrics.statusAnswer('ocsp', 503)
  metrics.batch(3, 0.01, 2)
  metrics.notice('acknowledged')
  const before = series(await metrics.text()).length
  for (let i = 0; i < 1000; i++) {
    metrics.scep.scepAnswered('PKIOperation', `label-${i}`, 'badRequest', 0.01)
    metrics.statusAnswer('ocsp', 400 + (i % 100))
  }
  const text = await metrics.text()
  expect(series(text).length).toBe(before)
  for (const line of [
    'birthmark_scep_requests_total{operation="PKIOperation",profile="default",outcome="success"} 1',
    'birthmark_scep_requests_total{operation="PKIOperation",profile="other",outcome="badRequest"} 1001',
    'birthmark_status_answers_total{kind="crl",outcome="unchanged"} 1',
    'birthmark_status_answers_total{kind="ocsp",outcome="refused"} 1001',
    'birthmark_store_queue 2',
    'birthmark_notices_total{event="acknowledged"} 1',
  ])
    expect(text).toContain(line)
})
