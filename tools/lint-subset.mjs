// The device subset (the language that XS, Espruino, Bun and Node all run): bundles the device side as it would be flashed and walks the
// bundle's syntax tree, plain (what the sources use, with the file named) and minified (what a minifier may have put in again).
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'acorn'
import { entries, everything, flashBundle, minifiedBundle, plainBundle, root } from './device-bundle.ts'

/** Node types that are refused wherever they stand, and what to call them. */
const refusedNodes = {
  RestElement: 'rest parameter or pattern',
  SpreadElement: 'spread',
  AssignmentPattern: 'default value',
  ObjectPattern: 'destructuring',
  ArrayPattern: 'destructuring',
  ChainExpression: 'optional chaining (?.)',
  ClassDeclaration: 'class',
  ClassExpression: 'class',
  PrivateIdentifier: '#private name',
  AwaitExpression: 'await',
  YieldExpression: 'generator',
  ForOfStatement: 'for…of (uses Symbol.iterator)',
  ForInStatement: 'for…in',
  LabeledStatement: 'label',
  ImportExpression: 'import()',
  TaggedTemplateExpression: 'tagged template',
  TemplateLiteral: 'template literal',
  WithStatement: 'with',
  DebuggerStatement: 'debugger',
  MetaProperty: 'import.meta or new.target',
  StaticBlock: 'static block',
}

/** Globals that the smallest engine lacks, or that would tie the bundle to one. `Date` is there for a given time alone. */
const refusedGlobals = new Set(
  (
    'BigInt Symbol Map Set WeakMap WeakSet WeakRef Proxy Reflect Promise TextEncoder TextDecoder Buffer process require module exports ' +
    'console setTimeout setInterval setImmediate queueMicrotask fetch crypto atob btoa structuredClone eval Function Intl JSON URL RegExp escape unescape'
  ).split(' '),
)

/** Words that are keywords to Espruino wherever they stand. */
const keywords = new Set(['of', 'static'])

const refusedMembers = {
  // Espruino's power is exact up to 2¹¹.
  Math: new Set(['imul', 'clz32', 'fround', 'trunc', 'sign', 'log2', 'hypot', 'cbrt', 'random', 'pow']),
  Date: new Set(['now', 'UTC']),
  Uint8Array: new Set(['from', 'of']),
  Array: new Set(['from', 'of']),
  Object: new Set(['entries', 'fromEntries', 'values']),
  Number: new Set(['parseFloat', 'parseInt']),
}

/**
 * What of a regular expression Espruino does not do, by docs/decisions/engines.md, or null. It has characters, classes, `*` and `+` after one of them,
 * `^`, `$`, and groups that match once; with most of the rest it does not fail but matches something else.
 */
function troubleIn(pattern) {
  const outside = pattern
    .replace(/\\[^dDsSwWfnrtv0xbBpPku1-9]/g, '_')
    .replace(/\[(?:\\.|[^\]\\])*\]/g, set => (set.includes('/') ? '\0' : '_'))
  if (outside.includes('\0')) return 'a slash in a class'
  if (/\(\?/.test(outside)) return 'look-around, named or uncounted group'
  if (outside.includes('|')) return 'alternatives'
  if (/\{\d*,?\d*\}/.test(outside)) return 'a counted quantifier'
  if (/\)[*+?]/.test(outside)) return 'a quantifier after a group'
  if (outside.includes('?')) return 'an optional or lazy part'
  if (/\\[1-9bBpPku]/.test(outside)) return '\\b, \\p, \\u or a reference back'
  return null
}

/** Every child node, in source order. */
function childrenOf(node) {
  const out = []
  for (const key of Object.keys(node)) {
    if (key === 'type' || key === 'start' || key === 'end') continue
    for (const value of Array.isArray(node[key]) ? node[key] : [node[key]])
      if (value && typeof value.type === 'string') out.push(value)
  }
  return out
}

const isFunction = node => /Function/.test(node.type)
const isLoop = node => /^(For|While|DoWhile)/.test(node.type)

