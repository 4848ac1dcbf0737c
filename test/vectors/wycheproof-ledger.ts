// Where our verdicts on Wycheproof's signatures differ from theirs, and why: by file and test case. A listed deviation that no longer happens
// fails as well as one that is not listed.

import type { Deviation } from './ledger.ts'

const context =
  'signed with a context; X.509 signs with the empty one (RFC 9881 3), so to accept it would be to accept another protocol’s'

export const wycheproofDeviations: Record<string, Record<number, Deviation>> = {
  'mldsa_44_verify_test.json': { 3: { ours: 'refused', reason: context }, 4: { ours: 'refused', reason: context } },
}
