// What a device has to know about a server, as a folder that can be copied onto it: whom to trust and where to go. Nothing in it is
// secret. The server writes it at every start; simulated devices, `enroll` and the documentation's commands read it.

import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Bytes, decodePem, encodePem } from '@birthmark/device-sdk/core'
import { writeDurably } from '@birthmark/factory-line'
import { z } from 'zod'
import { CommandError } from './command-error.ts'

export interface DeviceFolder {
  fleet: string
  /** `https://host:port` */
  est: string
  /** `mqtts://host:port` */
  mqtt: string
  /** DER roots of the server's TLS certificates. */
  serverAnchors: Bytes[]
  /** DER roots of the manufacturers. */
  birthAnchors: Bytes[]
  /** DER root of the issued certificates. */
  operationalAnchors: Bytes[]
  /** DER SubjectPublicKeyInfo of the notice signer. */
  noticeKeys: Bytes[]
}

const FleetFile = z.strictObject({ fleet: z.string(), est: z.string(), mqtt: z.string() })

export const deviceFolderFiles = {
  server: 'server-ca.pem',
  birth: 'birth-ca.pem',
  operational: 'operational-ca.pem',
  notice: 'notice-key.pem',
  fleet: 'fleet.json',
}

export function writeDeviceFolder(folder: string, content: DeviceFolder): void {
  mkdirSync(folder, { recursive: true, mode: 0o755 })
  const write = (name: string, text: string): void => writeDurably(join(folder, name), text, 0o644)
  const certificates = (all: Bytes[]): string => all.map(der => encodePem('CERTIFICATE', der)).join('')
  write(deviceFolderFiles.server, certificates(content.serverAnchors))
  write(deviceFolderFiles.birth, certificates(content.birthAnchors))
  write(deviceFolderFiles.operational, certificates(content.operationalAnchors))
  write(deviceFolderFiles.notice, content.noticeKeys.map(spki => encodePem('PUBLIC KEY', spki)).join(''))
  const { fleet, est, mqtt } = content
  write(deviceFolderFiles.fleet, `${JSON.stringify({ fleet, est, mqtt }, null, 2)}\n`)
}

export function readDeviceFolder(folder: string): DeviceFolder {
  const read = (name: string): string => {
    try {
      return readFileSync(join(folder, name), 'utf8')
    } catch (error) {
      throw new CommandError(
        'device_folder_missing',
        `${join(folder, name)} is not there`,
        'start the server once: birthmark dev. Or copy the folder "device" from its state folder',
        'unreachable',
        error,
      )
    }
  }
  try {
    return {
      ...FleetFile.parse(JSON.parse(read(deviceFolderFiles.fleet))),
      serverAnchors: decodePem(read(deviceFolderFiles.server), 'CERTIFICATE', 8),
      birthAnchors: decodePem(read(deviceFolderFiles.birth), 'CERTIFICATE', 16),
      operationalAnchors: decodePem(read(deviceFolderFiles.operational), 'CERTIFICATE', 8),
      noticeKeys: decodePem(read(deviceFolderFiles.notice), 'PUBLIC KEY', 4),
    }
  } catch (error) {
    if (error instanceof CommandError) throw error
    throw new CommandError(
      'device_folder_damaged',
      `${folder}: ${(error as Error).message}`,
      'start the server again: it writes the folder anew',
      'failed',
      error,
    )
  }
}
