// Enforcement in a mosquitto 2.0, through its dynamic security plugin. Devices are put into a plugin group for each of their groups when
// they are issued; to revoke a group is then one command, which denies every publication, subscription and delivery at once and cuts the
// live sessions (measured on 2.0.11: 5 ms; disabling clients one by one takes 25 ms each). Whoever is revoked by a range, a list or an issuer
// is put into a denied group, 500 with one command. The plugin's file is the memory: what a device is stands in its client's description.
//
// What it can't do: mosquitto 2.0 accepts the CONNECT of any client whose certificate its TLS layer accepts, since a certificate skips
// the plugin's login. A revoked device may so connect again, may do nothing then, and is cut at the next sweep; the CRL file (crl-file.ts)
// refuses its handshake. And a device that was never admitted can't be revoked here: admit it before its certificate is handed out.

import { type Bytes, bytesOfHex, hexOf, type Membership } from '@birthmark/device-sdk/core'
import { RevocationError } from '../errors.ts'
import { oneByOne } from '../one-by-one.ts'
import type { Bus, Clock, Log } from '../ports.ts'
import { repeat } from '../repeat.ts'
import type { RuleSet, Status } from '../rule-set.ts'

export interface MosquittoEnforcerOptions {
  /** Connected as the commander of `mosquittoDynamicSecurity`. */
  bus: Bus
  fleet: string
  rules: RuleSet
  /** Whoever is not `good` by it is denied, one by one; without it whoever the rules revoke. May be taken back: a quarantine that ended. */
  status?(membership: Membership, issuerKeyId: Bytes | null): Status
  clock: Clock
  log: Log
  /** Between two sweeps of revoked devices that connected again. */
  sweepSeconds?: number
  /** For the answer to a command. */
  answerSeconds?: number
}

/** A device as a certificate of it says. */
export interface Admission {
  deviceId: string
  membership: Membership
  issuerKeyId: Bytes | null
}

export interface MosquittoEnforcer {
  /** Before a device gets its certificate. May be repeated. Rejects with `enforcement_refused` or a bus failure. */
  admit(deviceId: string, membership: Membership, issuerKeyId?: Bytes | null): Promise<void>
  /** Many at once, each device once. What was admitted when it rejects stays. */
  admitAll(admissions: readonly Admission[]): Promise<void>
  /** How the broker knows a device; null for one that was never admitted. */
  admitted(deviceId: string): Omit<Admission, 'deviceId'> | null
  /** Brings the broker in line with the rule set: groups and single devices that were denied now. */
  enforce(): Promise<{ groups: number; devices: number }>
  /** Cuts revoked devices that connected again. */
  sweep(): Promise<void>
  close(): void
}

interface Answer {
  command: string
  correlationData?: string
  error?: string
  data?: { groups?: unknown[]; clients?: unknown[]; totalCount?: number }
}

const CONTROL = '$CONTROL/dynamic-security/v1'
const REVOKED = 'birthmark-revoked'
// Given and taken away in turns: either cuts the group's sessions, and it allows and denies nothing.
const SWEPT = 'birthmark-swept'
// A command's 64 KB hold 500 names of 64 characters.
const deniedAGroup = 500
// A client with nine groups and its description is 1 KB at most.
const admittedACommand = 50
// mosquitto writes its file whole for each of them and serves nobody meanwhile: 2 ms with 500 devices in it, 16 ms with 4,000.
const admittingSeconds = 0.2
// An answer is written by mosquitto whole.
const clientsAPage = 500
const alreadyThere = /already/i
const notThere = /not found/i

interface Admitted {
  membership: Membership
  issuerKeyId: Bytes | null
  groups: string[]
}

const described = /^birthmark (\d+) \[([\d,]*)\] ([0-9a-f]*)$/

function describe({ membership: { idx, gids }, issuerKeyId }: Admitted): string {
  return `birthmark ${idx} [${gids.join(',')}] ${issuerKeyId ? hexOf(issuerKeyId) : ''}`
}

interface ListedClient {
  username?: string
  textdescription?: string
  groups?: { groupname?: string }[]
}

/** Null for a client that was put there by others. */
function admittedOf({ textdescription = '', groups = [] }: ListedClient, fleet: string): Admitted | null {
  const [, idx, gids, keyId] = described.exec(textdescription) ?? []
  if (idx === undefined) return null
  return {
    membership: { fleet, idx: Number(idx), gids: gids === '' ? [] : gids.split(',').map(Number) },
    issuerKeyId: keyId === '' ? null : bytesOfHex(keyId),
    groups: groups.flatMap(({ groupname }) => (groupname === undefined ? [] : [groupname])),
  }
}

