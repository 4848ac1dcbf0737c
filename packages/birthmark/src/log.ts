// The log: JSON lines to a file descriptor, nothing a stranger sent left as it came. pino escapes control characters inside strings.

import type { Log } from '@birthmark/est-server'
import { pino } from 'pino'

/** `base`: fields of every line. */
export function logTo(fd: number, level: 'debug' | 'info' | 'warn' | 'error', base: object | null = null): Log {
  return pino({ level, base: base as Record<string, unknown> | null }, pino.destination({ fd, sync: false }))
}
