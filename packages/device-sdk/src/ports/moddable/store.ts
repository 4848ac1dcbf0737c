// Records in Moddable's preferences, which an ESP32 keeps in NVS: a value is replaced whole or not at all, and has reached flash when `set` returns.

import type { Store } from '../../agent/ports.ts'
import { equalBytes } from '../../core/bytes.ts'
import { deviceError } from '../../core/errors.ts'
import type { ModdablePreference } from './modules.ts'

const DOMAIN = 'birthmark'

export function preferenceStore(preference: ModdablePreference): Store {
  const get = (name: string) => {
    const found = preference.get(DOMAIN, name)
    return found instanceof ArrayBuffer ? new Uint8Array(found) : null
  }
  return {
    get,
    put(name, value) {
      try {
        preference.set(DOMAIN, name, new Uint8Array(value).buffer)
      } catch (error) {
        throw deviceError('store_write', String(error))
      }
      // NVS that is full says so on some ports and not on others.
      const kept = get(name)
      if (!kept || !equalBytes(kept, value)) throw deviceError('store_write', name)
    },
    remove(name) {
      preference.delete(DOMAIN, name)
    },
  }
}
