// A YAML file whose every complaint can name the line: parsed strictly, without duplicate keys, with few aliases. What the values have to be
// is said by whoever reads it.

import { isMap, isNode, isScalar, isSeq, LineCounter, parseDocument } from 'yaml'
import type { z } from 'zod'
import { CommandError } from './command-error.ts'

export interface YamlDocument {
  content: unknown
  /** `FILE:LINE: path.of.key`; the line of the key at `path`, or of the nearest thing around it that exists. */
  at(path: PropertyKey[]): string
}

/** Throws `configuration` for what is no YAML, with file and line. */
export function parseYaml(file: string, text: string): YamlDocument {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, strict: true, uniqueKeys: true })
  const broken = document.errors[0]
  if (broken)
    throw wrong(
      `${file}:${lines.linePos(broken.pos[0]).line}: ${broken.message.split('\n')[0].replace(/:$/, '')}`,
      'correct that line',
    )
  const lineOf = (path: PropertyKey[]): number => {
    let node: unknown = document.contents
    let line = 1
    for (const part of path) {
      let key: unknown
      if (isMap(node)) {
        const pair = node.items.find(item => isScalar(item.key) && item.key.value === part)
        key = pair?.key
        node = pair?.value
      } else if (isSeq(node)) {
        node = node.items[Number(part)]
        key = node
      }
      if (!isNode(key) || !key.range) break
      line = lines.linePos(key.range[0]).line
    }
    return line
  }
  try {
    return {
      // An alias bomb is cut off before it is unfolded.
      content: document.toJS({ maxAliasCount: 20 }) ?? {},
      at: path => `${file}:${lineOf(path)}: ${path.map(String).join('.') || 'configuration'}`,
    }
  } catch (error) {
    throw wrong(`${file}: ${(error as Error).message}`, 'write the values out')
  }
}

/** The content as a schema has it, or every complaint (the first five) with its line. `path`: where in the document it stands. */
export function judged<T>(schema: z.ZodType<T>, document: YamlDocument, content: unknown, path: PropertyKey[] = []): T {
  const parsed = schema.safeParse(content)
  if (parsed.success) return parsed.data
  const issues = parsed.error.issues.slice(0, 5).map(issue => {
    const where = [...path, ...issue.path]
    if (issue.code === 'unrecognized_keys') return `${document.at([...where, issue.keys[0]])} is not known`
    return `${document.at(where)} ${sentence(issue)}`
  })
  throw wrong(issues.join('; '), 'correct the lines named; birthmark init writes an example')
}

function sentence(issue: z.core.$ZodIssue): string {
  if (issue.code === 'invalid_type' && issue.message.includes('received undefined')) return `is missing (${issue.expected})`
  if (issue.code === 'too_big') return `is more than ${issue.maximum}`
  if (issue.code === 'too_small') return `is less than ${issue.minimum}`
  return issue.message.replace(/^Invalid (input|string|option): ?/, '')
}

export function wrong(sentence: string, next: string): CommandError {
  return new CommandError('configuration', sentence, next, 'usage')
}
