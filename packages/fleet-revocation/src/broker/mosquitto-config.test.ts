import { describe, expect, it } from 'vitest'
import { mosquittoAccess, mosquittoDynamicSecurity } from './mosquitto-config.ts'
import { deviceIdForm } from './peer.ts'

describe('mosquitto’s files', () => {
  it('[F51] name no service as a device could be named', () => {
    for (const name of ['publisher', 'commander', 'a:b', 'x'.repeat(64)]) {
      expect(deviceIdForm.test(name)).toBe(true)
      expect(() => mosquittoAccess('acme', { [name]: 'publisher' })).toThrow('configuration_invalid')
      expect(() => mosquittoDynamicSecurity(name)).toThrow('configuration_invalid')
    }
    expect(mosquittoAccess('acme', { 'publisher@acme': 'publisher' })).toContain('user publisher@acme\ntopic read fr/1/acme/#\n')
    expect(mosquittoDynamicSecurity('enforcer@acme')).toContain('"username":"enforcer@acme"')
  })

  it('[F50] take no name that would say something in an acl_file or a topic', () => {
    for (const name of ['', 'a@b\ntopic #', 'a@b/c', 'a@+', 'a@#', 'a @b', `${'x'.repeat(64)}@`])
      expect(() => mosquittoAccess('acme', { [name]: 'observer' }), JSON.stringify(name)).toThrow('configuration_invalid')
  })
})
