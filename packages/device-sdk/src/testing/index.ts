/**
 * Test doubles for firmware teams: an EST server in the process that misbehaves on demand, a clock turned by hand, a network that fails as
 * planned, and media whose power can be cut at any write. None is for production.
 *
 * ```ts
 * const est = await startTestEst()
 * const device = { keys: memoryKeys(), store: memoryStore() }
 * await est.bear('gw-0001', device)                                  // born: key in slot 'birth', record 'birth.chain'
 * est.fail('simpleenroll', { fault: 'wrong-ca' }, { fault: 'lost-reply' })
 *
 * const identity = createIdentity({ ...device, server: { url: est.url }, trust: est.trust })
 * await identity.enroll().catch(error => error.code)                 // 'path_no_anchor': nothing was stored
 * await identity.enroll().catch(error => error.code)                 // 'network': issued, but the answer was lost
 * await identity.enroll()                                            // the same CSR again, the same certificate
 * est.requests.map(({ operation, status }) => [operation, status])   // what the server saw
 * identity.close()
 * await est.close()
 * ```
 *
 * @module
 */
export { memoryKeys } from '../ports/node/keys.ts'
export { memoryStore } from '../ports/node/store.ts'
export {
  type CertificateRequest,
  encodeExtension,
  generateTestKey,
  type KeyKind,
  keyKinds,
  loopbackNames,
  neverExpires,
  type Profile,
  signWith,
  type TestAuthority,
  testAuthority,
} from './authority.ts'
export { type FakeClock, fakeClock } from './clock.ts'
export { type EstOperation, type Fault, type SeenRequest, startTestEst, type TestEst, type TestEstOptions } from './est-server.ts'
export { type FlakyHttp, flakyHttp } from './http.ts'
export { type CrashDisk, type CrashOutcome, crashDisk, PowerCut, type PowerCutStore, powerCutStore } from './power-cut.ts'
