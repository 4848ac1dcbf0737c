// The commands' side of the operator's socket. A server that is not running is said so, with the next step.

import { existsSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import type { ManifestFile } from '@birthmark/factory-line'
import { checkSocketPath, socketName } from './admin-socket.ts'
import type { Administration, DeviceFilter, ManifestOutcome } from './administration.ts'
import { campaignClient } from './campaign-routes.ts'
import { CommandError, type Exit } from './command-error.ts'
import { blocksOf, type ManifestProgress } from './manifest-upload.ts'
import type { ApprovalFilter } from './profile-administration.ts'

// A page of a thousand devices has about 400 KB; a notice 64 KB.
const answerBytesMax = 16 * 1024 * 1024
/** A manifest of a million units takes the server tens of seconds to write. */
const timeoutMs = 600_000

export function administrationOf(state: string): Administration {
  const path = join(state, socketName)
  const call = async <T>(method: string, target: string, content?: Uint8Array): Promise<T> =>
    (await exchange(path, state, method, target, content)) as T
  const post = <T>(target: string, value: object): Promise<T> => call('POST', target, Buffer.from(JSON.stringify(value)))
  return {
    ...campaignClient({ get: target => call('GET', target), post }),
    status: () => call('GET', '/status'),
    devices: filter => call('GET', `/devices?${queryOf(filter)}`),
    importManifest: async (file, onProgress) =>
      (await exchange(path, state, 'POST', '/manifest', file, onProgress)) as ManifestOutcome,
    mintSecret: value => post('/secrets', value),
    mintChallenges: value => post('/challenges', value),
    planRevocation: group => call('GET', `/revocations/plan?${new URLSearchParams({ group })}`),
    revoke: value => post('/revocations', value),
    revokeSingle: value => post('/revocations/single', value),
    readmitDevice: value => post('/devices/readmit', value),
    clock: () => call('GET', '/clock'),
    acceptClock: value => post('/clock/accept', value),
    trustDevice: value => post('/devices/trust', value),
    issuers: () => call('GET', '/issuers'),
    moveIssuers: value => post('/issuers/move', value),
    profiles: () => call('GET', '/profiles'),
    explain: value => post('/profiles/explanation', value),
    approvals: filter => call('GET', `/approvals?${queryOf(filter)}`),
    decideApproval: value => post('/approvals', value),
  }
}

function queryOf(filter: DeviceFilter | ApprovalFilter): URLSearchParams {
  return new URLSearchParams(Object.entries(filter).map(([name, value]): [string, string] => [name, String(value)]))
}

function notRunning(state: string, cause?: unknown): CommandError {
  const next = existsSync(state)
    ? `start it: birthmark dev --dir ${state}`
    : `birthmark dev, or name the state folder of a running server with --dir`
  return new CommandError('not_running', `no server runs with ${state}`, next, 'unreachable', cause)
}

/** Whatever was asked for may have been done. */
function answerLost(cause: unknown): CommandError {
  const sentence = 'the server ended before it answered; what you asked for may be done or not'
  return new CommandError('answer_lost', sentence, 'see that it runs, look what became of it, then ask again', 'unreachable', cause)
}

function exchange(
  path: string,
  state: string,
  method: string,
  target: string,
  content?: Uint8Array | ManifestFile,
  onProgress: (progress: ManifestProgress) => void = () => {},
): Promise<unknown> {
  checkSocketPath(path)
  if (!existsSync(path)) return Promise.reject(notRunning(state))
  return new Promise((resolve, reject) => {
    const length = content && ('size' in content ? content.size : content.length)
    const headers = length === undefined ? {} : { 'content-length': length }
    const sent = request({ socketPath: path, method, path: target, headers, timeout: timeoutMs }, response => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (part: string) => {
        text += part
        // Lines before the answer say how far it is.
        for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
          const { progress } = JSON.parse(text.slice(0, end)) as { progress: ManifestProgress }
          text = text.slice(end + 1)
          onProgress(progress)
        }
        if (text.length > answerBytesMax)
          response.destroy(new CommandError('answer_too_long', 'the answer is longer than this command takes', 'ask for less'))
      })
      response.on('error', error => reject(error instanceof CommandError ? error : answerLost(error)))
      response.on('end', () => {
        try {
          const value = JSON.parse(text) as {
            error?: { code: string; message: string; next: string; exit: Exit }
          }
          if (value.error) reject(new CommandError(value.error.code, value.error.message, value.error.next, value.error.exit))
          else resolve(value)
        } catch (error) {
          reject(error)
        }
      })
    })
    sent.on('timeout', () => sent.destroy(new CommandError('timeout', 'the server does not answer', 'see its log', 'unreachable')))
    sent.on('error', error => {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOENT' || code === 'ECONNREFUSED') reject(notRunning(state, error))
      else if (code === 'ECONNRESET' || code === 'EPIPE') reject(answerLost(error))
      else reject(error)
    })
    if (content && 'size' in content) {
      const file = Readable.from(blocksOf(content, onProgress))
      file.on('error', error => sent.destroy(error))
      file.pipe(sent)
    } else sent.end(content)
  })
}
