// Keys in a PKCS #11 token on Bun: the same handles, for all but TLS. A device with such keys reaches its server through a gateway, which asks for
// signatures alone.

import { deviceError } from '../../core/errors.ts'
import type { NodeKeyStore } from '../node/keys.ts'
import { tokenKeys as anyTokenKeys, type TokenKeysOptions } from '../node/token-keys.ts'

/** As `tokenKeys` of `./node`, but that `tlsKey` of a slot with a key throws `key_unavailable`: Bun's TLS takes no OpenSSL engine. */
export function tokenKeys(options: TokenKeysOptions): NodeKeyStore {
  const keys = anyTokenKeys(options)
  return {
    ...keys,
    tlsKey(slot) {
      if (keys.tlsKey(slot) === null) return null
      throw deviceError(
        'key_unavailable',
        'Bun has no TLS for a key in a token: enroll through a gateway (gatewayHttp), or run Node',
      )
    },
  }
}
