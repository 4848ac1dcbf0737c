// The same step made with a general library, pkijs over WebCrypto, the usual way in this language: parse and verify the CSR, build a certificate
// with the same extensions, sign it, verify it before it leaves.

import { webcrypto } from 'node:crypto'
import { type Bytes, parseCertificate } from '@birthmark/device-sdk/core'
import { BitString, Integer, OctetString, Utf8String } from 'asn1js'
import {
  AttributeTypeAndValue,
  BasicConstraints,
  Certificate,
  CertificationRequest,
  CryptoEngine,
  Extension,
  ExtKeyUsage,
  setEngine,
} from 'pkijs'

const clientAuth = '1.3.6.1.5.5.7.3.2'

/** CSR → certificate, DER to DER. `example`: one of ours, whose fleet extension theirs carries too. */
export async function pkijsWork(example: Bytes): Promise<(request: { id: string; csr: Bytes }) => Promise<ArrayBuffer>> {
  setEngine(
    'node',
    new CryptoEngine({ name: 'node', crypto: webcrypto as unknown as ConstructorParameters<typeof CryptoEngine>[0]['crypto'] }),
  )
  const { subtle } = webcrypto
  const ecdsa = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const { privateKey, publicKey } = await subtle.generateKey(ecdsa, true, ['sign', 'verify'])
  const fleet = parseCertificate(example).extensions.at(-1)!.value
  const issuerName = new AttributeTypeAndValue({ type: '2.5.4.3', value: new Utf8String({ value: 'Bench operational CA' }) })
  const issuer = new Certificate()
  await issuer.subjectPublicKeyInfo.importKey(publicKey)
  let serial = 0
  const extension = (extnID: string, critical: boolean, value: { toBER(): ArrayBuffer }) =>
    new Extension({ extnID, critical, extnValue: value.toBER() })
  return async ({ id, csr }) => {
    const request = CertificationRequest.fromBER(csr as Uint8Array<ArrayBuffer>)
    if (!(await request.verify())) throw new Error('a good CSR does not verify')
    const certificate = new Certificate()
    certificate.version = 2
    certificate.serialNumber = new Integer({ value: ++serial })
    certificate.issuer.typesAndValues.push(issuerName)
    certificate.subject.typesAndValues.push(
      new AttributeTypeAndValue({ type: '2.5.4.3', value: new Utf8String({ value: id }) }),
      new AttributeTypeAndValue({ type: '2.5.4.5', value: new Utf8String({ value: id }) }),
    )
    certificate.notBefore.value = new Date()
    certificate.notAfter.value = new Date(Date.now() + 86_400_000)
    certificate.subjectPublicKeyInfo = request.subjectPublicKeyInfo
    const keyId = await subtle.digest(
      'SHA-1',
      request.subjectPublicKeyInfo.subjectPublicKey.valueBlock.valueHexView as Uint8Array<ArrayBuffer>,
    )
    certificate.extensions = [
      extension('2.5.29.19', true, new BasicConstraints({ cA: false }).toSchema()),
      extension('2.5.29.15', true, new BitString({ valueHex: new Uint8Array([0x80]).buffer, unusedBits: 7 })),
      extension('2.5.29.37', false, new ExtKeyUsage({ keyPurposes: [clientAuth] }).toSchema()),
      extension('2.5.29.14', false, new OctetString({ valueHex: keyId })),
      new Extension({ extnID: '2.25.188379731', critical: false, extnValue: fleet.slice().buffer }),
    ]
    await certificate.sign(privateKey, 'SHA-256')
    if (!(await certificate.verify(issuer))) throw new Error('a good signature does not verify')
    return certificate.toSchema(true).toBER(false)
  }
}
