// Which letter a local name gets is all the same to an engine, not to gzip: a phrase that was there before, letters included, costs little.
// Names are changed one after the other, and a change stays where it saves. Only names change, each for all its places, so that the script
// means the same; the flash test enrolls with it.
import { gzipSync } from 'node:zlib'
import { type CallExpression, type Identifier, type Node, type Program, parse } from 'acorn'
import { eachNode } from './shrink.ts'

const letters = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'.split('')

interface Place {
  start: number
  end: number
  name: string
}

interface Group {
  members: number[][]
  taken: Set<string>
}

interface AnyNode extends Node {
  id?: Node
  key?: Node
  property?: Node
  computed?: boolean
  shorthand?: boolean
  params?: Node[]
  param?: Node | null
  declarations?: AnyNode[]
}

/** `code`: one minified script in a function, without shorthand properties. `properties`: those that were shortened, free to be renamed. */
export function withTriedNames(code: string, properties: string[]): string {
  const program = parse(code, { ecmaVersion: 2020 }) as Program
  const wrapper = (program.body[0] as unknown as { expression: CallExpression }).expression.callee as unknown as {
    body: { body: AnyNode[] }
  }
  const free = new Set(properties)
  const places: Place[] = []
  // Places by name of what may be renamed together, and what else each group's names must not meet.
  const groups: Group[] = []
  const propertyPlaces = new Map<string, number[]>()
  const shared = new Map<string, number[]>()
  for (const statement of wrapper.body.body)
    for (const unit of statement.declarations ?? [statement]) {
      const own = new Map<string, number[]>()
      const bound = new Set<string>()
      const bind = (node?: Node | null) => node && bound.add((node as Identifier).name)
      eachNode(unit, null, (node, parent) => {
        const { id, params, param } = node as AnyNode
        if (/Function/.test(node.type)) for (const one of params ?? []) bind(one)
        if (node.type === 'CatchClause') bind(param)
        if (node.type === 'VariableDeclarator' && node !== unit) bind(id)
        if (node.type !== 'Identifier') return
        const at = (parent ?? {}) as AnyNode
        const isProperty = at.key === node || (at.property === node && !at.computed)
        const { name, start, end } = node as Identifier
        if (isProperty && !free.has(name)) return
        const list = isProperty ? propertyPlaces : own
        list.set(name, [...(list.get(name) ?? []), places.length])
        places.push({ start, end, name })
      })
      const members = [...own].filter(([name]) => bound.has(name)).map(([, at]) => at)
      for (const [name, at] of own) if (!bound.has(name)) shared.set(name, [...(shared.get(name) ?? []), ...at])
      if (members.length) groups.push({ members, taken: new Set([...own.keys()].filter(name => !bound.has(name))) })
    }
  groups.push({ members: [...propertyPlaces.values()], taken: new Set() })

  const order = places.map((_, at) => at).sort((a, b) => places[a].start - places[b].start)
  const between = order.map((at, i) => code.slice(i ? places[order[i - 1]].end : 0, places[at].start))
  const rest = code.slice(places[order[order.length - 1]].end)
  const text = () => {
    let out = ''
    for (let i = 0; i < order.length; i++) out += between[i] + places[order[i]].name
    return out + rest
  }
  const name = (members: number[], to: string) => {
    for (const at of members) places[at].name = to
  }
  const declared = new Set(
    wrapper.body.body.flatMap(({ declarations }) => (declarations ?? []).map(({ id }) => (id as Identifier).name)),
  )
  let least = gzipSync(text(), { level: 9 }).length
  const tryOut = ({ members, taken }: Group) => {
    for (const one of members)
      for (const letter of members.length > 20 ? letters : letters.slice(0, 26)) {
        const before = places[one[0]].name
        if (letter === before || taken.has(letter)) continue
        const other = members.find(([at]) => places[at].name === letter)
        name(one, letter)
        if (other) name(other, before)
        const weight = gzipSync(text(), { level: 9 }).length
        if (weight <= least) least = weight
        else {
          name(one, before)
          if (other) name(other, letter)
        }
      }
  }
  // A second time, since the names tried first had not seen what the later ones became.
  for (const group of groups.concat(groups, groups)) tryOut(group)
  // Last the names of the whole script that no local bears anywhere: among themselves.
  const local = new Set(groups.slice(0, -1).flatMap(({ members }) => members.map(([at]) => places[at].name)))
  const [movable, others] = [true, false].map(own =>
    [...shared].filter(([name]) => own === (declared.has(name) && !local.has(name))),
  )
  tryOut({ members: movable.map(([, at]) => at), taken: new Set([...local, ...others.map(([name]) => name)]) })
  return text()
}
