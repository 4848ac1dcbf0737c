// An HTTP exchange as data: what the core asks for and what it judges. Sending is a port's.

import type { Bytes } from './bytes.ts'

export interface HttpRequest {
  method: string
  path: string
  headers: { [name: string]: string }
  /** Sent whole, under a Content-Length that the port writes: libest's server takes no chunked request. */
  body: Bytes | null
  /** A longer answer is cut off and fails with `est_response_malformed`. */
  bodyBytesMax: number
  timeoutSeconds: number
}

export interface HttpResponse {
  status: number
  /** Names in lower case. */
  headers: { [name: string]: string }
  body: Bytes
}
