// A SoftHSM token of its own for a test, behind a library that misbehaves on demand (token-shim.c, compiled once a process).
import { execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
export const softHsm =
  ['/usr/lib/softhsm/libsofthsm2.so', '/usr/lib64/softhsm/libsofthsm2.so'].find(existsSync) ?? 'softhsm2 is not installed'

export type ShimPlan =
  | ''
  | 'stall'
  | 'removed'
  | 'crash'
  | 'flip'
  | 'final-try'
  | 'locked'
  | 'slow'
  | 'together'
  | 'one-session'
  | 'one-thread'

export interface SoftToken {
  library: string
  label: string
  pin: string
  pinFile: string
  folder: string
  /** Puts a PKCS #8 key onto the token. */
  importKey(pem: string, label: string, id: string): void
  plan(plan: ShimPlan): void
  /** How often somebody logged in, rightly or wrongly. */
  logins(): number
  /** Takes the token out of its reader, and back. */
  unplug(): void
  plug(): void
  /** Another token of the same label in its place. */
  swap(): void
  remove(): void
}

/** A token of SoftHSM alone in `folder`; the environment in which the library finds it. */
export function bareToken(folder: string, label: string, pin: string): NodeJS.ProcessEnv {
  const conf = join(folder, 'softhsm2.conf')
  mkdirSync(join(folder, 'tokens'))
  writeFileSync(conf, `directories.tokendir = ${folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n`)
  const env = { ...process.env, SOFTHSM2_CONF: conf }
  execFileSync('softhsm2-util', ['--init-token', '--free', '--label', label, '--pin', pin, '--so-pin', '12345678'], {
    env,
    stdio: 'pipe',
  })
  return env
}

/** What the token says of the private keys it holds, a line each. */
export function privateKeysIn(env: NodeJS.ProcessEnv, pin: string): string[] {
  const objects = execFileSync('pkcs11-tool', ['--module', softHsm, '--login', '--pin', pin, '-O', '--type', 'privkey'], {
    env,
    encoding: 'utf8',
    stdio: 'pipe',
  })
  return [...objects.matchAll(/^ *Access: *(.*)$/gm)].map(([, access]) => access)
}

let shim: string | null = null

function shimLibrary(): string {
  if (shim !== null) return shim
  const includes = realpathSync(join(here, '../../packages/pkcs11/node_modules/pkcs11js/includes/pkcs11'))
  shim = join(mkdtempSync(join(tmpdir(), 'birthmark-shim-')), 'shim.so')
  execFileSync('cc', ['-shared', '-fPIC', '-w', `-I${includes}`, '-o', shim, join(here, 'token-shim.c'), '-ldl'])
  return shim
}

/** Points this process's environment, which token processes inherit, at the new token. One at a time. */
export function softToken(label = 'birthmark'): SoftToken {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-token-'))
  const file = (name: string) => join(folder, name)
  const pin = 'pin-of-a-test-735182'
  mkdirSync(file('tokens'))
  writeFileSync(file('softhsm2.conf'), `directories.tokendir = ${file('tokens')}\nobjectstore.backend = file\nlog.level = ERROR\n`)
  writeFileSync(file('pin'), `${pin}\n`, { mode: 0o600 })
  writeFileSync(file('plan'), '')
  writeFileSync(file('logins'), '')
  Object.assign(process.env, {
    SOFTHSM2_CONF: file('softhsm2.conf'),
    SHIM_LIBRARY: softHsm,
    SHIM_PLAN: file('plan'),
    SHIM_LOGINS: file('logins'),
  })
  const util = (...args: string[]) => execFileSync('softhsm2-util', args, { stdio: 'pipe' })
  const init = () => util('--init-token', '--free', '--label', label, '--pin', pin, '--so-pin', 'so-pin-of-a-test')
  init()
  return {
    ...{ library: shimLibrary(), label, pin, pinFile: file('pin'), folder },
    importKey(pem, keyLabel, id) {
      writeFileSync(file('key.pem'), pem, { mode: 0o600 })
      util('--import', file('key.pem'), '--token', label, '--label', keyLabel, '--id', id, '--pin', pin)
      rmSync(file('key.pem'))
    },
    plan: plan => writeFileSync(file('plan'), plan),
    logins: () => readFileSync(file('logins')).length,
    unplug() {
      renameSync(file('tokens'), file('elsewhere'))
      mkdirSync(file('tokens'))
    },
    plug() {
      rmdirSync(file('tokens'))
      renameSync(file('elsewhere'), file('tokens'))
    },
    swap() {
      renameSync(file('tokens'), file('swapped-out'))
      mkdirSync(file('tokens'))
      init()
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}
