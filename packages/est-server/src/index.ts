// The public face of the server. Nothing inside the package imports this file.

export * from './audit-file.ts'
export { type BearerTokens, createBearerTokens } from './bearer-token.ts'
export { type CertificateDetails, CLIENT_AUTH, certificateTemplate, deviceSubject } from './ca/certificate-template.ts'
export { type Authority, createAuthority, type IssuancePermit, type IssuedCertificate } from './ca/issuance.ts'
export { type IssuerCertificate, type IssuerCertificateOptions, readIssuerCertificate } from './ca/issuer-certificate.ts'
export { type Issuer, type SoftwareIssuerOptions, softwareIssuer } from './ca/issuer-key.ts'
export { createLinter, type Lint, type Linter } from './ca/lint.ts'
export { delegatedSigner, issuerAsSigner, type OcspSigner, publicKeyBits } from './ca/ocsp-signer.ts'
export { type RaKey, readRaCertificate, type SoftwareRaOptions, softwareRa } from './ca/ra-key.ts'
export { serialSource } from './ca/serial.ts'
export type { CertificateRevocation, DevicesRequest, SetRevocation } from './certificate-revocation.ts'
export { type ConsumerAnswer, type ConsumerProof, isProven, type ListProof, proveToConsumers } from './consumer-proof.ts'
export { createEnrollment, type Enrollment, type EnrollmentOptions } from './enrollment.ts'
export * from './enrollment-request.ts'
export { EstServerError, type EstServerErrorCode, failureCode } from './errors.ts'
export {
  type CertificatePreview,
  createExplanation,
  type Explanation,
  type ExplanationParts,
  type ExplanationRequest,
} from './explanation.ts'
export { type Approvals, createApprovals } from './fleet/approvals.ts'
export * from './fleet/campaign.ts'
export {
  type ApprovalThreshold,
  type CampaignPlan,
  campaignId,
  canonicalJson,
  needsApproval,
  planSha256,
  readPlanFile,
} from './fleet/campaign-plan.ts'
export * from './fleet/campaign-receipt.ts'
export { keyName, type Person, peopleProblem, personKeyProblem, type Saying, signWord, type Word } from './fleet/campaign-words.ts'
export { type Challenges, challengeSecondsMax, challengesMax, createChallenges, type MintedChallenge } from './fleet/challenges.ts'
export { createRegistry, type ManifestResult, type Registry } from './fleet/registry.ts'
export * from './fleet/selector.ts'
export { type Finding, type FsckReport, fsck } from './fsck.ts'
export { listNumber } from './fsck-lists.ts'
export { type FullList, openFullList } from './full-revocation-list.ts'
export type { App } from './http/app.ts'
export type { EstService } from './http/est-routes.ts'
export { type Answer, answer, type Exchange, pathOf, refuse, responseOf } from './http/exchange.ts'
export { defaultLimits, type Limits } from './http/limits.ts'
export { createListener, type Listener, type ListenerOptions, type ListenerTls } from './http/listener.ts'
export type { ConnectionEnd, ConnectionRefusal, HttpObserver, ScepObserver } from './http/observer.ts'
export { type Problem, type ProblemCode, type ProblemOptions, problem, type RequestProblemCode } from './http/problem.ts'
export { createScepListener, type ScepListener, type ScepListenerOptions } from './http/scep-listener.ts'
export { createStatusListener, type StatusLimits, type StatusListener, type StatusListenerOptions } from './http/status-listener.ts'
export { createStatusRoutes, type StatusAnswer, type StatusQuestion, type StatusRoutesOptions } from './http/status-routes.ts'
export { failpoints, type ProfileStanding } from './issue-certificate.ts'
export { createIssuerSet, type IssuerSet, type IssuerStand, type SigningIssuer, soleIssuer } from './issuer-set.ts'
export { type KeySigner, keySigner } from './key-envelope.ts'
export { createLoopTurns, type LoopTurns } from './loop-turns.ts'
export { aggregateMetrics, createMetrics, type GaugeName, type Metrics, type MetricsOptions } from './metrics.ts'
export { verifyOnce as verifySignature } from './node-crypto.ts'
export type * from './notice-input.ts'
export { createOcspResponder, type OcspAnswer, type OcspResponder, type OcspResponderOptions } from './ocsp-responder.ts'
export { type OpenIntentParts, resolveOpenIntents } from './open-intents.ts'
export { createOutbound, type Outbound } from './outbound-request.ts'
export type { Clock, Failpoint, Log, RandomBytes, TimerClock } from './ports.ts'
export { createProxies, forwardingHeaders, type Proxies, type ProxyRule } from './proxies.ts'
export { clockToleranceSeconds } from './recorded-time.ts'
export type { IssuerName } from './registrar/authenticate.ts'
export { purposesOf, purposeText } from './registrar/certificate-purpose.ts'
export { type Approval, decide, type Question } from './registrar/decide.ts'
export { parseNameTemplate, parseSubjectTemplate } from './registrar/name-template.ts'
export { type Pattern, parsePattern } from './registrar/pattern.ts'
export { type ProvenCsr, prove } from './registrar/possession.ts'
export {
  type ApprovalRule,
  type EnrollmentProfile,
  enrollmentProfile,
  isGroupName,
  isLabel,
  keyTypes,
  type ProfileOptions,
  type RenewalRule,
} from './registrar/profile.ts'
export { profileSetHash } from './registrar/profile-set.ts'
export { isUnauthenticated, type Refusal, type RefusalCode, refusal } from './registrar/refusal.ts'
export { type TokenRule, type TokenRuleOptions, tokenAlgorithms, tokenRule } from './registrar/token-rule.ts'
export { type WebhookRule, type WebhookRuleOptions, webhookRule } from './registrar/webhook-rule.ts'
export { createRevocation, type GroupRevocation, type Revocation, type RevocationOptions } from './revocation.ts'
export {
  createRevocationLists,
  crlFailpoints,
  type ListAnswer,
  type RevocationListOptions,
  type RevocationLists,
  type SignedList,
} from './revocation-lists.ts'
export { type IssuerReport, openRollOver, type RollOver, type RollOverOptions } from './roll-over.ts'
export { createScep, type ScepOptions, type ScepReply, type ScepRequest, type ScepService } from './scep.ts'
export { signingTimeSkewSeconds } from './scep-message.ts'
export { readSecret, SecretError, type SecretSource } from './secret-source.ts'
export { createServerKeys, type ServerKeyOutcome, type ServerKeys } from './server-key.ts'
export { crlFile, crlFolder, fullCrlPath, isStatusUrl, issuerName, ocspPath, shardOf } from './status-urls.ts'
export type * from './store/approvals.ts'
export { auditHash, chainStart, firstBroken } from './store/audit-chain.ts'
export * from './store/bit-blocks.ts'
export type * from './store/campaigns.ts'
export type * from './store/crl.ts'
export type * from './store/issuance-pages.ts'
export type { IssuerStanding, IssuerState, IssuerStore, IssuersChange } from './store/issuers.ts'
export type * from './store/notice.ts'
export * from './store/number-set.ts'
export type * from './store/numbers.ts'
export { openPostgresStore, type PostgresAddress, type PostgresStoreOptions } from './store/postgres.ts'
export { dumpPostgresStore, restorePostgresStore } from './store/postgres-backup.ts'
export type * from './store/profile-sets.ts'
export type * from './store/quarantine.ts'
export type * from './store/revoked-lists.ts'
export * from './store/scep.ts'
export * from './store/selection.ts'
export { openSqliteStore, type SqliteStoreOptions, spawnWriterThread, type WriterThread } from './store/sqlite.ts'
export { copySqliteStore } from './store/sqlite-backup.ts'
export * from './store/store.ts'
export type * from './store/token.ts'
export { compareVersions } from './store/version-order.ts'
export { createWebhook, type Webhook, type WebhookQuestion } from './webhook.ts'
export { CSR_TEMPLATE, type CsrAttribute, type CsrTemplate, parseCsrAttributes, parseCsrTemplate } from './wire/csr-attributes.ts'
export { encodeOcspRequest, type OcspResponse, parseOcspRequest, parseOcspResponse, type SingleStatus } from './wire/ocsp.ts'
