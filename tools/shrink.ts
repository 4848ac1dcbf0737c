// What a minifier cannot know about the device script, done to its plain form before esbuild's own minifier. Each step leaves the same
// decisions, states and codes; the flash test enrolls with what comes out.
import {
  type CallExpression,
  type FunctionDeclaration,
  type Identifier,
  type Literal,
  type Node,
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
const throwing: { [name: string]: number } = { fail: 1, bad: 0, malformed: 0 }

function eachNode(node: Node, parent: Node | null, visit: (node: Node, parent: Node | null) => void): void {
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
    const kept = callee.type === 'Identifier' ? throwing[callee.name.replace(/\d+$/, '')] : undefined
    if (kept === undefined || given.length <= kept) return
    edits.push({ at: kept ? given[kept - 1].end : given[0].start, to: given[given.length - 1].end, text: '' })
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
