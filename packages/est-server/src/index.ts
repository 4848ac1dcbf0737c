// The public face of the server. Nothing inside the package imports this file.
export * from './enrollment-request.ts'
export { EstServerError, type EstServerErrorCode, failureCode } from './errors.ts'
export type { Clock, Failpoint, Log, RandomBytes } from './ports.ts'
export { type Refusal, type RefusalCode, refusal } from './registrar/refusal.ts'
export { auditHash, chainStart, firstBroken } from './store/audit-chain.ts'
export { openSqliteStore, type SqliteStoreOptions, spawnWriterThread, type WriterThread } from './store/sqlite.ts'
export * from './store/store.ts'