/** Subscribes to the answers and makes the roles. Rejects when the broker doesn't answer: then nothing is enforced there. */
export async function createMosquittoEnforcer(options: MosquittoEnforcerOptions): Promise<MosquittoEnforcer> {
  const { bus, fleet, rules, clock, log } = options
  const waiting = new Map<string, (answers: Answer[]) => void>()
  const revoked = new Set<string>()
  const known = new Set<string>()
  const devices = new Map<string, Admitted>()
  /** Names of denied groups, each with its members. */
  const denied = new Map<string, Set<string>>()
  const isDenied = (membership: Membership, issuerKeyId: Bytes | null): boolean =>
    options.status ? options.status(membership, issuerKeyId) !== 'good' : rules.isRevoked(membership, issuerKeyId)
  let number = 0
  const inTurn = oneByOne()
  /** Devices of one command that admits, by what the last one took. */
  let atOnce = 5

  await bus.subscribe(`${CONTROL}/response`, (_topic, payload) => {
    let answers: Answer[]
    try {
      answers = (JSON.parse(Buffer.from(payload).toString()) as { responses?: Answer[] }).responses ?? []
    } catch {
      return
    }
    const id = answers[0]?.correlationData
    if (id) waiting.get(id)?.(answers)
  })

  async function exchange(commands: object[]): Promise<Answer[]> {
    const id = `${process.pid}.${++number}`
    const payload = Buffer.from(JSON.stringify({ commands: commands.map(command => ({ ...command, correlationData: id })) }))
    try {
      const answered = new Promise<Answer[]>((resolve, reject) => {
        const cancel = clock.setTimer(options.answerSeconds ?? 10, () =>
          reject(new RevocationError('bus_failed', 'mosquitto did not answer a command')),
        )
        waiting.set(id, answers => {
          cancel()
          resolve(answers)
        })
      })
      await Promise.all([bus.publish(CONTROL, payload, { qos: 1, retain: false }), answered])
      return await answered
    } finally {
      waiting.delete(id)
    }
  }

  /** One batch after the other; an error that `harmless` matches says that the state is reached already. */
  function command(commands: object[], harmless = alreadyThere): Promise<Answer[]> {
    return inTurn(async () => {
      const answers = await exchange(commands)
      const bad = answers.find(answer => answer.error && !harmless.test(answer.error))
      if (bad) throw new RevocationError('enforcement_refused', `${bad.command}: ${bad.error}`)
      return answers
    })
  }

  /** `epoch`: the group's bound when the device was issued. Whoever is issued after a revocation is in another group than the revoked. */
  const groupName = (gid: number, epoch: number): string => `birthmark.${fleet}.${gid}.${epoch}`
  // The floor is a bound on a group that everybody is in.
  const bounds = (): Map<number, number> =>
    new Map([
      [0, rules.floor],
      ...rules.rules().flatMap((rule): [number, number][] => (rule.kind === 'group' ? [[rule.gid, rule.bound]] : [])),
    ])

  async function learnGroups(): Promise<void> {
    const [answer] = await command([{ command: 'listGroups', verbose: false, count: -1, offset: 0 }])
    for (const name of answer?.data?.groups ?? []) if (typeof name === 'string') known.add(name)
  }

  const deniedPrefix = `birthmark.${fleet}.denied.`

  async function learnDevices(): Promise<void> {
    for (let offset = 0, total = 1; offset < total; offset += clientsAPage) {
      const [answer] = await command([{ command: 'listClients', verbose: true, count: clientsAPage, offset }])
      total = answer?.data?.totalCount ?? 0
      for (const client of (answer?.data?.clients ?? []) as ListedClient[]) {
        const admitted = admittedOf(client, fleet)
        if (!admitted || client.username === undefined) continue
        devices.set(client.username, admitted)
        for (const name of admitted.groups)
          if (name.startsWith(deniedPrefix)) denied.set(name, (denied.get(name) ?? new Set()).add(client.username))
      }
    }
    for (const name of known) if (name.startsWith(deniedPrefix)) revoked.add(name)
  }

  async function cut(groupname: string): Promise<void> {
    const [answer] = await command([{ command: 'addGroupRole', groupname, rolename: SWEPT }])
    if (answer?.error) await command([{ command: 'removeGroupRole', groupname, rolename: SWEPT }], notThere)
  }

  /** Those whom no revoked group holds. Whoever was let in again, with another certificate, leaves. */
  async function denySingles(): Promise<number> {
    const changed = new Set<string>()
    const placed = new Set<string>()
    const mustGo = ({ membership, issuerKeyId, groups }: Admitted): boolean =>
      isDenied(membership, issuerKeyId) && !groups.some(name => revoked.has(name) && !name.startsWith(deniedPrefix))
    for (const [name, members] of denied)
      for (const id of members) {
        const device = devices.get(id)
        if (device && mustGo(device)) placed.add(id)
        else if (members.delete(id)) changed.add(name)
      }
    let fresh = 0
    for (const [id, device] of devices) {
      if (placed.has(id) || !mustGo(device)) continue
      const [name] = [...denied].find(([, members]) => members.size < deniedAGroup) ?? [`${deniedPrefix}${denied.size}`]
      denied.set(name, (denied.get(name) ?? new Set()).add(id))
      changed.add(name)
      fresh++
    }
    for (const groupname of changed) {
      const content = {
        roles: [{ rolename: REVOKED }],
        clients: [...(denied.get(groupname) ?? [])].map(username => ({ username })),
      }
      if (!known.has(groupname)) await command([{ command: 'createGroup', groupname }])
      known.add(groupname)
      await command([{ command: 'modifyGroup', groupname, ...content }])
      revoked.add(groupname)
      // Another list of members denies them at once and leaves their sessions.
      await cut(groupname)
    }
    if (fresh > 0) log.info({ devices: fresh }, 'devices revoked at the broker')
    return fresh
  }

  let enforcing: Promise<unknown> = Promise.resolve()
  /** One after the other: who asks gets the answer of a run that began afterwards. */
  function enforce(): Promise<{ groups: number; devices: number }> {
    const turn = enforcing.then(enforceNow)
    enforcing = turn.catch(() => {})
    return turn
  }

  async function enforceNow(): Promise<{ groups: number; devices: number }> {
    const wanted = bounds()
    const names = [...known].filter(name => {
      const [, gid, epoch] = /^birthmark\.[a-z0-9-]+\.(\d+)\.(\d+)$/.exec(name) ?? []
      return (
        gid !== undefined &&
        name === groupName(Number(gid), Number(epoch)) &&
        Number(epoch) < (wanted.get(Number(gid)) ?? 0) &&
        !revoked.has(name)
      )
    })
    if (names.length > 0) await command(names.map(groupname => ({ command: 'addGroupRole', groupname, rolename: REVOKED })))
    for (const name of names) revoked.add(name)
    if (names.length > 0) log.info({ groups: names }, 'groups revoked at the broker')
    return { groups: names.length, devices: await denySingles() }
  }

  async function sweep(): Promise<void> {
    for (const groupname of revoked) await cut(groupname)
  }

  const nothing = ['publishClientSend', 'publishClientReceive', 'subscribePattern'].map(acltype => ({
    acltype,
    topic: '#',
    allow: false,
  }))
  await command([
    { command: 'createRole', rolename: REVOKED, acls: nothing },
    { command: 'createRole', rolename: SWEPT, acls: [] },
  ])
  await learnGroups()
  await learnDevices()
  await enforce()
  const endSweeping = repeat(clock, options.sweepSeconds ?? 30, sweep, error => log.warn({ err: error }, 'sweep failed'))

  /** Of the device's own epoch in each of its groups. */
  function groupsOf({ idx, gids }: Membership): string[] {
    const wanted = bounds()
    return [0, ...gids].map(gid => {
      const bound = wanted.get(gid) ?? 0
      return groupName(gid, idx < bound ? 0 : bound)
    })
  }

  async function admitSome(admissions: readonly Admission[]): Promise<void> {
    const all = admissions.map(({ deviceId, membership, issuerKeyId }) => {
      const admitted: Admitted = { membership, issuerKeyId, groups: groupsOf(membership) }
      const groups = admitted.groups.map(groupname => ({ groupname }))
      return { admitted, client: { username: deviceId, textdescription: describe(admitted), groups } }
    })
    const fresh = [...new Set(all.flatMap(({ admitted }) => admitted.groups))].filter(name => !known.has(name))
    if (fresh.length > 0) await command(fresh.map(groupname => ({ command: 'createGroup', groupname, roles: [] })))
    for (const name of fresh) known.add(name)
    const created = await command(all.map(({ client }) => ({ command: 'createClient', ...client })))
    // Renewed devices: their groups may be others now.
    const again = all.filter((_, i) => created[i]?.error)
    if (again.length > 0) await command(again.map(({ client }) => ({ command: 'modifyClient', ...client })))
    // That took them out of the denied groups; whoever is denied all the same is put into one again.
    for (const { client } of again) for (const members of denied.values()) members.delete(client.username)
    for (const { admitted, client } of all) devices.set(client.username, admitted)
  }

  async function admitAll(admissions: readonly Admission[]): Promise<void> {
    for (let i = 0; i < admissions.length; ) {
      const [some, since] = [admissions.slice(i, i + atOnce), clock.now()]
      await admitSome(some)
      i += some.length
      const seconds = Math.max(clock.now() - since, 0.001)
      atOnce = Math.max(1, Math.min(admittedACommand, Math.floor((some.length * admittingSeconds) / seconds)))
    }
    await enforce()
  }

  return {
    admit: (deviceId, membership, issuerKeyId = null) => admitAll([{ deviceId, membership, issuerKeyId }]),
    admitAll,
    admitted: deviceId => devices.get(deviceId) ?? null,
    enforce,
    sweep,
    close: () => {
      endSweeping()
    },
  }
}
