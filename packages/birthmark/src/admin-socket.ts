// The operator's door: HTTP and JSON on a Unix socket in the state folder. Whoever may open the file may do everything (mode 0600, folder
// 0700): the file system is the authentication, and no password exists. Remote administration is not this file's business.

import { chmodSync, existsSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { manifestBytesMax } from '@birthmark/factory-line'
import { z } from 'zod'
import type { Administration } from './administration.ts'
import { campaignRoute } from './campaign-routes.ts'
import { CommandError, explain } from './command-error.ts'
import { type ManifestProgress, withUpload } from './manifest-upload.ts'
import { ApprovalDecisionInput, ApprovalFilterInput, ExplanationInput } from './profile-administration.ts'
import { reasonNames } from './revocation-reason.ts'
import { SingleRevocationInput } from './single-revocation.ts'

export const socketName = 'admin.sock'
// sun_path has 108 bytes on Linux, 104 elsewhere, with a NUL at the end.
const socketPathBytesMax = 103
const jsonBytesMax = 65_536

export interface AdminSocket {
  path: string
  close(): Promise<void>
}

/**
 * Throws `already_running` when another server answers on the same folder, and `path_too_long`. Opened first, it keeps a second server
 * off the store; until `administration` gives something, requests are told to wait.
 */
export async function openAdminSocket(
  state: string,
  administration: () => Administration | null,
  onError: (error: unknown) => void,
): Promise<AdminSocket> {
  const path = join(state, socketName)
  checkSocketPath(path)
  // Left behind by a process that was killed: nobody answers, so it is ours to replace.
  if (existsSync(path)) {
    if (await answers(path))
      throw new CommandError('already_running', `a server already works with ${state}`, 'stop it first, or use another --dir')
    rmSync(path)
  }
  const server = createServer({ requestTimeout: 600_000, headersTimeout: 10_000, maxHeaderSize: 16_384 }, (request, response) => {
    const told = (progress: ManifestProgress) => say(response, { progress })
    answer(administration(), request, state, told)
      .then(value => reply(response, 200, value))
      .catch(error => {
        const told = explain(error)
        if (told.code === 'internal') onError(error)
        reply(response, told.exit === 'refused' ? 403 : told.exit === 'usage' ? 400 : 500, {
          error: { code: told.code, message: told.message, next: told.next, exit: told.exit },
        })
      })
  })
  server.maxConnections = 64
  // Between bind and chmod the file has the umask's mode; nobody else gets through the 0700 folder, and the umask closes it anyway.
  const umask = process.umask(0o177)
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(path, resolve)
    })
  } finally {
    process.umask(umask)
  }
  chmodSync(path, 0o600)
  return {
    path,
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

export function checkSocketPath(path: string): void {
  if (Buffer.byteLength(path) > socketPathBytesMax)
    throw new CommandError(
      'path_too_long',
      `${path} has ${Buffer.byteLength(path)} bytes; a socket's path has at most ${socketPathBytesMax}`,
      'choose a shorter --dir',
      'usage',
    )
}

function answers(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

const DeviceFilterInput = z.strictObject({
  id: z.string().max(64).optional(),
  group: z.string().max(128).optional(),
  state: z.enum(['known', 'enrolled', 'revoked']).optional(),
  after: z.string().max(64).optional(),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
})
const SecretInput = z.strictObject({
  device: z.string().max(64),
  groups: z.array(z.string().max(128)).max(8).default([]),
  // A day and a week: a secret is for the hours between shipping and first boot, not for a drawer.
  minutes: z.int().min(1).max(10_080).default(1440),
})
const ChallengesInput = z.strictObject({
  label: z.string().max(64).nullable().default(null),
  // What fits into jsonBytesMax with eight groups a row.
  rows: z.array(z.strictObject({ device: z.string().max(64), groups: z.array(z.string().max(128)).max(8).default([]) })).max(500),
  minutes: z.int().min(1).max(132_480).default(10_080),
})
const ReasonInput = z.strictObject({ reason: z.string().min(1).max(200) })
const TrustInput = z.strictObject({ device: z.string().min(1).max(64), reason: z.string().min(1).max(200) })
const RevokeInput = z.strictObject({
  group: z.string().max(128),
  digest: z.string().length(64),
  reason: z.string().min(1).max(200),
  code: z.enum(reasonNames).optional(),
})

const IssuerMoveInput = z.strictObject({
  step: z.enum(['prepare', 'switch', 'undo', 'retire']),
  issuer: z
    .string()
    .regex(/^([0-9a-f]{2}){1,64}$/)
    .optional(),
  force: z.boolean().default(false),
  rehearse: z.boolean().default(false),
})

async function answer(
  administration: Administration | null,
  request: IncomingMessage,
  state: string,
  onProgress: (progress: ManifestProgress) => void,
): Promise<object> {
  if (!administration)
    throw new CommandError('starting', 'the server is starting or stopping', 'try again in a moment', 'unreachable')
  const url = new URL(request.url ?? '/', 'http://socket')
  const query = Object.fromEntries(url.searchParams)
  switch (`${request.method} ${url.pathname}`) {
    case 'GET /status':
      return administration.status()
    case 'GET /devices': {
      const { limit, ...filter } = parse(DeviceFilterInput, query)
      return administration.devices({ limit, ...present(filter) })
    }
    case 'POST /manifest':
      return withUpload(request, state, manifestBytesMax, file => administration.importManifest(file, onProgress))
    case 'POST /secrets':
      return administration.mintSecret(parse(SecretInput, await json(request)))
    case 'POST /challenges':
      return administration.mintChallenges(parse(ChallengesInput, await json(request)))
    case 'GET /revocations/plan':
      return administration.planRevocation(parse(z.strictObject({ group: z.string().max(128) }), query).group)
    case 'POST /revocations':
      return administration.revoke(parse(RevokeInput, await json(request)))
    case 'POST /revocations/single':
      return administration.revokeSingle(parse(SingleRevocationInput, await json(request)))
    case 'POST /devices/readmit':
      return administration.readmitDevice(parse(TrustInput, await json(request)))
    case 'GET /clock':
      return administration.clock()
    case 'POST /clock/accept':
      return administration.acceptClock(parse(ReasonInput, await json(request)))
    case 'POST /devices/trust':
      return administration.trustDevice(parse(TrustInput, await json(request)))
    case 'GET /issuers':
      return administration.issuers()
    case 'POST /issuers/move': {
      const { issuer, ...move } = parse(IssuerMoveInput, await json(request))
      return administration.moveIssuers({ ...move, ...present({ issuer }) })
    }
    case 'GET /profiles':
      return administration.profiles()
    case 'POST /profiles/explanation':
      return administration.explain(parse(ExplanationInput, await json(request)))
    case 'GET /approvals': {
      const { limit, ...filter } = parse(ApprovalFilterInput, query)
      return administration.approvals({ limit, ...present(filter) })
    }
    case 'POST /approvals':
      return administration.decideApproval(parse(ApprovalDecisionInput, await json(request)))
    default: {
      const route = campaignRoute(administration, request.method ?? '', url.pathname)
      if (route) {
        const asked = route.method === 'GET' ? query : await json(request)
        return route.run(schema => parse(schema, asked))
      }
      throw new CommandError(
        'not_found',
        `no operation ${request.method} ${url.pathname.slice(0, 100)}`,
        'use the command of the same version as the server',
        'usage',
      )
    }
  }
}

/** Without the undefined ones. */
function present<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>
  }
}

