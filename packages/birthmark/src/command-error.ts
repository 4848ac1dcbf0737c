// How a command fails: a literal code, one sentence, and the next step. Any error a package throws is turned into this in one place.

/** Documented in `birthmark --help`; scripts may rely on them. */
export const exitCodes = { ok: 0, failed: 1, usage: 2, refused: 3, unreachable: 4 } as const
export type Exit = keyof typeof exitCodes

export class CommandError extends Error {
  readonly code: string
  readonly next: string
  readonly exit: Exit

  /** `next`: what the reader can type or change now. */
  constructor(code: string, sentence: string, next: string, exit: Exit = 'failed', cause?: unknown) {
    super(sentence, cause === undefined ? undefined : { cause })
    this.name = 'CommandError'
    this.code = code
    this.next = next
    this.exit = exit
  }
}

/** Somebody pressed Ctrl-C, and was told what that means. Nothing more is printed, and the shell sees what it would of any program. */
export class Interrupted extends Error {
  readonly exitCode = 130
}

/** A mistake in what was typed or configured. */
export function usageError(sentence: string, next: string): CommandError {
  return new CommandError('usage', sentence, next, 'usage')
}

// Errors of the system under the names that people search for.
const SYSTEM: Record<string, [sentence: string, next: string, exit: Exit] | undefined> = {
  EACCES: ['permission denied', 'check who owns the file or folder, or run as that user', 'failed'],
  EPERM: ['permission denied', 'check who owns the file or folder, or run as that user', 'failed'],
  ENOENT: ['no such file or folder', 'check the path', 'failed'],
  EISDIR: ['a folder stands where a file is expected', 'check the path', 'failed'],
  ENOSPC: ['no space left on the device', 'free some space and run the same command again: it resumes', 'failed'],
  EROFS: ['the file system is read-only', 'choose a folder that can be written', 'failed'],
  ECONNREFUSED: ['nothing listens there', 'is the server running? birthmark doctor tells more', 'unreachable'],
  ECONNRESET: ['the connection was cut', 'see why with: birthmark doctor', 'unreachable'],
  EADDRNOTAVAIL: ['this machine has no such address', 'choose an address of this machine', 'usage'],
  ENOTFOUND: ['the name does not resolve', 'check the name, or use an address', 'unreachable'],
  ETIMEDOUT: ['no answer in time', 'check the address and any firewall in between', 'unreachable'],
}

/** Codes of our packages that mean "policy says no" rather than "something broke". */
const REFUSED =
  /^(serial_taken|key_taken|serial_unknown|not_in_order|wrong_sku|wrong_station|quota_spent|window_closed|readback_mismatch|journal_forked|line_unaccounted|key_refused|csr_signature|est_refused|est_unauthorized|revoked|manifest_untrusted|manifest_signature|handover_signature|handover_order|handover_refused|group_not_joined|group_not_covered|approval_unknown|campaign_unknown|campaign_refused|window_refused|selection_empty|plan_changed|approval_refused)$/

/** Codes of our packages that mean "nobody answered". */
const UNREACHABLE = /^(network|timeout|est_unavailable)$/

/** What was typed, or what it names, has the wrong form. */
const MALFORMED =
  /^(serial_malformed|group_malformed|csr_malformed|manifest_malformed|handover_malformed|order_malformed|order_unreadable|mandate_malformed|query_malformed|selector_invalid)$/

export function explain(error: unknown): CommandError {
  if (error instanceof CommandError) return error
  if (!(error instanceof Error))
    return new CommandError('internal', String(error), 'report this with the command you typed', 'failed')
  const { code, hint, message } = error as Error & { code?: unknown; hint?: unknown }
  if (typeof code !== 'string')
    return new CommandError('internal', message, 'run again with BIRTHMARK_TRACE=1 and report what it prints', 'failed', error)
  const system = SYSTEM[code]
  if (system) return new CommandError(code.toLowerCase(), `${system[0]} (${message})`, system[1], system[2], error)
  const exit = REFUSED.test(code) ? 'refused' : UNREACHABLE.test(code) ? 'unreachable' : MALFORMED.test(code) ? 'usage' : 'failed'
  // Our packages write `code: detail`; the code is printed once.
  const sentence = message.startsWith(`${code}: `) ? message.slice(code.length + 2) : message
  return new CommandError(
    code,
    sentence,
    typeof hint === 'string' && hint ? hint : (NEXT[code] ?? 'birthmark doctor tells more'),
    exit,
    error,
  )
}

