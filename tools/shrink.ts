// What a minifier cannot know about the device script, done to its plain form before esbuild's own minifier. Each step leaves the same
// decisions, states and codes; the flash test enrolls with what comes out.
import {
  type CallExpression,
  type FunctionDeclaration,
  type Identifier,
  type Literal,
  type MemberExpression,
  type Node,
  type Program,
  parse,
  type VariableDeclarator,
} from 'acorn'

interface Edit {
  at: number
  to: number
  text: string
}

/**
 * Functions that throw. On a device an error says its code; `at 17` or `serial` costs flash in a hundred places, and whoever has the
 * certificate at hand gets them from the same check on a server. What a server answered (`deviceError`) is kept.
 */
const throwing = new Map([
  ['deviceError', 1],
  ['fail', 1],
  ['bad', 0],
  ['malformed', 0],
])

export function eachNode(node: Node, parent: Node | null, visit: (node: Node, parent: Node | null) => void): void {
  visit(node, parent)
  for (const value of Object.values(node).flat())
    if (value && typeof value === 'object' && typeof value.type === 'string') eachNode(value as Node, node, visit)
}

function edited(code: string, edits: Edit[]): string {
  let out = code
  for (const { at, to, text } of edits.sort((a, b) => b.at - a.at)) out = out.slice(0, at) + text + out.slice(to)
  return out
}

const treeOf = (code: string): Node => parse(code, { ecmaVersion: 2020, sourceType: 'module' })

/** Errors without their details. */
export function withoutDetails(code: string): string {
  const edits: Edit[] = []
  eachNode(treeOf(code), null, node => {
    if (node.type !== 'CallExpression') return
    const { callee, arguments: given } = node as CallExpression
    const kept = callee.type === 'Identifier' ? throwing.get(callee.name.replace(/\d+$/, '')) : undefined
    if (kept === undefined || given.length <= kept) return
    // `verdict.detail`
    if ((callee as Identifier).name === 'deviceError' && given[kept].type === 'MemberExpression') return
    edits.push({ at: kept ? given[kept - 1].end : given[0].start, to: given[given.length - 1].end, text: '' })
  })
  return edited(code, edits)
}

/** Properties of `names`, which nobody sets, as null where they are read; the minifier then drops what hangs on them. */
export function withoutUnset(code: string, names: string[]): string {
  const edits: Edit[] = []
  eachNode(treeOf(code), null, node => {
    if (node.type !== 'MemberExpression') return
    const { property, computed } = node as MemberExpression
    if (!computed && names.includes((property as Identifier).name)) edits.push({ at: node.start, to: node.end, text: 'null' })
  })
  return edited(code, edits)
}

/** Numbers, and texts that are used once, in the place of their names. Only names that nothing else in the script bears. */
export function withConstantsInPlace(code: string): string {
  const constants = new Map<string, Literal>()
  const bound = new Map<string, number>()
  const uses = new Map<string, Edit[]>()
  const bind = (node: Node) => {
    const { name } = node as Identifier
    bound.set(name, (bound.get(name) ?? 0) + 1)
  }
  eachNode(treeOf(code), null, (node, parent) => {
    if (/Function/.test(node.type)) for (const one of (node as FunctionDeclaration).params) bind(one)
    if (node.type === 'VariableDeclarator') {
      const { id, init } = node as VariableDeclarator
      if (init?.type === 'Literal') constants.set((id as Identifier).name, init as Literal)
    }
    if (node.type !== 'Identifier') return
    const at = parent as Node & { id?: Node; key?: Node; shorthand?: boolean; left?: Node; property?: Node; computed?: boolean }
    const assigned = at.type === 'UpdateExpression' || (at.type === 'AssignmentExpression' && at.left === node)
    if (at.id === node || assigned) bind(node)
    else if (at.key !== node && (at.property !== node || at.computed)) {
      const { name } = node as Identifier
      uses.set(name, [...(uses.get(name) ?? []), { at: node.start, to: node.end, text: at.shorthand ? `${name}: ` : '' }])
    }
  })
  const edits: Edit[] = []
  for (const [name, { value, start, end }] of constants) {
    const places = uses.get(name) ?? []
    if (bound.get(name) !== 1 || (typeof value !== 'number' && places.length > 1)) continue
    for (const { at, to, text } of places) edits.push({ at, to, text: text + code.slice(start, end) })
  }
  return edited(code, edits)
}