function parse<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  throw new CommandError('request_invalid', `${issue.path.join('.') || 'request'}: ${issue.message}`, 'correct the value', 'usage')
}

async function json(request: IncomingMessage): Promise<unknown> {
  const text = (await body(request, jsonBytesMax)).toString('utf8')
  try {
    return JSON.parse(text)
  } catch {
    throw new CommandError('request_invalid', 'the body is not JSON', 'send JSON', 'usage')
  }
}

async function body(request: IncomingMessage, bytesMax: number): Promise<Buffer> {
  const parts: Buffer[] = []
  let length = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length
    if (length > bytesMax) throw new CommandError('request_invalid', `more than ${bytesMax} bytes`, 'send less at once', 'usage')
    parts.push(part)
  }
  return Buffer.concat(parts)
}

/** A line before the answer, of what takes long: the status is 200 from then on, and the last line says how it went. */
function say(response: ServerResponse, value: object): void {
  if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/jsonl' })
  // To nobody, when the client has gone: what it asked for goes on.
  if (response.writable) response.write(`${JSON.stringify(value)}\n`)
}

function reply(response: ServerResponse, status: number, value: object): void {
  const text = JSON.stringify(value)
  if (response.headersSent) {
    response.end(text)
    return
  }
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) })
  response.end(text)
}