/** All findings in one bundle: `{ at, what }`. */
export function findingsIn(code) {
  const tree = parse(code, { ecmaVersion: 2022, sourceType: 'script' })
  const found = []
  /** From the whole program down to the node being walked. */
  const above = []
  const report = (node, what) => found.push({ at: node.start, what })

  // Scopes are kept as a stack of { node, names: name → { kind, loop, at } }; a function declaration is a name of the scope it stands in.
  const scopes = []
  const lookUp = name => {
    for (let i = scopes.length - 1; i >= 0; i--) if (scopes[i].names.has(name)) return scopes[i].names.get(name)
    return null
  }
  const functionDepth = () => scopes.filter(scope => isFunction(scope.node)).length

  const namesIn = node => (node.type === 'Identifier' ? [node.name] : childrenOf(node).flatMap(namesIn))
  const compares = (test, names) =>
    test.type === 'BinaryExpression' && /^[<>]=?$/.test(test.operator)
      ? namesIn(test).some(name => names.has(name))
      : childrenOf(test).some(child => compares(child, names))
  /** Whether a loop or condition around compares what `index` is made of, as one that stays within an array does. */
  const bounded = index => {
    const names = new Set(namesIn(index))
    return above.some(({ test }) => test && compares(test, names))
  }
  /** The text of the function around, or of the program. */
  const around = () => {
    const node = above.findLast(isFunction) ?? tree
    return code.slice(node.start, node.end)
  }

  const declare = (scope, id, kind) => {
    if (keywords.has(id.name)) report(id, `${id.name} as a name`)
    if (id.type === 'Identifier') scope.names.set(id.name, { kind, at: id.start, loop: scope.loop, functions: functionDepth() })
  }
  /** `let` and `const` of a block, and functions declared in it, before anything of it is walked. */
  const hoist = (scope, statements) => {
    for (const statement of statements) {
      if (statement.type === 'VariableDeclaration' && statement.kind !== 'var')
        for (const { id } of statement.declarations) declare(scope, id, 'lexical')
      if (statement.type === 'FunctionDeclaration') declare(scope, statement.id, 'function')
    }
  }
  /** `var` of a whole function, wherever it stands. */
  const hoistVars = (scope, node) => {
    for (const child of childrenOf(node)) {
      if (child.type === 'VariableDeclaration' && child.kind === 'var')
        for (const { id } of child.declarations) declare(scope, id, 'var')
      if (!isFunction(child)) hoistVars(scope, child)
    }
  }

  const use = node => {
    const binding = lookUp(node.name)
    if (!binding) {
      if (refusedGlobals.has(node.name)) report(node, node.name)
      return
    }
    // Run while the scope that declares the function is itself being run, before it got to the declaration: XS hoists, Espruino does not.
    if (binding.kind === 'function' && node.start < binding.at && binding.functions === functionDepth())
      report(node, `${node.name} used before it is defined`)
    if (binding.kind === 'lexical' && binding.loop && binding.functions < functionDepth())
      report(node, `closure over the loop variable ${node.name}`)
  }

  const walk = (node, loop) => {
    above.push(node)
    look(node, loop)
    above.pop()
  }
  const look = (node, loop) => {
    const refused = refusedNodes[node.type]
    if (refused) report(node, refused)
    switch (node.type) {
      case 'Identifier':
        if (keywords.has(node.name)) report(node, `${node.name} as a name`)
        return use(node)
      case 'MemberExpression': {
        const { object, property, computed } = node
        if (object.type === 'Identifier' && !computed && !lookUp(object.name)) {
          if (refusedMembers[object.name]?.has(property.name)) report(node, `${object.name}.${property.name}`)
          // There, what is no date is 0, month 13 is in the next year, and a year with a month is no date.
          if (object.name === 'Date' && property.name === 'parse' && !/ GMT\$|\.toJSON\b/.test(around()))
            report(node, 'Date.parse of what neither ends in GMT nor is read back by toJSON')
        }
        // Espruino throws where a typed array is asked for [undefined]; what a table lacks is asked for with a byte that is there.
        if (
          computed &&
          property.type === 'MemberExpression' &&
          property.computed &&
          property.property.type !== 'Literal' &&
          !bounded(property.property)
        )
          report(node, 'index by an element that may be missing')
        walk(object, loop)
        if (computed) walk(property, loop)
        return
      }
      case 'Property':
        if (node.computed) report(node, 'computed key')
        if (node.kind !== 'init') report(node, `${node.kind}ter`)
        if (node.method) report(node, 'method shorthand')
        return walk(node.value, loop)
      case 'BinaryExpression':
        if (node.operator === '**') report(node, '**')
        break
      case 'LogicalExpression':
        if (node.operator === '??') report(node, '??')
        break
      case 'AssignmentExpression':
        if (/^(\*\*|\?\?|&&|\|\|)=$/.test(node.operator)) report(node, node.operator)
        if (node.left.type === 'MemberExpression' && node.left.property.name === 'length') report(node, 'length assigned')
        break
      case 'Literal':
        if (node.bigint) report(node, 'BigInt literal')
        if (node.regex) {
          if (/[^gim]/.test(node.regex.flags)) report(node, `regular expression flag ${node.regex.flags}`)
          const trouble = troubleIn(node.regex.pattern)
          if (trouble) report(node, `regular expression with ${trouble}`)
        }
        if (typeof node.value === 'string' && /\$[&`']/.test(node.value)) report(node, 'replacement $&')
        return
      case 'NewExpression':
      case 'CallExpression':
        if (node.callee.type === 'Identifier' && node.callee.name === 'Date' && !lookUp('Date') && !node.arguments.length)
          report(node, 'Date without a given time')
        // There a view ends where it is told to, past the end of what it is a view of: other bytes of the buffer, or none.
        if (node.callee.property?.name === 'subarray' && typeof node.arguments[1]?.value === 'number')
          report(node, 'subarray up to a fixed end')
        // There it throws for every character beyond ASCII: the caller has to have an answer for that.
        if (node.callee.name === 'decodeURIComponent' && !above.some(one => one.type === 'TryStatement'))
          report(node, 'decodeURIComponent outside of try')
        break
      case 'BreakStatement':
      case 'ContinueStatement':
        return
    }
    if (isFunction(node)) {
      if (node.async) report(node, 'async function')
      if (node.generator) report(node, 'generator')
      const scope = { node, names: new Map(), loop: false }
      scopes.push(scope)
      if (node.type === 'FunctionExpression' && node.id) declare(scope, node.id, 'var')
      for (const parameter of node.params) declare(scope, parameter, 'var')
      for (const parameter of node.params) if (parameter.type !== 'Identifier') walk(parameter, false)
      if (node.body.type === 'BlockStatement') {
        hoistVars(scope, node.body)
        hoist(scope, node.body.body)
        for (const statement of node.body.body) walk(statement, false)
      } else walk(node.body, false)
      scopes.pop()
      return
    }
    if (node.type === 'VariableDeclarator') {
      if (node.id.type !== 'Identifier') walk(node.id, loop)
      if (node.init) walk(node.init, loop)
      return
    }
    if (node.type === 'CatchClause') {
      const scope = { node, names: new Map(), loop: false }
      scopes.push(scope)
      if (node.param) declare(scope, node.param, 'var')
      // `catch {` is ES2019: esbuild drops an unused name, and XS and Espruino take it.
      walk(node.body, loop)
      scopes.pop()
      return
    }
    const inside = loop || isLoop(node)
    if (node.type === 'BlockStatement' || node.type === 'Program' || isLoop(node) || node.type === 'SwitchStatement') {
      const scope = { node, names: new Map(), loop: inside }
      scopes.push(scope)
      if (node.type === 'Program') hoistVars(scope, node)
      const statements =
        node.type === 'SwitchStatement' ? node.cases.flatMap(one => one.consequent) : Array.isArray(node.body) ? node.body : []
      hoist(scope, node.init?.type === 'VariableDeclaration' ? [...statements, node.init] : statements)
      for (const child of childrenOf(node)) walk(child, inside)
      scopes.pop()
      return
    }
    for (const child of childrenOf(node)) walk(child, loop)
  }
  walk(tree, false)
  return found
}

/** `packages/…/file.ts` for a place in an unminified bundle, from the comment esbuild puts before each file. */
function fileAt(code, at) {
  const marks = [...code.slice(0, at).matchAll(/^ *\/\/ ((?:packages|entry)\S*)$/gm)]
  return marks.at(-1)?.[1] ?? 'bundle'
}

const lineAt = (code, at) => code.slice(code.lastIndexOf('\n', at) + 1, code.indexOf('\n', at)).trim()

async function main() {
  const bundles = [['core + agent', [entries.core, entries.agent]]]
  if (existsSync(join(root, entries.receiver))) bundles.push(['notice receiver', [entries.receiver]])
  const problems = new Set()
  for (const [name, files] of bundles) {
    try {
      const exported = await everything(...files)
      const plain = await plainBundle(exported)
      for (const { at, what } of findingsIn(plain))
        problems.add(`${fileAt(plain, at)}: ${what}: ${lineAt(plain, at).slice(0, 100)}`)
      for (const code of [await minifiedBundle(exported), await flashBundle(exported)]) {
        if (/["'`]node:/.test(code)) problems.add(`${name}: the bundle names a node: module`)
        for (const { at, what } of findingsIn(code))
          problems.add(`${name}, minified: ${what}: …${code.slice(Math.max(0, at - 20), at + 40)}…`)
      }
    } catch (error) {
      problems.add(`${name} does not bundle: ${error.message}`)
    }
  }
  if (problems.size) {
    process.stderr.write(
      `The device side leaves its subset (docs: the engines that have to run it):\n${[...problems].map(one => `  ${one}`).join('\n')}\n`,
    )
    process.exit(1)
  }
  process.stdout.write(`device subset: ${bundles.map(([name]) => name).join(', ')} keep it\n`)
}

if (process.argv[1] === import.meta.filename) await main()