const plainArguments = /^(Identifier|Literal|MemberExpression)$/

/**
 * Functions of one expression that are called once, in the place of the call. Only where the arguments are names, literals and members, so
 * that neither order nor number of their evaluations matters, and no name means another thing in the new place.
 */
export function withCallsInPlace(code: string): string {
  const tree = treeOf(code)
  const bound = new Map<string, number>()
  const uses = new Map<string, { node: Node; parent: Node }[]>()
  const bind = (node: Node) => bound.set((node as Identifier).name, (bound.get((node as Identifier).name) ?? 0) + 1)
  eachNode(tree, null, (node, parent) => {
    if (/Function/.test(node.type)) for (const one of (node as FunctionDeclaration).params) bind(one)
    if (node.type !== 'Identifier') return
    const at = parent as Node & { id?: Node; key?: Node; property?: Node; computed?: boolean; params?: Node[] }
    if (at.id === node) bind(node)
    else if (at.key !== node && (at.property !== node || at.computed) && !at.params?.includes(node)) {
      const { name } = node as Identifier
      uses.set(name, [...(uses.get(name) ?? []), { node, parent: at }])
    }
  })
  for (const one of (tree as Program).body) {
    if (one.type !== 'FunctionDeclaration' || one.body.body[0]?.type !== 'ReturnStatement' || bound.get(one.id.name) !== 1) continue
    const result = one.body.body[0].argument
    const call = uses.get(one.id.name)?.[0].parent as CallExpression
    if (!result || uses.get(one.id.name)?.length !== 1 || call.type !== 'CallExpression' || call.callee.type !== 'Identifier')
      continue
    if (call.callee.name !== one.id.name || call.arguments.length !== one.params.length) continue
    // A call or an assignment inside a member (`list[at++]`) is not plain.
    if (!call.arguments.every(({ type, start, end }) => plainArguments.test(type) && !/[(=]|\+\+|--/.test(code.slice(start, end))))
      continue
    const edits: Edit[] = []
    const params = one.params.map(param => (param as Identifier).name)
    let clear = true
    eachNode(result, one.body, (node, parent) => {
      // A function inside has names of its own.
      if (/Function/.test(node.type) || (parent as { shorthand?: boolean }).shorthand) clear = false
      if (node.type !== 'Identifier') return
      const at = parent as Node & { key?: Node; property?: Node; computed?: boolean }
      if (at.key === node || (at.property === node && !at.computed)) return
      const { name } = node as Identifier
      const place = params.indexOf(name)
      if (place < 0) clear &&= (bound.get(name) ?? 0) < 2
      else {
        const { start, end } = call.arguments[place]
        edits.push({ at: node.start - result.start, to: node.end - result.start, text: code.slice(start, end) })
      }
    })
    if (!clear) continue
    const text = edited(code.slice(result.start, result.end), edits)
    // One at a time: a place may lie in a function that is itself put elsewhere.
    return withCallsInPlace(
      edited(code, [
        { at: one.start, to: one.end, text: '' },
        { at: call.start, to: call.end, text: `(${text})` },
      ]),
    )
  }
  return code
}

/** `function f(a) { … }` as `var f = a => { … }`: the same in this subset (no `this`, no `arguments`, no hoisting), and shorter. */
export function withArrows(code: string): string {
  const edits: Edit[] = []
  eachNode(treeOf(code), null, node => {
    if (node.type !== 'FunctionDeclaration') return
    const { id, params, body, start, end } = node as FunctionDeclaration
    const names = params.map(one => code.slice(one.start, one.end)).join(', ')
    edits.push({ at: start, to: body.start, text: `var ${id.name} = (${names}) => ` }, { at: end, to: end, text: ';' })
  })
  return edited(code, edits)
}
