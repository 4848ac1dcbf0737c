// Labels, selections, campaigns and who confirms them at the operator's socket: one table of operations, read by the socket and by its client, so that the two cannot
// speak past each other.

import type { z } from 'zod'
import {
  type CampaignAdministration,
  CampaignDevicesInput,
  CampaignIdInput,
  CampaignListInput,
  CampaignPlanInput,
  CampaignUndoInput,
  CampaignWordInput,
  LabelsInput,
  RelyingPartyInput,
  SelectionInput,
} from './campaign-administration.ts'

type Operation = keyof CampaignAdministration

/** GET carries its request in the query, POST as JSON. */
const routes: { [O in Operation]: { method: 'GET' | 'POST'; path: string; input: z.ZodType | null } } = {
  planCampaign: { method: 'POST', path: '/campaigns/plan', input: CampaignPlanInput },
  submitCampaign: { method: 'POST', path: '/campaigns/submit', input: CampaignWordInput },
  approveCampaign: { method: 'POST', path: '/campaigns/approve', input: CampaignWordInput },
  undoCampaign: { method: 'POST', path: '/campaigns/undo', input: CampaignUndoInput },
  campaign: { method: 'GET', path: '/campaigns/one', input: CampaignIdInput },
  campaigns: { method: 'GET', path: '/campaigns', input: CampaignListInput },
  campaignDevices: { method: 'GET', path: '/campaigns/devices', input: CampaignDevicesInput },
  campaignReceipt: { method: 'GET', path: '/campaigns/receipt', input: CampaignIdInput },
  relyingParties: { method: 'GET', path: '/relying-parties', input: null },
  forgetRelyingParty: { method: 'POST', path: '/relying-parties/forget', input: RelyingPartyInput },
  selectDevices: { method: 'GET', path: '/devices/selected', input: SelectionInput },
  labelDevices: { method: 'POST', path: '/devices/labels', input: LabelsInput },
  labels: { method: 'GET', path: '/labels', input: null },
}

/** The operation behind a method and a path, waiting for its request; null where there is none. */
export function campaignRoute(
  operations: CampaignAdministration,
  method: string,
  path: string,
): { method: 'GET' | 'POST'; run(parse: <T>(schema: z.ZodType<T>) => T): Promise<object> } | null {
  const found = (Object.keys(routes) as Operation[]).find(name => routes[name].method === method && routes[name].path === path)
  if (found === undefined) return null
  const { input } = routes[found]
  // The table pairs each operation with the schema of its own request.
  const operation = operations[found] as (request: unknown) => Promise<object>
  return { method: routes[found].method, run: async parse => operation(input === null ? undefined : parse(input)) }
}

export interface Caller {
  get(target: string): Promise<unknown>
  post(target: string, value: object): Promise<unknown>
}

/** The same operations at the other end of the socket. */
export function campaignClient(caller: Caller): CampaignAdministration {
  const operations = Object.entries(routes).map(([name, { method, path }]) => [
    name,
    (request?: object) => {
      if (method === 'POST') return caller.post(path, request ?? {})
      const query = new URLSearchParams(
        Object.entries(request ?? {}).map(([field, value]): [string, string] => [field, String(value)]),
      )
      return caller.get(query.size > 0 ? `${path}?${query}` : path)
    },
  ])
  return Object.fromEntries(operations) as CampaignAdministration
}
