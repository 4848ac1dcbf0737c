// `birthmark fsck`: the whole store proven again, beside a running server or without one. It changes nothing.

import { equalBytes } from '@birthmark/device-sdk/core'
import { fsck, type NoticeRecord } from '@birthmark/est-server'
import { nodeVerify, noticeKeyId, noticeSha256, openNotice, systemClock } from '@birthmark/fleet-revocation'
import type { Command } from 'commander'
import { CommandError } from '../command-error.ts'
import { readConfiguration, type Settings } from '../configuration.ts'
import { noticeSpki } from '../notice-signing.ts'
import { storeName, withStore } from '../open-store.ts'
import { printable, type Terminal } from '../terminal.ts'
import { leaf } from './common.ts'

export function define(command: Command, terminal: Terminal): void {
  leaf(
    command.description(
      'Verify every certificate, record, notice and audit entry of the store against one another. Exit 1 when something is wrong.',
    ),
    [
      ['birthmark fsck --config birthmark.yaml', 'some 10,000 certificates a second'],
      ['birthmark fsck --config birthmark.yaml --json', 'one object with all findings'],
    ],
    'The server may run meanwhile. Nothing is changed; docs/stores.md says what to do about a finding.',
  )
    .requiredOption('--config <file>', 'configuration of the server')
    .action(async (options: { config: string }) => {
      const settings = readConfiguration(options.config)
      const { issuer } = settings
      const report = await withStore(settings, store =>
        fsck({
          store,
          fleets: [settings.fleet],
          issuers: [
            issuer.certificates[0],
            ...(issuer.next ? [issuer.next.certificates[0]] : []),
            ...issuer.previous.map(([certificate]) => certificate),
          ],
          checkNotice: noticeChecker(settings),
          now: systemClock.now(),
          progress: ({ certificates, notices }) => terminal.progress(`${certificates} certificates, ${notices} notices`),
        }),
      )
      const { findings, ...counts } = report
      for (const { code, detail } of findings) terminal.line(`${code}: ${printable(detail)}`)
      if (report.broken > findings.length) terminal.line(`and ${report.broken - findings.length} more`)
      terminal.result({ store: storeName(settings), ...counts, findings })
      if (report.broken > 0)
        throw new CommandError(
          'store_unsound',
          `${report.broken} findings in ${storeName(settings)}`,
          'keep the store as it is, and see docs/stores.md, "When fsck finds something"',
          'failed',
        )
      terminal.done(
        `${report.certificates} certificates, ${report.voided} given up, ${report.notices} notices, ${report.lists} revocation lists: sound`,
        storeName(settings),
      )
    })
}

/** A notice must verify under one of the notice keys, carry its number, and be known by its hash. */
function noticeChecker({ notices, fleet }: Settings) {
  const signers = notices.keys.map(noticeSpki).map(spki => ({ keyId: noticeKeyId(spki), algorithm: -7, spki }))
  const verify = nodeVerify()
  return (_: string, record: NoticeRecord & { previousSha256: Uint8Array | null }): Promise<string | null> =>
    new Promise(done => {
      if (!equalBytes(noticeSha256(record.notice), record.sha256)) return done('its hash is not what is recorded')
      openNotice(record.notice, fleet, signers, verify, (problem, body) => {
        if (body === null) done(problem)
        else if (body.seq !== record.seq) done(`it says number ${body.seq}`)
        else if (Buffer.compare(body.previousSha256 ?? new Uint8Array(), record.previousSha256 ?? new Uint8Array()) !== 0)
          done('it names another notice before it than is recorded')
        else done(null)
      })
    })
}
