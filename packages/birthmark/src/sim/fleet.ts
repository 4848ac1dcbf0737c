// A simulated fleet: devices that enroll, connect, measure, and come back when their session ends, until they are revoked. It counts.

import { explain } from '../command-error.ts'
import type { DeviceFolder } from '../device-folder.ts'
import type { BornDevice } from './birth.ts'
import { createSimDevice, type SimDevice } from './device.ts'
import { inParallel } from './in-parallel.ts'

export interface FleetCounts {
  devices: number
  enrolled: number
  connected: number
  telemetry: number
  /** Sessions that ended without our doing. */
  cut: number
  revoked: number
}

export type FleetEvent =
  /** The server or the broker said no. */
  | { event: 'refused'; device: string; code: string; message: string }
  /** It came to nothing otherwise, and is tried again. */
  | { event: 'failed'; device: string; code: string; message: string }
  | { event: 'cut'; device: string }
  | { event: 'revoked'; device: string; by: 'notice' | 'server' }

export interface SimFleet {
  devices: SimDevice[]
  /**
   * Enrolls and connects everybody, once. Devices that are refused are reported and left out; those that fail otherwise go on trying, as devices do,
   * and join the others when they succeed.
   */
  start(): Promise<{ enrollSeconds: number }>
  counts(): FleetCounts
  close(): Promise<void>
}

// Enough to keep the server busy on two cores; more only wait in its queue.
const enrollWidth = 16
const connectWidth = 32
const reconnectSecondsMin = 1
const reconnectSecondsMax = 30
/** CONNACK return code, MQTT 3.1.1 3.2.2.3. */
const NOT_AUTHORIZED = 5

export function createSimFleet(options: {
  born: BornDevice[]
  target: DeviceFolder
  intervalMs: number
  onEvent: (event: FleetEvent) => void
  onProgress: () => void
}): SimFleet {
  const { born, target, intervalMs, onEvent, onProgress } = options
  const timers = new Map<SimDevice, NodeJS.Timeout>()
  const revoked = new Set<SimDevice>()
  const enrolled = new Set<SimDevice>()
  let cut = 0
  let closed = false
  let pulse: NodeJS.Timeout | undefined

  const devices: SimDevice[] = born.map(one => {
    const device: SimDevice = createSimDevice({
      ...one,
      target,
      onCut: () => {
        cut++
        onEvent({ event: 'cut', device: one.serial })
        comeBack(device, reconnectSecondsMin)
      },
      onRevoked: by => {
        if (revoked.has(device)) return
        revoked.add(device)
        onEvent({ event: 'revoked', device: one.serial, by })
      },
    })
    return device
  })

  /** With full jitter, so that a fleet that lost its broker does not come back in step (FAULTS 60). */
  function comeBack(device: SimDevice, seconds: number): void {
    if (closed) return
    const wait = Math.random() * seconds * 1000
    timers.set(
      device,
      setTimeout(() => {
        if (closed) return
        device.connect().catch(error => {
          // Refused for what it is, it asks the server, which says whether it is revoked. In any other case it only tries again.
          if ((error as { code?: unknown }).code === NOT_AUTHORIZED && !revoked.has(device)) device.identity.renew().catch(() => {})
          if (!revoked.has(device)) comeBack(device, Math.min(seconds * 2, reconnectSecondsMax))
        })
      }, wait),
    )
  }

  function reconnect(device: SimDevice): void {
    if (!closed) void device.connect().catch(() => comeBack(device, reconnectSecondsMin))
  }

  function measureAll(): void {
    devices.forEach((device, at) => {
      // Spread over the interval rather than all at its start.
      setTimeout(
        () => {
          if (!closed) void device.measure()
        },
        (intervalMs * at) / devices.length,
      )
    })
  }

  return {
    devices,
    async start() {
      const late: SimDevice[] = []
      const began = performance.now()
      await inParallel(devices, enrollWidth, async device => {
        try {
          await device.enroll()
          enrolled.add(device)
        } catch (error) {
          report(device, error)
          if (!isRefusal(error)) late.push(device)
        }
        onProgress()
      })
      const enrollSeconds = (performance.now() - began) / 1000
      for (const device of late) {
        device.identity.on('active', () => {
          enrolled.add(device)
          reconnect(device)
        })
        // From here on the SDK asks again by itself, ever more slowly.
        device.identity.start()
      }
      await inParallel([...enrolled], connectWidth, async device => {
        // Before the session, so that what it listens to is subscribed with it.
        device.identity.start()
        try {
          await device.connect()
        } catch (error) {
          report(device, error)
          comeBack(device, reconnectSecondsMin)
        }
        // A new certificate takes effect on a new session.
        device.identity.on('active', () => reconnect(device))
        onProgress()
      })
      measureAll()
      pulse = setInterval(measureAll, intervalMs)
      return { enrollSeconds }
    },
    counts: () => ({
      devices: devices.length,
      enrolled: enrolled.size,
      connected: devices.filter(device => device.connected()).length,
      telemetry: devices.reduce((sum, device) => sum + device.sent, 0),
      cut,
      revoked: revoked.size,
    }),
    async close() {
      closed = true
      clearInterval(pulse)
      for (const timer of timers.values()) clearTimeout(timer)
      await Promise.all(devices.map(device => device.close()))
    },
  }

  function report(device: SimDevice, error: unknown): void {
    const { code, message } = explain(error)
    onEvent({ event: isRefusal(error) ? 'refused' : 'failed', device: device.serial, code, message })
  }
}

/** By policy, at EST or in a CONNACK. */
function isRefusal(error: unknown): boolean {
  return explain(error).exit === 'refused' || typeof (error as { code?: unknown }).code === 'number'
}
