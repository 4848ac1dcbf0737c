// TLS of this firmware: ECMA-419's HTTPS client, trusting what the manifest holds as resources. The client certificate goes along where Moddable's TLS
// can use its key; with an EC key it needs an override of its pkcs8, ssl/cert and ssl/handshake, which this example does not bring.
export default function secureClient(host, port, tls) {
  const https = device.network.https
  return new https.io({
    ...https,
    host,
    port,
    secure: { ...https.secure, clientCertificates: tls.chain.map(one => new Uint8Array(one).buffer) },
  })
}
