// Debian's RabbitMQ, one node on loopback with folders, an Erlang port mapper and a cookie of its own.

import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { until } from './broker.ts'
import { freePort, listens } from './ports.ts'

const program = '/usr/lib/rabbitmq/bin/rabbitmq-server'

export interface RabbitOptions {
  /** PEM: what client certificates must lead to; the node's own certificate and key. */
  tls: { ca: string; cert: string; key: string }
  /** `http://127.0.0.1:port/secret`, where it asks who may do what. */
  webhook: string
}

export interface Rabbit {
  mqttPort: number
  managementUrl: string
  log(): string
  close(): Promise<void>
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const over = new Promise(resolve => child.once('exit', resolve))
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), 10_000)
  await over
  clearTimeout(timer)
}

/** Resolves when it takes MQTT connections: ten seconds on an idle machine. */
export async function startRabbit({ tls, webhook }: RabbitOptions): Promise<Rabbit> {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-rabbit-'))
  for (const name of ['home', 'data', 'logs']) mkdirSync(join(folder, name))
  chmodSync(folder, 0o700)
  const [mqttPort, managementPort, mapperPort, distributionPort] = [
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
  ]
  const file = (name: string, content: string): string => {
    writeFileSync(join(folder, name), content)
    return join(folder, name)
  }
  const questions = ['user', 'vhost', 'resource', 'topic'].map(
    question => `auth_http.${question}_path = ${webhook}/rabbitmq/${question}`,
  )
  file(
    'rabbitmq.conf',
    `listeners.tcp = none
mqtt.listeners.tcp = none
mqtt.listeners.ssl.1 = 127.0.0.1:${mqttPort}
mqtt.ssl_cert_login = true
mqtt.allow_anonymous = false
ssl_cert_login_from = common_name
ssl_options.cacertfile = ${file('ca.pem', tls.ca)}
ssl_options.certfile = ${file('server.pem', tls.cert)}
ssl_options.keyfile = ${file('server.key', tls.key)}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
auth_backends.1 = http
auth_http.http_method = post
${questions.join('\n')}
management.tcp.ip = 127.0.0.1
management.tcp.port = ${managementPort}
`,
  )
  const env = {
    ...process.env,
    HOME: join(folder, 'home'),
    ERL_EPMD_PORT: `${mapperPort}`,
    ERL_EPMD_ADDRESS: '127.0.0.1',
    RABBITMQ_NODENAME: `birthmark${mqttPort}@localhost`,
    RABBITMQ_DIST_PORT: `${distributionPort}`,
    RABBITMQ_MNESIA_BASE: join(folder, 'data'),
    RABBITMQ_LOG_BASE: join(folder, 'logs'),
    RABBITMQ_CONFIG_FILE: join(folder, 'rabbitmq'),
    RABBITMQ_CONF_ENV_FILE: '/dev/null',
    RABBITMQ_ENABLED_PLUGINS_FILE: file('plugins', '[rabbitmq_mqtt,rabbitmq_auth_backend_http,rabbitmq_management].'),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none',
  }
  // Started by us, or Erlang would start one that outlives the test.
  const mapper = spawn('epmd', ['-port', `${mapperPort}`, '-address', '127.0.0.1'], { stdio: 'ignore' })
  await until(() => listens(mapperPort), 'the port mapper listens')
  const node = spawn(program, [], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [node.stdout, node.stderr]) stream?.on('data', (data: Buffer) => (output += data.toString()))
  const close = async (): Promise<void> => {
    await stop(node)
    await stop(mapper)
    rmSync(folder, { recursive: true, force: true })
  }
  const log = (): string => {
    try {
      return readFileSync(join(folder, 'logs', `birthmark${mqttPort}@localhost.log`), 'utf8')
    } catch {
      return output
    }
  }
  try {
    await until(
      () => {
        if (node.exitCode !== null) throw new Error(`RabbitMQ ended with ${node.exitCode}: ${output}`)
        return listens(mqttPort)
      },
      'RabbitMQ listens',
      90,
    )
    // The management listener comes last.
    await until(() => listens(managementPort), 'the management listens', 30)
  } catch (error) {
    await close()
    throw error
  }
  return { mqttPort, managementUrl: `http://127.0.0.1:${managementPort}`, log, close }
}
