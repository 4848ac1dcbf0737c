// What both boards do, in the device subset: keep the device enrolled and say what happens. Ports and settings are the board's.
import { createAgent } from '@birthmark/device-sdk/agent'

/** Returns the agent, started. `report(line)`: a serial port, an LED, a log. */
export function startDevice(ports, settings, report) {
  const agent = createAgent(
    ports,
    {
      label: settings.label || null,
      birthAnchors: settings.birthAnchors,
      operationalAnchors: settings.operationalAnchors,
      secret: null,
      name: new Uint8Array(0),
      algorithms: ['ecdsa-sha256'],
      timeFloor: settings.builtAt,
      prove: null,
    },
    function (type, value) {
      if (type === 'failed') report('failed ' + value.code)
      else if (type === 'active') report('active ' + value.generation)
      else if (type === 'revoked') report('revoked by ' + value)
    },
  )
  agent.start()
  return agent
}
