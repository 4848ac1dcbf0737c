// Arrays as PostgreSQL sends and receives them in binary, a column of many rows each. As text every byte string would be hexadecimal, escaped
// and parsed again, which for the writes of an enrollment costs both sides more than the rows. Format: array_recv() of PostgreSQL's
// src/backend/utils/adt/arrayfuncs.c: dimensions, whether one is null, the type's object id, length, lower bound; then of each its length
// (-1: null) and bytes. The driver sends a Buffer as binary.

const INT4 = 23
const INT8 = 20
const TEXT = 25
const BYTEA = 17

const headLength = 20

function head(oid: number, count: number, hasNull: boolean, length: number): Buffer {
  const out = Buffer.allocUnsafe(headLength + length)
  out.writeInt32BE(1, 0)
  out.writeInt32BE(hasNull ? 1 : 0, 4)
  out.writeInt32BE(oid, 8)
  out.writeInt32BE(count, 12)
  out.writeInt32BE(1, 16)
  return out
}

/** `write` puts an element that is not null at an offset. */
function array<T>(
  oid: number,
  values: readonly (T | null)[],
  lengthOf: (value: T) => number,
  write: (out: Buffer, value: T, at: number, length: number) => void,
): Buffer {
  let length = 0
  let hasNull = false
  for (const value of values) {
    length += 4
    if (value === null) hasNull = true
    else length += lengthOf(value)
  }
  const out = head(oid, values.length, hasNull, length)
  let at = headLength
  for (const value of values) {
    const size = value === null ? -1 : lengthOf(value)
    at = out.writeInt32BE(size, at)
    if (value === null) continue
    write(out, value, at, size)
    at += size
  }
  return out
}

const two32 = 2 ** 32

/** integer[] */
export const int4Array = (values: readonly (number | null)[]): Buffer =>
  array(
    INT4,
    values,
    () => 4,
    (out, value, at) => out.writeInt32BE(value, at),
  )

/** bigint[] of safe integers. */
export const int8Array = (values: readonly (number | null)[]): Buffer =>
  array(
    INT8,
    values,
    () => 8,
    (out, value, at) => {
      out.writeInt32BE(Math.floor(value / two32), at)
      out.writeUInt32BE(value >>> 0, at + 4)
    },
  )

/** text[], in UTF-8, which the driver sets as the client's encoding. */
export const textArray = (values: readonly (string | null)[]): Buffer =>
  array(TEXT, values, Buffer.byteLength, (out, value, at, length) => out.write(value, at, length, 'utf8'))

/** bytea[] */
export const byteaArray = (values: readonly (Uint8Array | null)[]): Buffer =>
  array(
    BYTEA,
    values,
    value => value.length,
    (out, value, at) => out.set(value, at),
  )
