// The reasons of RFC 5280 5.3.1 that a person may give for a revocation, by name. They stand in lists, in OCSP answers and in the notice's rule.

/** Those that mean it for good and say something: `removeFromCRL` and `certificateHold` would promise a way back that there is not. */
export const revocationReasons = {
  'key-compromise': 1,
  'ca-compromise': 2,
  'affiliation-changed': 3,
  superseded: 4,
  'cessation-of-operation': 5,
  'privilege-withdrawn': 9,
} as const

export type RevocationReason = keyof typeof revocationReasons

export const reasonNames = Object.keys(revocationReasons) as [RevocationReason, ...RevocationReason[]]
