// The peripherals of the two boards, as scripts for any engine: what Moddable's and Espruino's modules do towards the ports. What needs a chip or a network
// is lent by the host as bytes: `lend(name, text, …bytes)`. Time is a board's own: nothing waits, the clock goes to what is due next. A bare `return` has its
// semicolon, since Espruino reads on in the next line.

/** ES5. `setTask`, `clearTask`, `runTasks`; `Date.now` tells the board's time, which begins at `startSeconds`. */
export const boardTime = (startSeconds: number): string => `
var clock = ${startSeconds} * 1000, tasks = []
Date.now = function () { return clock }
function setTask(callback, milliseconds) {
  var task = { due: clock + milliseconds, callback: callback }
  tasks.push(task)
  return task
}
function clearTask(task) { if (task) task.callback = null }
function runTasks(most) {
  for (var turn = 0; turn < most; turn++) {
    tasks = tasks.filter(function (one) { return one.callback })
    if (!tasks.length) return;
    var at = 0
    for (var i = 1; i < tasks.length; i++) if (tasks[i].due < tasks[at].due) at = i
    var task = tasks.splice(at, 1)[0]
    if (task.due > clock) clock = task.due
    task.callback()
  }
}
function joined(parts) {
  var out = []
  parts.forEach(function (part) { out = out.concat([].slice.call(part)) })
  return new Uint8Array(out)
}
function sevens() {
  var out = new Uint8Array(32)
  for (var i = 0; i < out.length; i++) out[i] = 7
  return out
}
function exchange(text, body, chain, proof) {
  var answer = lend('http', text + ' ' + clock, body, chain, proof)
  return answer && { status: answer[0] * 256 + answer[1], body: answer.subarray(2) }
}`

/**
 * Moddable's modules by the names that the example imports. A client that is opened shows what TLS would: its chain, and a signature by its key over 32
 * octets of 7.
 */
export const moddableModules = (fleet: object): Record<string, string> => ({
  crypt: `export function Digest() { this.parts = [] }
    Digest.prototype.write = function (data) { this.parts.push(new Uint8Array(data)) }
    Digest.prototype.close = function () { return lend('sha256', '', this.parts[0]).buffer }`,
  curve: `export default function Curve() {}
    Curve.prototype.dh = function (key) { return lend('dh', '', new Uint8Array(key)).buffer }`,
  ecdsa: `export default function ECDSA(key, curve) { this.key = key; this.k = curve.k }
    ECDSA.prototype.sign = function (hash, der) { return lend('ecdsa', [this.key.toString(16), this.k.toString(16), der].join(' '), new Uint8Array(hash)).buffer }`,
  entropy: `export default function (length) { return lend('entropy', '' + length).buffer }`,
  fleet: `export default ${JSON.stringify(fleet)}`,
  preference: `const kept = {}
    const name = (domain, key) => domain + '/' + key
    export default {
      get: (domain, key) => { const found = kept[name(domain, key)] || lend('factory', name(domain, key)); return found ? found.buffer || found : undefined },
      set: (domain, key, value) => { if (!(value instanceof ArrayBuffer) || domain.length > 15 || key.length > 15) throw new Error('preference'); kept[name(domain, key)] = value },
      delete: (domain, key) => { delete kept[name(domain, key)] },
    }`,
  'ssl/session': 'export default function Session() {}',
  timer: 'export default { set: setTask, clear: clearTask }',
})

