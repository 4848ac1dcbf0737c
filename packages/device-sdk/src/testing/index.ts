/**
 * Test doubles for firmware teams: an EST server in the process that misbehaves on demand, a clock turned by hand, a network that fails as
 * planned, and media whose power can be cut at any write. See each for an example of its use; none is for production.
 *
 * @module
 */
export { memoryKeys } from '../ports/node/keys.ts'
export { memoryStore } from '../ports/node/store.ts'
export {
  type CertificateRequest,
  encodeExtension,
  loopbackNames,
  neverExpires,
  type Profile,
  type TestAuthority,
  testAuthority,
} from './authority.ts'
export { type FakeClock, fakeClock } from './clock.ts'
export { type EstOperation, type Fault, type SeenRequest, startTestEst, type TestEst, type TestEstOptions } from './est-server.ts'
export { type FlakyHttp, flakyHttp } from './http.ts'
export { type CrashDisk, type CrashOutcome, crashDisk, PowerCut, type PowerCutStore, powerCutStore } from './power-cut.ts'
