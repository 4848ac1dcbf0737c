// A look into a notice of our own making, from the outbox. Nothing is verified here: never for bytes from outside.

import { type Bytes, parseSign1 } from '@birthmark/device-sdk/core'
import { RevocationError } from './errors.ts'
import { decodeNoticeBody, type NoticeBody } from './notice.ts'

/** Throws `notice_malformed` or another problem's code when the outbox holds something else. */
export function noticeFacts(notice: Bytes): NoticeBody {
  const body = decodeNoticeBody(parseSign1(notice).payload)
  if (typeof body === 'string') throw new RevocationError(body, 'in the outbox')
  return body
}
