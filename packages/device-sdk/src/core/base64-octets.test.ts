import { randomBytes } from 'node:crypto'
import { expect, it } from 'vitest'
import { base64Length, writeBase64 } from './base64-octets.ts'

it('[RFC 4648 4] writes any part of any bytes where it is told, and nothing beside', () => {
  const bytes = randomBytes(64)
  for (let begin = 0; begin < 5; begin++)
    for (let end = begin; end <= bytes.length; end++) {
      const text = bytes.subarray(begin, end).toString('base64')
      expect(base64Length(end - begin)).toBe(text.length)
      const room = Buffer.alloc(100, '.')
      expect(writeBase64(room, 3, bytes, begin, end)).toBe(3 + text.length)
      expect(room.toString('latin1')).toBe(`...${text}`.padEnd(100, '.'))
    }
})
