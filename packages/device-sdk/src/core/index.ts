// The public face of the core. Nothing inside the package imports this file.
export * from './bytes.ts'
export * from './cbor.ts'
export * from './cose.ts'
export * from './der.ts'
export * from './errors.ts'
