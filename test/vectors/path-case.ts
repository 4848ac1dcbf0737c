// One path validation case of another author's suite, put to our validator as a server would: every optional check handed in.
import {
  anchorOf,
  type Certificate,
  checkNameConstraints,
  codeOf,
  type DeviceErrorCode,
  defaultAlgorithms,
  foldName,
  parseCertificate,
  validatePath,
} from '@birthmark/device-sdk/core'
import { nodeVerify } from './node-verify.ts'

export interface PathCase {
  leaf: Uint8Array
  intermediates: Uint8Array[]
  anchors: Uint8Array[]
  /** Seconds since 1970. */
  time: number
  purpose?: string | null
  algorithms?: string[]
  depthMax?: number
}

/** What came of a case: `accepted`, or the code of the refusal. A leaf that does not parse is refused with the parser's code. */
export type Verdict = 'accepted' | DeviceErrorCode

/** Certificates that parse; junk among intermediates and anchors is left out, as a server leaves it out. */
export function parsed(ders: Uint8Array[]): Certificate[] {
  return ders.flatMap(der => {
    try {
      return [parseCertificate(der)]
    } catch (error) {
      if (codeOf(error) === null) throw error
      return []
    }
  })
}

export function verdictOf(it: PathCase): { verdict: Verdict; path: Certificate[] } {
  let leaf: Certificate
  try {
    leaf = parseCertificate(it.leaf)
  } catch (error) {
    const code = codeOf(error)
    if (code === null) throw error
    return { verdict: code, path: [] }
  }
  const answers: { verdict: Verdict; path: Certificate[] }[] = []
  const rules = {
    anchors: parsed(it.anchors).map(anchorOf),
    time: it.time,
    algorithms: it.algorithms ?? defaultAlgorithms,
    purpose: it.purpose ?? null,
    understoodCritical: [],
    depthMax: it.depthMax ?? 8,
    signaturesMax: 32,
    nameConstraints: checkNameConstraints,
    foldName,
  }
  validatePath(leaf, parsed(it.intermediates), rules, nodeVerify, (error, path) => {
    answers.push({ verdict: error ? error.code : 'accepted', path: path ?? [] })
  })
  if (answers.length !== 1) throw new Error(`${answers.length} answers instead of one`)
  return answers[0]
}
