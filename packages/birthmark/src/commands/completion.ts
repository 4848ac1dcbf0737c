// `birthmark completion`: a script for the shell, generated from the commands themselves.

import type { Command } from 'commander'
import { usageError } from '../command-error.ts'
import { buildProgram } from '../command-line.ts'
import type { Terminal } from '../terminal.ts'
import { leaf } from './common.ts'

const SHELLS = ['bash', 'zsh', 'fish']

interface Words {
  /** `''`, `line`, `line issue`, … */
  path: string
  summary: string
  words: { word: string; summary: string }[]
}

export function define(command: Command, terminal: Terminal): void {
  leaf(command.argument('<shell>', SHELLS.join(', ')), [
    ['birthmark completion bash > /etc/bash_completion.d/birthmark', 'for everybody'],
    ['source <(birthmark completion zsh)', 'for this shell'],
    ['birthmark completion fish > ~/.config/fish/completions/birthmark.fish', 'for fish'],
  ]).action(async (shell: string) => {
    if (!SHELLS.includes(shell)) throw usageError(`no completion for '${shell}'`, `choose one of ${SHELLS.join(', ')}`)
    const program = await buildProgram(terminal, () => true)
    const all = collectWords(program, '')
    const script = shell === 'fish' ? fish(all) : shell === 'zsh' ? zsh(all) : bash(all)
    if (terminal.json) terminal.result({ shell, script })
    else terminal.raw(`${script}\n`)
  })
}

function collectWords(command: Command, path: string): Words[] {
  const inner = command.commands.map(sub => ({ word: sub.name(), summary: sub.summary() || sub.description() }))
  const options = command.options.map(option => ({ word: option.long ?? option.short ?? '', summary: option.description }))
  const here = { path, summary: command.description(), words: [...inner, ...options, { word: '--help', summary: 'print help' }] }
  return [here, ...command.commands.flatMap(sub => collectWords(sub, path ? `${path} ${sub.name()}` : sub.name()))]
}

/** The function that finds which command the words so far name; the same in bash and zsh. */
function cases(all: Words[]): string {
  return all.map(({ path, words }) => `    '${path}') offered='${words.map(({ word }) => word).join(' ')}' ;;`).join('\n')
}

function subcommands(all: Words[]): string {
  return all
    .filter(({ path }) => path)
    .map(({ path }) => `'${path}'`)
    .join('|')
}

function bash(all: Words[]): string {
  return `# birthmark completion for bash
_birthmark() {
  local path='' offered='' i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "\${path:+$path }\${COMP_WORDS[i]}" in ${subcommands(all)}) path="\${path:+$path }\${COMP_WORDS[i]}" ;; esac
  done
  case "$path" in
${cases(all)}
  esac
  COMPREPLY=($(compgen -W "$offered" -- "\${COMP_WORDS[COMP_CWORD]}"))
  [ \${#COMPREPLY[@]} -eq 0 ] && COMPREPLY=($(compgen -f -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _birthmark birthmark`
}

function zsh(all: Words[]): string {
  return `#compdef birthmark
# birthmark completion for zsh
_birthmark() {
  local path_='' offered='' i
  for ((i = 2; i < CURRENT; i++)); do
    case "\${path_:+$path_ }\${words[i]}" in ${subcommands(all)}) path_="\${path_:+$path_ }\${words[i]}" ;; esac
  done
  case "$path_" in
${cases(all)}
  esac
  compadd -- \${=offered} || _files
}
compdef _birthmark birthmark`
}

function fish(all: Words[]): string {
  const quote = (text: string): string => `'${text.split('\n')[0].replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
  const lines = ['# birthmark completion for fish', 'complete -c birthmark -f']
  for (const { path, words } of all) {
    const inner = all.filter(other => other.path && parentOf(other.path) === path).map(other => other.path.split(' ').at(-1))
    const here = path ? path.split(' ').map(word => `__fish_seen_subcommand_from ${word}`) : []
    const deeper = inner.length ? [`not __fish_seen_subcommand_from ${inner.join(' ')}`] : []
    const condition = [...here, ...deeper].join('; and ')
    for (const { word, summary } of words) {
      const flag = word.startsWith('--') ? `-l ${word.slice(2)}` : `-a ${word}`
      lines.push(`complete -c birthmark${condition ? ` -n ${quote(condition)}` : ''} ${flag} -d ${quote(summary)}`)
    }
  }
  return lines.join('\n')
}

function parentOf(path: string): string {
  return path.split(' ').slice(0, -1).join(' ')
}
