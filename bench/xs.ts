// What the device's script takes of XS, Moddable's engine, compiled for 32 bits: memory, stack and steps, from event to event. The figures
// depend on nothing but the script. What a board takes is estimated from them, and says so.
import { deviceScripts, recordStory } from '../test/engines/recorded.ts'
import { xsVersion } from '../test/engines/runners.ts'
import { xsFigures, xsLimits } from '../test/engines/xs-figures.ts'

// An ESP32 at 240 MHz takes about 120 times as long for a step of XS as the x86 core it was compared with, which does some 100 million a
// second; both within a factor of two.
const stepsPerSecondX86 = 100e6
const esp32Slower = 120

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const { steps, bornBytes, restingBytes, meterEstResponse, meterNotice } = await xsFigures(
    await recordStory(await deviceScripts()),
    await recordStory(await deviceScripts(true)),
  )
  const figures = {
    peakStepBytes: Math.max(...steps.map(({ peakBytes }) => peakBytes)),
    stackSlots: Math.max(...steps.map(({ stackSlots }) => stackSlots)),
    meterEstResponse,
    meterNotice,
    bornBytes,
    restingBytes,
  }
  // Of each kind the dearest.
  const dearest = new Map<string, (typeof steps)[number]>()
  for (const step of steps) if (step.peakBytes > (dearest.get(step.name)?.peakBytes ?? -1)) dearest.set(step.name, step)
  const line = (name: string, ...values: (string | number)[]) =>
    name.padEnd(34) + values.map(value => String(value).padStart(14)).join('')
  const seconds = (meter: number) => ((meter / stepsPerSecondX86) * esp32Slower).toFixed(2)
  const table = [
    line(xsVersion(), 'bytes', 'stack slots', 'meter'),
    line('at rest, before enrollment', bornBytes),
    line('at rest, with an identity', restingBytes),
    ...[...dearest.values()].map(({ name, peakBytes, stackSlots, meter }) => line(`  ${name}`, peakBytes, stackSlots, meter)),
    line('limit', xsLimits.peakStepBytes, xsLimits.stackSlots),
    line('answer with a certificate', '', '', meterEstResponse),
    line('limit', '', '', xsLimits.meterEstResponse),
    line('notice, with the fallback verifier', '', '', meterNotice),
    line('limit', '', '', xsLimits.meterNotice),
    `ESP32, an estimate (×${esp32Slower} a step of this machine's, within a factor of two): answer ${seconds(meterEstResponse)} s, notice ${seconds(meterNotice)} s`,
  ].join('\n')
  return { table, figures }
}
