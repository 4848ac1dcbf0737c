// Device-subset scripts in ES5, for engines that stopped there (Duktape). esbuild lowers everything but `let` and `const`; those become `var` here,
// which is the same for code whose closures do not catch a loop's variable (the subset lint sees to that) and whose blocks shadow nothing.
import { type Node, parse } from 'acorn'
import { transform } from 'esbuild'

type Any = Node & { [key: string]: unknown }

const isNode = (value: unknown): value is Any => typeof (value as Any | null)?.type === 'string'
const childrenOf = (node: Any): Any[] =>
  Object.values(node).flatMap(value => (Array.isArray(value) ? value : [value]).filter(isNode))

/** Throws where a block's name hides one of the same function: as `var` they would be one. */
export async function es5(code: string): Promise<string> {
  const { code: lowered } = await transform(code, { target: 'es5', supported: { 'const-and-let': true }, charset: 'ascii' })
  const edits: { at: number; end: number; text: string }[] = []
  // Names in force in this function, by the block that declared them.
  const walk = (node: Any, visible: Set<string>, forHead: boolean) => {
    let names = visible
    if (/Function/.test(node.type)) {
      names = new Set((node.params as Any[]).map(one => one.name as string))
    } else if (/^(BlockStatement|Program|SwitchStatement|For)/.test(node.type)) {
      names = new Set(visible)
    }
    if (node.type === 'VariableDeclaration') {
      const lexical = node.kind !== 'var'
      if (lexical) edits.push({ at: node.start, end: node.start + (node.kind as string).length, text: 'var' })
      for (const one of node.declarations as Any[]) {
        const name = (one.id as Any).name as string
        if (lexical && names.has(name)) throw new Error(`${name} at ${one.start} would be one variable with another`)
        if (lexical) names.add(name)
        // A `let` starts anew each time around, a `var` does not.
        if (lexical && !one.init && !forHead) edits.push({ at: one.end, end: one.end, text: ' = void 0' })
      }
    }
    for (const child of childrenOf(node)) walk(child, names, /^For/.test(node.type) && child !== node.body)
  }
  walk(parse(lowered, { ecmaVersion: 2020, sourceType: 'script' }) as unknown as Any, new Set(), false)
  let out = lowered
  for (const { at, end, text } of edits.sort((a, b) => b.at - a.at)) out = out.slice(0, at) + text + out.slice(end)
  parse(out, { ecmaVersion: 5 })
  return out
}
