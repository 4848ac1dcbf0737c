// `npm run demo`: the main job on real parts, in two processes. This one runs the server as `birthmark dev` does, in a folder and on
// ports of its own; the other is the fleet. Every claim is checked; `--once` ends with exit 0 only if each is true, and its last line is
// one JSON object.

import { fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { systemClock } from '@birthmark/fleet-revocation'
import { pino } from 'pino'
import { CommandError, exitCodes, explain, usageError } from './command-error.ts'
import { compose } from './compose.ts'
import type { DemoClaims, DemoFigures, FleetMessage } from './demo/messages.ts'
import { prepareDevelopment } from './development.ts'
import { createTerminal, type Terminal } from './terminal.ts'

const HELP = `npm run demo [-- --once] [-- --devices N]

A hundred devices in two groups are born, enroll over EST with mutual TLS, connect to MQTT over TLS and send telemetry. One group is
revoked by one notice. Everything that must then be refused is tried, and the other group must not notice.

  --once        end by itself; exit 0 only if every claim was checked true; the last line is one JSON object
  --devices N   2 to 1000, default 100
`

// Far beyond the half minute it takes on a slow machine: a hang has to end as a failure.
const patienceMs = 180_000

const CLAIMS: Record<keyof DemoClaims, string> = {
  allWorking: 'every device enrolled, connected and was heard',
  oneNotice: 'one notice revoked the whole group',
  revokedSessionsCut: 'every revoked session was cut',
  revokedSilent: 'nothing of the revoked group was heard afterwards',
  reconnectRefused: 'reconnecting with the operational certificate is refused',
  reenrollRefused: 're-enrolling with it is refused',
  birthEnrollRefused: 'enrolling again with the birth certificate is refused',
  controlAdmitted: 'the same three attempts succeed for a device that is not revoked',
  resumptionRefused: 'a saved TLS session gets nobody in, at EST or MQTT',
  neighboursConnected: 'no session of the other group ended',
  neighboursUninterrupted: 'its telemetry arrived without a gap, before, during and after',
}

async function demo(once: boolean, devices: number, terminal: Terminal): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-demo-'))
  const log = pino({ level: 'error', base: null }, pino.destination({ fd: 2, sync: true }))
  // From here on Ctrl-C only asks: there are two processes, their sockets and the folder to put away.
  let fail: (error: Error) => void = () => {}
  const ended = new Promise<'stopped'>((resolve, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => resolve('stopped'))
    fail = reject
  })
  ended.catch(() => {})
  const { settings } = await prepareDevelopment({
    folder,
    host: '127.0.0.1',
    estPort: 0,
    mqttPort: 0,
    lifetimeSeconds: 86_400,
    random: randomBytes,
  })
  const running = await compose(settings, { clock: systemClock, random: randomBytes, log, onFatal: error => fail(error) })
  let fleet: FleetProcess | null = null
  try {
    terminal.done('manufacturer, device issuer and a server CA apart from it made', folder)
    terminal.done('enrollment server and MQTT broker listening', `${running.est}, ${running.mqtt}`)
    fleet = startFleet(folder, devices, terminal)
    const result = await Promise.race([fleet.result, ended])
    if (result === 'stopped') throw new CommandError('stopped', 'stopped before every claim was checked', 'npm run demo')
    const { figures, claims } = result
    report(figures, claims, terminal)
    const broken = (Object.keys(CLAIMS) as (keyof DemoClaims)[]).filter(name => !claims[name])
    if (!once) {
      invite(folder, running.est, terminal)
      fleet.onPulse = (connected, received) =>
        terminal.progress(`${connected} devices connected · ${received} measurements received`)
      await Promise.race([ended, fleet.gone])
    }
    return { figures, claims, broken: broken.map(name => CLAIMS[name]) }
  } finally {
    await fleet?.stop()
    await running.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

interface Outcome {
  figures: DemoFigures
  claims: DemoClaims
  /** Claims that were not true. */
  broken: string[]
}

interface FleetProcess {
  /** Rejects when the fleet fails or comes to no end. */
  result: Promise<{ figures: DemoFigures; claims: DemoClaims }>
  /** Rejects when the process ends by itself. */
  gone: Promise<never>
  onPulse: (connected: number, received: number) => void
  stop(): Promise<void>
}

function startFleet(folder: string, devices: number, terminal: Terminal): FleetProcess {
  const child = fork(fileURLToPath(new URL('./demo/fleet-process.ts', import.meta.url)), [folder, String(devices)], {
    execArgv: ['--conditions=source', '--disable-warning=ExperimentalWarning'],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const exited = new Promise<number | null>(resolve => child.once('exit', code => resolve(code)))
  const gone = exited.then((code): never => {
    throw new CommandError('fleet_ended', `the fleet's process ended (${code ?? 'killed'})`, 'see the lines above')
  })
  // Whoever waits for it hears of it; at an orderly end nobody does.
  gone.catch(() => {})
  const fleet: FleetProcess = {
    onPulse: () => {},
    gone,
    result: new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new CommandError('timeout', 'the demo came to no end', 'is the machine busy? Try again with --devices 20'))
      }, patienceMs)
      timer.unref()
      gone.catch(reject)
      child.on('message', (message: FleetMessage) => {
        if (message.kind === 'progress') terminal.progress(message.text)
        else if (message.kind === 'step') terminal.done(message.text, message.where)
        else if (message.kind === 'pulse') fleet.onPulse(message.connected, message.received)
        else if (message.kind === 'failed') reject(new CommandError(message.code, message.message, message.next))
        else {
          clearTimeout(timer)
          resolve(message)
        }
      })
    }),
    async stop() {
      if (child.connected) child.disconnect()
      const killer = setTimeout(() => child.kill('SIGKILL'), 10_000)
      await exited
      clearTimeout(killer)
    },
  }
  fleet.result.catch(() => {})
  return fleet
}

