// Arrays as PostgreSQL sends and receives them in binary, a column of many rows each. As text every byte string would be hexadecimal, escaped
// and parsed again, which for the writes of an enrollment costs both sides more than the rows. Format: array_recv() of PostgreSQL's
// src/backend/utils/adt/arrayfuncs.c: dimensions, whether one is null, the type's object id, length, lower bound; then of each its length
// (-1: null) and bytes. The driver sends a Buffer as binary.

const INT4 = 23
const INT8 = 20
const TEXT = 25
const BYTEA = 17

const headLength = 20

/** `write` puts an element that is not null, of `lengthOf` octets, at an offset. */
function array<T>(
  oid: number,
  values: readonly (T | null)[],
  lengthOf: (value: T) => number,
  write: (out: Buffer, value: T, at: number, length: number) => void,
): Buffer {
  const lengths = values.map(value => (value === null ? -1 : lengthOf(value)))
  const out = Buffer.allocUnsafe(lengths.reduce((sum, length) => sum + 4 + Math.max(length, 0), headLength))
  out.writeInt32BE(1, 0)
  out.writeInt32BE(lengths.includes(-1) ? 1 : 0, 4)
  out.writeInt32BE(oid, 8)
  out.writeInt32BE(values.length, 12)
  out.writeInt32BE(1, 16)
  let at = headLength
  for (const [i, value] of values.entries()) {
    at = out.writeInt32BE(lengths[i], at)
    if (value === null) continue
    write(out, value, at, lengths[i])
    at += lengths[i]
  }
  return out
}

/** A Buffer writes what is no integer as another number. */
function whole(value: number): number {
  if (!Number.isSafeInteger(value)) throw new RangeError(`${value} is not an integer`)
  return value
}

/** integer[]. Throws RangeError for what is none. */
export const int4Array = (values: readonly (number | null)[]): Buffer =>
  array(
    INT4,
    values,
    () => 4,
    (out, value, at) => out.writeInt32BE(whole(value), at),
  )

/** bigint[] of safe integers. Throws RangeError for what is none. */
export const int8Array = (values: readonly (number | null)[]): Buffer =>
  array(
    INT8,
    values,
    () => 8,
    (out, value, at) => out.writeBigInt64BE(BigInt(whole(value)), at),
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
