// Plays to Duktape what another engine did: the same script, lowered, has to ask for the same things in the same order, byte for byte.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { es5 } from '../../tools/es5.ts'
import type { Asked } from './recorded.ts'

const replay = `
    var at = 0
    function hex(bytes) { var out = ''; for (var i = 0; i < bytes.length; i++) out += ('0' + bytes[i].toString(16)).slice(-2); return out }
    function unhex(text) { var out = new Uint8Array(text.length / 2); for (var i = 0; i < out.length; i++) out[i] = parseInt(text.substr(2 * i, 2), 16); return out }
    function lend(name, text) {
      var line = transcript[at++] || ['', '', []], bytes = []
      for (var i = 2; i < arguments.length; i++) bytes.push(hex(arguments[i]))
      if (line[0] !== name || line[1] !== text || line[2].join() !== bytes.join()) throw new Error(name + ' ' + text + ' ' + bytes + ' instead of ' + line)
      return line[3] === null ? null : unhex(line[3])
    }`

/** Throws where it asks for anything else, or for less. */
export async function playOnDuktape(script: string, transcript: Asked[]): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'duktape-'))
  const file = join(folder, 'board.js')
  const told = `var transcript = ${JSON.stringify(transcript)}\n${replay}\n${await es5(script)}\nprint(at === transcript.length)\n`
  writeFileSync(file, told)
  const { stdout, stderr } = spawnSync('duk', [file], { encoding: 'utf8', timeout: 60_000 })
  rmSync(folder, { recursive: true })
  if (stderr || stdout.trim() !== 'true') throw new Error(`Duktape: ${stderr || 'asked for less'}`)
}
