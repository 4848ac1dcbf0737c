// `birthmark serve` as an operator runs it: a configuration made by `birthmark init` in a folder of its own, free ports, and devices that a
// one-time secret admits.

import { randomBytes } from 'node:crypto'
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Certificate, encodeBase64, encodePem, parseCertificate, parseCertsOnly } from '@birthmark/device-sdk/core'
import { administrationOf } from '../../packages/birthmark/src/admin-client.ts'
import type { Administration } from '../../packages/birthmark/src/administration.ts'
import { runCommandLine } from '../../packages/birthmark/src/command-line.ts'
import { ensureTwoTier } from '../../packages/birthmark/src/server-certificate.ts'
import { createTerminal } from '../../packages/birthmark/src/terminal.ts'
import { birthmarkProgram, type Outcome, type Program } from './command.ts'
import { request } from './devices.ts'
import { post, type RawAnswer, type RawConnection, rawConnect } from './raw-http.ts'

export interface Serving {
  folder: string
  state: string
  config: string
  port: number
  mqttPort: number
  /** What monitoring sees under a path. */
  monitor(path: string): Promise<{ status: number; body: string }>
  /** PEM of what clients trust. */
  rootPem: string
  administration: Administration
  /** Starts the program; resolves when it serves. */
  start(...args: string[]): Promise<Program>
  connect(identity?: { cert: string; key: string }): Promise<RawConnection>
  /** Enrolls with a fresh secret on a connection of its own. */
  enroll(device: string, groups?: string[]): Promise<Enrolled>
  /** The same on a connection that stands, with a secret minted before; the answer as it came. */
  ask(connection: RawConnection, secret: { device: string; secret: string }): Promise<RawAnswer | null>
  remove(): Promise<void>
}

export interface Enrolled {
  certificate: Certificate
  cert: string
  key: string
  answer: RawAnswer
}

export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise<void>(resolve => server.close(() => resolve()))
  return port
}

export function certificateIn(answer: RawAnswer): Certificate {
  return parseCertificate(parseCertsOnly(Buffer.from(answer.body, 'base64'))[0])
}

/** Certificate and chain of an answer. */
export function pemsIn(answer: RawAnswer): string {
  return parseCertsOnly(Buffer.from(answer.body, 'base64'))
    .map(der => encodePem('CERTIFICATE', der))
    .join('')
}

/** `change` edits the text of the configuration. */
export async function prepareServing(change: (yaml: string) => string = yaml => yaml): Promise<Serving> {
  const folder = mkdtempSync(join(tmpdir(), 'bm-'))
  const file = (...names: string[]): string => join(folder, ...names)
  const silent = { write: () => true }
  const terminal = createTerminal({ stdout: silent, stderr: silent, env: {}, now: () => 0 })
  if ((await runCommandLine(['init', folder, '--fleet', 'acme', '--host', 'localhost'], terminal)) !== 0) throw new Error('init')
  await ensureTwoTier(file('maker'), 'Acme', 'device', randomBytes)
  copyFileSync(file('maker', 'root.pem'), file('birth-anchors.pem'))
  const config = file('birthmark.yaml')
  const [port, mqttPort, metricsPort] = [await freePort(), await freePort(), await freePort()]
  const yaml = readFileSync(config, 'utf8')
    .replace('port: 8443', `port: ${port}`)
    .replace('port: 8883', `port: ${mqttPort}`)
    .replaceAll('host: 0.0.0.0', 'host: 127.0.0.1')
  writeFileSync(config, change(`${yaml}\nmetrics:\n  listen: 127.0.0.1:${metricsPort}\n`))
  const state = file('state')
  const rootPem = readFileSync(file('server', 'root.pem'), 'utf8')
  const administration = administrationOf(state)
  const running: Program[] = []

  const connect: Serving['connect'] = identity => rawConnect({ port, ca: rootPem, ...identity })

  const send = async (connection: RawConnection, { device, secret }: { device: string; secret: string }) => {
    const { csr, key } = await request(device)
    const basic = { Authorization: `Basic ${Buffer.from(`${device}:${secret}`).toString('base64')}` }
    return { key, answer: await connection.ask(post('/.well-known/est/simpleenroll', encodeBase64(csr, 64), basic)) }
  }

  return {
    ...{ folder, state, config, port, mqttPort, rootPem, administration, connect },
    async start(...args) {
      const program = birthmarkProgram('serve', '--config', config, '--json', ...args)
      running.push(program)
      await program.said(line => line.serving === true)
      return program
    },
    async monitor(path) {
      const response = await fetch(`http://127.0.0.1:${metricsPort}${path}`)
      return { status: response.status, body: await response.text() }
    },
    ask: async (connection, secret) => (await send(connection, secret)).answer,
    async enroll(device, groups = []) {
      const minted = await administration.mintSecret({ device, groups, minutes: 60 })
      const connection = await connect()
      const { key, answer } = await send(connection, minted)
      connection.close()
      if (answer?.status !== 200) throw new Error(`${device}: ${answer?.status} ${answer?.body}`)
      return { certificate: certificateIn(answer), cert: pemsIn(answer), key, answer }
    },
    async remove() {
      const ended: Promise<Outcome>[] = running.map(program => program.stop('SIGKILL'))
      await Promise.all(ended)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
