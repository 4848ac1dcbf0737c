import { nameText } from '@birthmark/device-sdk/core'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  namesText,
  parseNameTemplate,
  parseSubjectTemplate,
  renderName,
  renderSubject,
  sameNames,
  subjectName,
  templatesNeedGroups,
} from './name-template.ts'

const facts = { id: 'gw-1', fleet: 'meters', groups: ['model=gw-2', 'batch=1', 'ip=10.0.0.7', 'twice=a', 'twice=b', 'site=a/b c'] }
const subject = (...source: string[]) =>
  nameText(subjectName({ subject: renderSubject(parseSubjectTemplate(source), facts), alternativeNames: [] }, 'gw-1'))
const name = (source: string, of = facts) => namesText([renderName(parseNameTemplate(source), of)])

describe('a subject template', () => {
  it('puts the facts of the device between the text', () => {
    expect(subject('CN={id}', 'serialNumber={id}', 'O=Acmé', 'OU={model}-{fleet}', 'C=DE')).toBe(
      'C=DE,OU=gw-2-meters,O=Acmé,serialNumber=gw-1,CN=gw-1',
    )
  })

  it.each([
    [['O=Acme'], 'CN={id} has to be there'],
    [['CN={id}', 'CN={id}'], 'CN={id} has to be there, once'],
    [['CN=x{id}'], 'CN={id} has to be there'],
    [['CN={id}', 'serialNumber={model}'], 'serialNumber can only be {id}'],
    [['CN={id}', 'X=1'], 'write CN'],
    [['CN={id}', 'constructor=1'], 'write CN'],
    [['CN={id}', 'C=Germany'], 'country|more than 2'],
    [['CN={id}', 'O={model'], 'no fact'],
    [['CN={id}', 'O={}'], 'no fact'],
    [[], '1 to'],
  ])('%j is refused', (source, why) => {
    expect(() => parseSubjectTemplate(source)).toThrow(new RegExp(why.replace(/[{}]/g, '\\$&')))
  })

  it('has no value where a group is missing or there are two of it, or the value does not fit', () => {
    expect(() => subject('CN={id}', 'OU={floor}')).toThrow('in no group floor=')
    expect(() => subject('CN={id}', 'OU={twice}')).toThrow('in 2 groups twice=')
    expect(() => subject('CN={id}', 'C={model}')).toThrow('more than 2')
  })
})

describe('a name template', () => {
  it('makes DNS names, URIs, mail and IP addresses', () => {
    expect(name('dns:{id}.{model}.example')).toBe('DNS gw-1.gw-2.example')
    expect(() => name('dns:{id}.example', { ...facts, id: 'gw-1.gateways' })).toThrow('more than one label')
    expect(name('uri:urn:dev:{id}', { ...facts, id: 'gw-1.gateways' })).toBe('URI urn:dev:gw-1.gateways')
    expect(name('uri:urn:dev:{id}')).toBe('URI urn:dev:gw-1')
    expect(name('email:{id}@acme.example')).toBe('email gw-1@acme.example')
    expect(name('ip:{ip}')).toBe('IP address 10.0.0.7')
    expect(name('ip:2001:db8::7')).toBe('IP address 2001:0db8:0000:0000:0000:0000:0000:0007')
    expect(name('ip:::ffff:10.0.0.1')).toBe('IP address 0000:0000:0000:0000:0000:ffff:0a00:0001')
  })

  it('[F8] a fact cannot leave its place in a URI, and no fact makes another kind of host of a host', () => {
    expect(name('uri:https://acme.example/{site}/x')).toBe('URI https://acme.example/a%2Fb%20c/x')
    for (const id of ['.', '..']) expect(() => name('uri:spiffe://d/{id}', { ...facts, id })).toThrow('dot segment')
    for (const id of ['a_b', 'a:b', '*', 'a..b', '-a', `${'a'.repeat(64)}`])
      expect(() => name('dns:{id}.example', { ...facts, id })).toThrow('no host name')
    expect(() => name('email:{site}@acme.example')).toThrow('no mail address')
    expect(() => name('ip:{id}')).toThrow('no IP address')
  })

  it.each(['gw.example', 'dns:', 'x:y', 'dns:*.example', 'uri:relative', 'ip:10.0.0.256', 'dns:{id', '__proto__:x'])(
    '%j is refused',
    source => {
      expect(() => parseNameTemplate(source)).toThrow()
    },
  )

  it('what varies with no device is one object', () => {
    const template = parseNameTemplate('dns:gw.example')
    expect(renderName(template, facts)).toBe(renderName(template, { ...facts, id: 'other' }))
  })

  it('tells whether groups have to be looked up', () => {
    const of = (s: string) => templatesNeedGroups('device', [parseNameTemplate(s)])
    expect([of('dns:{id}.{fleet}'), of('dns:{id}.{model}')]).toEqual([false, true])
  })

  it('two sets of names are the same in any order, and only with equal members', () => {
    const some = fc.array(
      fc.constantFrom('a', 'b', 'c').map(x => renderName(parseNameTemplate(`dns:${x}`), facts)),
      { maxLength: 4 },
    )
    fc.assert(fc.property(some, names => sameNames(names, names.toReversed())))
    expect(sameNames([renderName(parseNameTemplate('dns:a'), facts)], [renderName(parseNameTemplate('uri:urn:a'), facts)])).toBe(
      false,
    )
  })
})
