// The PostgreSQL driver against Debian's server: the contract, and what is its own: its schema, a server that goes away, a copy that is older.

import { openPostgresStore, type Store } from '@birthmark/est-server'
import { afterAll, beforeAll } from 'vitest'
import { startPostgres, type TestPostgres } from '../support/postgres.ts'
import { approvalsContract } from './approvals-contract.ts'
import { storeContract } from './contract.ts'
import { crlContract } from './crl-contract.ts'
import { issuersContract } from './issuers-contract.ts'
import { noticeContract } from './notice-contract.ts'
import { numbersContract } from './numbers-contract.ts'
import { tokenContract } from './token-contract.ts'

let server: TestPostgres
beforeAll(async () => {
  server = await startPostgres()
})
afterAll(() => server.remove())

let schemas = 0
const driver = () => {
  const schema = `contract_${schemas++}`
  return {
    open: () => openPostgresStore(server.address(schema)) as Promise<Store>,
    remove: async () => void (await server.sql(`DROP SCHEMA ${schema} CASCADE`)),
  }
}
storeContract('postgres', driver)
crlContract('postgres', driver)
tokenContract('postgres', driver)
issuersContract('postgres', driver)
approvalsContract('postgres', driver)
numbersContract('postgres', driver)
noticeContract('postgres', driver)
