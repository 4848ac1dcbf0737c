// A relying party of a served fleet, at the server's own broker.

import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  createRelyingParty,
  noticeKeyId,
  type RelyingParty,
  type RelyingPartyEvent,
  systemClock,
} from '@birthmark/fleet-revocation'
import { connectMqttBus } from '@birthmark/fleet-revocation/broker'
import { receiptKey } from '../../packages/birthmark/src/campaign-desk.ts'
import { readConfiguration } from '../../packages/birthmark/src/configuration.ts'
import { fromDisk } from '../../packages/birthmark/src/configuration-files.ts'
import { createTestAuthority, type TestAuthority } from '../../packages/fleet-revocation/src/testing/authority.ts'
import { quietLog } from '../../packages/fleet-revocation/src/testing/memory-bus.ts'
import type { Serving } from './serving.ts'

/** An authority for services that the broker believes; to be called before the server starts. */
export function serviceAuthority({ folder }: Serving): TestAuthority {
  const services = createTestAuthority('services')
  appendFileSync(join(folder, 'server', 'root.pem'), services.certPem)
  return services
}

/** What notices are verified by. */
export const noticeKeyOf = ({ config }: Serving): Uint8Array => receiptKey(readConfiguration(config, fromDisk).notices.keys[0])

/** `name`: as the configuration has it under `mqtt.services`. It forgets everything when it ends. */
export async function joinRelyingParty(
  serving: Serving,
  services: TestAuthority,
  name: string,
  onEvent: (event: RelyingPartyEvent) => void = () => {},
): Promise<RelyingParty & { leave(): Promise<void> }> {
  const { certPem, keyPem } = services.service(name)
  const bus = connectMqttBus({
    ...{ url: `mqtts://localhost:${serving.mqttPort}`, clientId: name, log: quietLog, reconnectSeconds: 0.2 },
    tls: { ca: [serving.rootPem], cert: certPem, key: keyPem },
  })
  const spki = noticeKeyOf(serving)
  const party = await createRelyingParty({
    ...{ name, fleet: 'acme', clock: systemClock, log: quietLog, bus, onEvent },
    signers: [{ keyId: noticeKeyId(spki), algorithm: -7, spki }],
    state: { load: async () => null, save: async () => {} },
  })
  return Object.assign(party, {
    async leave() {
      party.close()
      await bus.close()
    },
  })
}