function report(figures: DemoFigures, claims: DemoClaims, terminal: Terminal): void {
  terminal.line()
  for (const name of Object.keys(CLAIMS) as (keyof DemoClaims)[]) {
    if (claims[name]) terminal.done(CLAIMS[name])
    else terminal.bad(CLAIMS[name], 'not true', 'run again; if it stays so, report it with this output')
  }
  terminal.line()
  terminal.table(
    ['figure', 'value'],
    [
      ['devices', `${figures.devices} in two groups`],
      ['enrollments', `${figures.enrollmentsPerSecond}/s, server and fleet on this machine`],
      ['revoke → session cut', `p50 ${figures.cutP50Ms} ms, p99 ${figures.cutP99Ms} ms, max ${figures.cutMaxMs} ms`],
      ['the notice', `${figures.noticeBytes} bytes`],
      ['telemetry', `${figures.telemetryReceived} measurements received`],
    ],
  )
}

function invite(folder: string, est: string, terminal: Terminal): void {
  terminal.commands('The server is still up and the other group still sends. Look at it, in another terminal:', [
    `birthmark devices batch=red --dir ${folder}`,
    `birthmark sim device --group batch=blue --dir ${folder}`,
    `birthmark revoke batch=green --reason "the demo is over" --yes --dir ${folder}`,
    `birthmark doctor --dir ${folder}`,
    `curl --cacert ${folder}/device/server-ca.pem ${est}/.well-known/est/cacerts`,
  ])
  terminal.commands('Then one of your own:', ['birthmark dev'])
  terminal.line('Read on in docs/operations.md, docs/factory.md and SECURITY.md.')
  terminal.line()
  terminal.line('Ctrl-C stops it and deletes its folder.')
}

/** How many devices. */
function parseArguments(argv: string[]): number {
  let devices = 100
  for (let i = 0; i < argv.length; i++) {
    if (argv[i] === '--once') continue
    if (argv[i] !== '--devices') throw usageError(`unknown option ${argv[i]}`, 'npm run demo -- --help')
    devices = Number(argv[++i])
    if (!Number.isInteger(devices) || devices < 2 || devices > 1000)
      throw usageError('--devices is a whole number from 2 to 1000', 'npm run demo -- --help')
  }
  return devices
}

const argv = process.argv.slice(2)
const terminal = createTerminal({ stdout: process.stdout, stderr: process.stderr, env: process.env, now: Date.now })
if (argv.includes('--help') || argv.includes('-h')) process.stdout.write(HELP)
else {
  const once = argv.includes('--once')
  // The last line on stdout, whatever happens: a script reads one JSON object.
  const last = (value: object): void => {
    if (once) process.stdout.write(`${JSON.stringify(value)}\n`)
  }
  try {
    const { figures, claims, broken } = await demo(once, parseArguments(argv), terminal)
    if (broken.length)
      terminal.error(
        new CommandError(
          'claim_failed',
          `not true: ${broken.join('; ')}`,
          'run it again; if it stays so, report it with this output',
        ),
      )
    else if (!once) terminal.done('stopped, and its folder deleted')
    last({ demo: broken.length ? 'failed' : 'ok', ...figures, claims })
    process.exitCode = broken.length ? exitCodes.failed : exitCodes.ok
  } catch (error) {
    const told = explain(error)
    terminal.error(told)
    last({ demo: 'failed', error: { code: told.code, message: told.message, next: told.next } })
    process.exitCode = told.exit === 'usage' ? exitCodes.usage : exitCodes.failed
  }
}