const NEXT: Record<string, string | undefined> = {
  serial_taken: 'give the unit another serial number, or scrap it',
  key_taken: 'let the device make a fresh key',
  key_refused: 'make a P-256 key: openssl ecparam -genkey -name prime256v1 -noout -out key.pem',
  csr_signature: 'make the CSR anew with the key it is for',
  csr_malformed: 'make it with: openssl req -new -key key.pem -subj /serialNumber=SERIAL -outform DER',
  serial_malformed: 'use 1 to 64 of A-Z a-z 0-9 . _ : -',
  group_malformed: 'write groups as name=value, such as batch=2026-W41, at most 8',
  approval_unknown: 'see what waits: birthmark approvals list',
  selector_invalid: 'write it like model=gw-2,batch in (2026-W41,2026-W42),firmware<2.3 (docs/campaigns.md)',
  campaign_unknown: 'see what there is: birthmark revoke list',
  campaign_refused: 'see how far it is: birthmark revoke list',
  window_refused: 'give another --window, such as 15m or 2h, or leave it out',
  selection_empty: "see what is there: birthmark devices --select '…'",
  plan_changed: 'plan it again, and let people look at that: birthmark revoke plan',
  approval_refused: 'sign with the key that the configuration names: --as NAME --key FILE',
  group_not_joined: 'leave --group out, or add the group by a manifest before the device enrolls',
  group_not_covered: 'revoke a group that is in those certificates, or wait until they have ended: birthmark devices',
  serial_unknown: 'see what was issued: birthmark line status',
  order_malformed: 'mend that line of the CSV; nothing was issued from it',
  order_unreadable: 'check the path and its permissions',
  wrong_sku: 'run the order on the line of its SKU',
  wrong_station: 'ask the root’s desk for a mandate that names this station',
  quota_spent: 'ask the root’s desk for a new issuing CA, in a folder of its own: birthmark line request --dir FOLDER',
  window_closed:
    'check the clock, or ask the root’s desk for a new issuing CA, in a folder of its own: birthmark line request --dir FOLDER',
  clock_back: 'set the clock right; nothing is issued meanwhile',
  mandate_malformed: 'make the request again: birthmark line request',
  readback_mismatch: 'write the certificate again, or scrap the unit: birthmark line scrap SERIAL --step readback --cause mismatch',
  device_silent: 'check the cable and that the device runs its factory firmware, then run again: it resumes',
  image_too_large: 'use --esp-encoding der, or P-256 keys',
  journal_forked: 'find out which of the two journals is the station’s, and set that station’s units aside until then',
  line_unaccounted: 'read each back or scrap it: birthmark line confirm, birthmark line scrap',
  journal_busy: 'wait until the other process is done, or stop it',
  journal_corrupt: 'restore the journal from its copy; nothing is issued meanwhile',
  journal_write: 'free space or repair the medium, then start again: the journal resumes',
  authority_missing: 'make a line first: birthmark line init',
  authority_exists: 'use it as it is, or choose another --dir',
  authority_mismatch: 'put matching certificate and key files there, keys with mode 0600',
  store_unusable: 'if the store is damaged, put a backup back: birthmark restore FOLDER --config FILE (docs/stores.md)',
  manifest_malformed: 'export it again: birthmark line manifest',
  manifest_untrusted: "add the manufacturer's root to birth.anchors",
  manifest_signature: 'fetch the manifest again from the line',
  handover_malformed: 'fetch the chain of hand-overs again from the last holder',
  handover_signature: 'fetch the chain again; if it stays, the units were not theirs to give',
  handover_order: 'give the chain whole, as it came with this manifest',
  handover_refused: 'let the last holder hand them over: birthmark manifest verify --owners names them',
}
