// The store that a configuration names, opened; for the server, its workers and the commands that work on a store.

import { join } from 'node:path'
import type { Log, Metrics } from '@birthmark/est-server'
import { openPostgresStore, openSqliteStore, type PostgresAddress, readSecret, type Store } from '@birthmark/est-server'
import type { Settings } from './configuration.ts'
import type { StoreSettings } from './store-settings.ts'

export type Placed = Pick<Settings, 'state' | 'store'>

export interface OpenStoreOptions {
  /** Other processes issue from it at the same time. */
  shared: boolean
  /** A server's start: a damaged file is refused. Its workers and the commands need not look again. */
  checkPages?: boolean
  /** Told once when the store stops for good, so that the process can end. */
  onStopped: (error: Error) => void
  log: Log
  metrics?: Metrics
}

/** Where the SQLite store of a state folder is. */
export const storePath = (state: string): string => join(state, 'fleet.db')

export function postgresAddress({ anchors, password, ...rest }: Extract<StoreSettings, { kind: 'postgres' }>): PostgresAddress {
  const { host, port, database, user, schema } = rest
  // Asked for at each connection, so that a changed password needs no restart.
  return {
    host,
    port,
    database,
    user,
    schema,
    password: password && (() => readSecret(password).toString('utf8')),
    tlsAnchors: anchors,
  }
}

/** For people: what the store is and where. */
export function storeName({ state, store }: Placed): string {
  return store.kind === 'sqlite'
    ? storePath(state)
    : `PostgreSQL ${store.host}:${store.port}/${store.database}, schema ${store.schema}`
}

export async function openStore({ state, store }: Placed, options: OpenStoreOptions): Promise<Store> {
  const { shared, onStopped, log, metrics } = options
  if (store.kind === 'sqlite')
    return openSqliteStore({
      path: storePath(state),
      shared,
      checkPages: options.checkPages ?? false,
      onStopped,
      ...(metrics && { onBatch: metrics.batch }),
    })
  const onAway = (error: Error | null) => {
    if (error) log.error({ err: error }, 'PostgreSQL does not answer; requests get 503 until it does')
    else log.info({}, 'PostgreSQL answers again')
  }
  return openPostgresStore({ ...postgresAddress(store), onStopped, onAway, ...(metrics && { onBatch: metrics.batch }) })
}

/** For a command that works on the store beside a server, or without one. */
export async function withStore<T>(settings: Placed, work: (store: Store) => Promise<T>): Promise<T> {
  const store = await openStore(settings, { shared: true, onStopped: () => {}, log: { info() {}, warn() {}, error() {} } })
  try {
    return await work(store)
  } finally {
    await store.close()
  }
}