/** ECMA-419's HTTP and MQTT clients, and where Moddable's examples leave them. */
export const moddableNetwork = `
function trace(line) { lend('say', line.trim()) }
function shown(options) {
  var identity = options.socket.secure.birthmark
  return { chain: joined(identity.chain), proof: identity.chain.length ? identity.sign(sevens()) : new Uint8Array(0) }
}
function HttpClient(options) { this.options = options }
HttpClient.prototype.close = function () {}
HttpClient.prototype.request = function (options) {
  var client = this
  setTask(function () {
    var body = [], wanted = +(options.headers.get('content-length') || 0)
    var request = {
      write: function (data) { body = body.concat([].slice.call(new Uint8Array(data))) },
      read: function (count) { var part = answer.body.slice(0, count).buffer; answer.body = answer.body.subarray(count); return part },
    }
    while (body.length < wanted) options.onWritable.call(request, 200)
    var tls = shown(client.options)
    var answer = exchange(options.method + ' ' + options.path, new Uint8Array(body), tls.chain, tls.proof)
    if (!answer) return options.onDone.call(request, new Error('network'))
    options.onHeaders.call(request, answer.status, new Map([['content-type', 'application/pkcs7-mime']]))
    while (answer.body.length) options.onReadable.call(request, Math.min(answer.body.length, 500))
    options.onDone.call(request, null)
  }, 20)
}
function MqttClient(options) {
  var client = this, tls = shown(options), room = 300, waiting = []
  setTask(function () {
    lend('mqtt', options.id, tls.chain, tls.proof)
    options.onWritable.call(client, room)
    options.onControl.call(client, { operation: 2 })
    options.onWritable.call(client, room)
    setTask(listen, 90000)
  }, 20)
  function listen() {
    var notice = client.closed ? null : lend('notice', '')
    if (!notice) return
    var at = 0
    client.read = function (count) { at += count; return notice.slice(at - count, at).buffer }
    while (at < notice.length) {
      var count = Math.min(100, notice.length - at), message = { more: at + count < notice.length }
      if (at === 0) { message.topic = 'fr/1/acme/head'; message.byteLength = notice.length }
      options.onReadable.call(client, count, message)
    }
    setTask(listen, 1000)
  }
  client.write = function (data, sent) {
    if (client.closed) throw new Error('closed')
    if (sent.operation === 8) lend('subscribe', sent.items.map(function (item) { return item.topic + ' ' + item.QoS }).join())
    else lend('publish', sent.topic, new Uint8Array(data))
    return room
  }
}
MqttClient.prototype.close = function () { this.closed = true }
var device = { network: { http: { io: HttpClient, socket: {} }, mqtt: { io: MqttClient, socket: {} } } }`

/**
 * The example's `main` with Espruino's built-in modules and an ATECC608 (or none). `parts` and `config` (properties, as text) are what else the board brings:
 * its clock, how it reaches a server and a broker, its fleet and build, what it measures. ES5.
 */
export const espruinoMain = (element: boolean, parts: string, config: string): string => `
var files = { 'bm.birth.chain': lend('factory', 'birthmark/birth.chain').buffer }
var agent = main({
  element: ${element} ? {
    generate: function (slot) { return lend('generate', '' + slot) },
    publicKey: function (slot) { return lend('publicKey', '' + slot) },
    sign: function (slot, digest) { return lend('sign', '' + slot, digest) },
    verify: function (point, digest, signature) { return lend('verify', '', point, digest, signature) !== null },
    random: function () { return new Uint8Array(32) },
  } : null,
  sha256: function (data) { return lend('sha256', '', data).buffer },
  storage: {
    readArrayBuffer: function (name) { return files[name] },
    write: function (name, data) { files[name] = data; return true },
    erase: function (name) { delete files[name] },
  },
  timers: { setTimeout: setTask, clearTimeout: clearTask },
  print: function (line) { lend('say', line) },
  config: {
    birthAnchors: [lend('given', 'birthAnchor')],
    operationalAnchors: [lend('given', 'operationalAnchor')],
    ${config}
  },
  ${parts}
})`

/** A board with a gateway that shows what TLS would, whose line takes no subscription the first time. ES5. */
export const espruinoBoard = (element: boolean): string => `
var refused = false
function proven(tls) { return tls.slot === null ? new Uint8Array(0) : lend('sign', tls.slot === 'birth' ? '0' : tls.slot === 'op-0' ? '2' : '3', sevens()) }
${espruinoMain(
  element,
  `now: function () { return Math.floor(clock / 1000) },
  http: {
    request: function (request, tls, done) {
      setTask(function () {
        var answer = exchange(request.method + ' ' + request.path, request.body || new Uint8Array(0), joined(tls.chain), proven(tls))
        done(null, { status: answer.status, headers: { 'content-type': 'application/pkcs7-mime' }, body: answer.body })
      }, 20)
      return function () {}
    },
  },
  openBus: function (identity, events) {
    var open = true
    setTask(function () { lend('mqtt', identity.deviceId, joined(identity.chain), proven(identity)); events.online(); setTask(listen, 90000) }, 20)
    function listen() {
      var notice = open ? lend('notice', '') : null
      if (!notice) return;
      events.message('fr/1/acme/head', notice)
      setTask(listen, 1000)
    }
    return {
      subscribe: function (topics) { if (!refused) { refused = true; return false } lend('subscribe', topics.map(function (topic) { return topic + ' 1' }).join()); return true },
      publish: function (topic, payload) { lend('publish', topic, payload); return true },
      close: function () { open = false },
    }
  },`,
  `fleet: 'acme',
    builtAt: Math.floor(clock / 1000) - 86400,
    noticeSigners: [{ keyId: lend('given', 'keyId'), algorithm: -7, spki: lend('given', 'noticeSpki') }],
    telemetrySeconds: 60,
    measure: function () { return Math.floor(clock / 1000) },`,
)}`
