// What a mosquitto 2.0 needs to know to serve a fleet: the same access table as the embedded broker, as its acl_file, and a dynamic
// security file in which one service may command it. Text only; where the files go and how mosquitto is started is the operator's.

import { RevocationError } from '../errors.ts'
import { accessOf } from './access.ts'
import type { ServiceRole } from './peer.ts'

export interface MosquittoFiles {
  /** Absolute paths, as the configuration names them. */
  accessFile: string
  dynamicSecurityFile: string
  /** Where Debian puts it: /usr/lib/<triplet>/mosquitto_dynamic_security.so */
  plugin: string
  /** PEM files: authorities of devices and services; the broker's certificate and key. */
  caFile: string
  certificateFile: string
  keyFile: string
  /**
   * A CRL of every device issuer, kept by `createCrlFile`. Then `caFile` names the devices' authorities alone and services have a listener of
   * their own: mosquitto wants a CRL of every authority that it meets, and refuses whoever's is missing or has run out.
   */
  crl?: { file: string; servicePort: number; serviceCaFile: string }
}

function listener(host: string, port: number, caFile: string, { certificateFile, keyFile }: MosquittoFiles): string {
  return `listener ${port} ${host}
cafile ${caFile}
certfile ${certificateFile}
keyfile ${keyFile}
require_certificate true
use_identity_as_username true
use_username_as_clientid true
`
}

/** `mosquitto.conf`. Certificates identify; the ClientId is the certificate's name, whatever the client claims [F51]. */
export function mosquittoConfiguration(host: string, port: number, files: MosquittoFiles): string {
  const { crl } = files
  const services = crl ? listener(host, crl.servicePort, crl.serviceCaFile, files) : ''
  return `per_listener_settings false
allow_anonymous false
# Without it fan-out to MQTT 3.1.1 clients is quadratic in 2.0.11.
allow_duplicate_messages true
acl_file ${files.accessFile}
plugin ${files.plugin}
plugin_opt_config_file ${files.dynamicSecurityFile}
message_size_limit 65536
max_queued_messages 100
${listener(host, port, files.caFile, files)}${crl ? `crlfile ${crl.file}\n` : ''}${services}`
}

// mosquitto knows a peer by its common name alone, whichever authority signed it; the names themselves must tell services from devices.
// No device id holds an `@`. Nothing else is let in that means something in a topic or in an acl_file.
const serviceNameForm = /^(?=.*@)[A-Za-z0-9._:@-]{1,64}$/

function serviceName(name: string): string {
  if (serviceNameForm.test(name)) return name
  const detail = `${JSON.stringify(name)}: at mosquitto a service's name holds an @ (publisher@acme), or a device could have it`
  throw new RevocationError('configuration_invalid', detail)
}

/**
 * The access table as an acl_file. mosquitto can't tell who may retain; nobody but the publisher may write what is read as a notice. Throws
 * `configuration_invalid` for a service name that a device could have.
 */
export function mosquittoAccess(fleet: string, services: { [commonName: string]: ServiceRole }): string {
  const lines: string[] = []
  for (const [name, role] of Object.entries(services)) {
    const access = accessOf({ kind: 'service', id: name, role, notAfter: 0 }, fleet)
    lines.push(
      `user ${serviceName(name)}`,
      ...access.read.map(topic => `topic read ${topic}`),
      ...access.write.map(topic => `topic write ${topic}`),
      '',
    )
  }
  const device = accessOf(
    { kind: 'device', id: '%u', membership: { fleet, idx: 0, gids: [] }, issuerKeyId: null, notAfter: 0 },
    fleet,
  )
  lines.push(...device.read.map(topic => `pattern read ${topic}`), ...device.write.map(topic => `pattern write ${topic}`))
  return `${lines.join('\n')}\n`
}

/** The first dynamic security file: `commander` may use $CONTROL, everything else is left to the acl_file. mosquitto rewrites it later. Throws as `mosquittoAccess`. */
export function mosquittoDynamicSecurity(commander: string): string {
  const topic = '$CONTROL/dynamic-security/#'
  const acls = ['publishClientSend', 'publishClientReceive', 'subscribePattern', 'unsubscribePattern'].map(acltype => ({
    acltype,
    topic,
    allow: true,
  }))
  return JSON.stringify({
    clients: [{ username: serviceName(commander), roles: [{ rolename: 'commander' }] }],
    roles: [{ rolename: 'commander', acls }],
    // False is no denial here: it passes the question on to the acl_file.
    defaultACLAccess: { publishClientSend: false, publishClientReceive: false, subscribe: false, unsubscribe: true },
  })
}
