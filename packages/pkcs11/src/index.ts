// Issuer keys, and others, in a PKCS #11 token. Nothing inside the package imports this file.
export { openPkcs11Issuer, type Pkcs11IssuerOptions } from './issuer.ts'
export { openPkcs11Key, type Pkcs11Key, type Pkcs11KeyOptions, readPkcs11PublicKey } from './key.ts'
export type { KeyName, TokenErrorCode, TokenName } from './protocol.ts'
export { openPkcs11Ra, type Pkcs11RaOptions } from './ra.ts'
export { TokenError } from './token-error.ts'
export { defaultTokenLimits, type TokenLimits } from './token-keeper.ts'
