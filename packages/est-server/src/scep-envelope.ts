// What is inside a SCEP message's envelope, and the envelope around an answer. Promises: whether something decrypts and whether it is a CSR shows
// in the log alone; to the outside a decoy takes its place, and meets the fate of a wrong challenge in as much time (FAULTS 33).

import {
  type Bytes,
  CHALLENGE_PASSWORD,
  COMMON_NAME,
  type Csr,
  challengePassword,
  codeOf,
  csrAssemble,
  csrInfo,
  encodeAttribute,
  encodeElement,
  encodeName,
  equalBytes,
  PRINTABLE_STRING,
  parseCsr,
} from '@birthmark/device-sdk/core'
import type { RaKey } from './ca/ra-key.ts'
import { openContent, sealContent } from './cms-cipher.ts'
import type { Log, RandomBytes } from './ports.ts'
import { ScepFailure } from './scep-failure.ts'
import type { VerifiedMessage } from './scep-message.ts'
import { derOfBer } from './wire/ber.ts'
import { type ContentCipher, type Envelope, keyBytesOf, parseEnvelope } from './wire/cms-envelope.ts'
import { CmsError } from './wire/cms-error.ts'

/** A CSR has 16 KB at most; what is longer inside is none. */
const plainBytesMax = 32_768

export interface EnclosedCsr extends Csr {
  challenge: string | null
}

/** A message whose envelope has a form. */
export interface OpenedMessage extends VerifiedMessage {
  envelope: Envelope
  /** The RA that it is addressed to. */
  ra: RaKey
}

export interface ScepEnvelopes {
  /** Throws ScepFailure, CmsError and core's der codes. */
  open(message: VerifiedMessage): OpenedMessage
  /** What is in it; null where it could not be decrypted, however that came. */
  decrypt(message: OpenedMessage): Promise<Bytes | null>
  /** The CSR that was decrypted; the decoy where there is none. */
  csrOf(content: Bytes | null, requestId: string): EnclosedCsr
  readonly decoy: EnclosedCsr
  /** For the signer of the message, as it came. */
  seal(message: OpenedMessage, content: Bytes): Bytes
}

export function createScepEnvelopes(parts: { ras: readonly RaKey[]; random: RandomBytes; log: Log }): ScepEnvelopes {
  const { ras, random, log } = parts
  const decoy = enclosed(decoyCsr(ras[0], random))

  function open(message: VerifiedMessage): OpenedMessage {
    const { signed, profile } = message
    const envelope = parseEnvelope(derOfBer(signed.content as Bytes))
    if (envelope.cipher === 'des-ede3-cbc' && !profile.scep?.tripleDes)
      throw new ScepFailure('badAlg', 'triple DES: the profile does not allow it; use AES')
    const { recipient } = envelope
    const ra = ras.find(({ certificate }) =>
      'subjectKeyId' in recipient
        ? certificate.subjectKeyId && equalBytes(certificate.subjectKeyId, recipient.subjectKeyId)
        : equalBytes(certificate.issuer, recipient.issuer) && equalBytes(certificate.serial, recipient.serial),
    )
    if (ra === undefined) throw new ScepFailure('badRequest', 'encrypted to another certificate; ask GetCACert again')
    return { ...message, envelope, ra }
  }

  return {
    open,
    decoy,
    async decrypt({ envelope, ra }) {
      const oaep = envelope.transport.kind === 'oaep' ? envelope.transport.digest : null
      const contentKey = await ra.decrypt(envelope.encryptedKey, oaep, keyBytesOf[envelope.cipher])
      const { sound, content } = openContent(envelope, contentKey)
      return sound && content.length <= plainBytesMax ? content : null
    },
    csrOf(content, requestId) {
      if (content === null) log.info({ requestId }, 'SCEP: the content does not decrypt')
      else
        try {
          return enclosed(derOfBer(content))
        } catch (error) {
          if (codeOf(error) === null && !(error instanceof CmsError)) throw error
          log.info({ requestId, err: error }, 'SCEP: no CSR inside')
        }
      // Read anew, as the other would have been.
      enclosed(decoy.der)
      return decoy
    },
    seal({ signer, key, envelope: { cipher: asked, transport } }, content) {
      // AES whatever came: what a client could be made to send in triple DES it need not get back so.
      const cipher: ContentCipher = asked === 'des-ede3-cbc' ? 'aes-128-cbc' : asked
      return sealContent({ content, cipher, transport, recipient: signer, key, random })
    },
  }
}

function enclosed(der: Bytes): EnclosedCsr {
  const csr = parseCsr(der)
  return { ...csr, challenge: challengePassword(csr) }
}

/** A CSR of the usual size with a challenge that was never minted. Its signature is never looked at. */
function decoyCsr(ra: RaKey, random: RandomBytes): Bytes {
  const challenge = encodeElement(PRINTABLE_STRING, [Buffer.from(Buffer.from(random(16)).toString('hex'))])
  const subject = encodeName([{ oid: COMMON_NAME, value: 'decoy' }])
  const info = csrInfo(subject, ra.certificate.spki, [encodeAttribute(CHALLENGE_PASSWORD, [challenge])])
  return csrAssemble(info, 'rsa-pkcs1-sha256', random(256))
}
