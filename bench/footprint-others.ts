// The same work with the libraries of the field, for the footprint's table: parse a certificate, validate its path, make a CSR, put it into an
// enroll message and read the answer. Each entry imports no more than that takes; esbuild bundles it as it bundles ours.
import { join } from 'node:path'
import { build } from 'esbuild'
import { root } from '../tools/device-bundle.ts'

const entries: Record<string, string> = {
  pkijs: `
    import { Certificate, CertificateChainValidationEngine, CertificationRequest, ContentInfo, SignedData } from 'pkijs'
    globalThis.others = {
      parse: der => Certificate.fromBER(der),
      validate: (certs, trustedCerts) => new CertificateChainValidationEngine({ certs, trustedCerts }).verify(),
      async enroll(keys) {
        const csr = new CertificationRequest()
        await csr.subjectPublicKeyInfo.importKey(keys.publicKey)
        await csr.sign(keys.privateKey, 'SHA-256')
        return btoa(String.fromCharCode(...new Uint8Array(csr.toSchema().toBER())))
      },
      answer: text => new SignedData({ schema: ContentInfo.fromBER(Uint8Array.from(atob(text), c => c.charCodeAt(0))).content }).certificates,
    }`,
  '@peculiar/x509': `
    import { Pkcs10CertificateRequestGenerator, X509Certificate, X509Certificates, X509ChainBuilder } from '@peculiar/x509'
    globalThis.others = {
      parse: der => new X509Certificate(der),
      validate: (leaf, certificates) => new X509ChainBuilder({ certificates }).build(leaf),
      enroll: async keys => (await Pkcs10CertificateRequestGenerator.create({ keys, name: 'CN=unit' })).toString('base64'),
      answer: text => new X509Certificates(text),
    }`,
  'node-forge': `
    import asn1 from 'node-forge/lib/asn1.js'
    import pki from 'node-forge/lib/pki.js'
    import pkcs7 from 'node-forge/lib/pkcs7.js'
    import util from 'node-forge/lib/util.js'
    globalThis.others = {
      parse: der => pki.certificateFromAsn1(asn1.fromDer(der)),
      validate: (chain, anchors) => pki.verifyCertificateChain(pki.createCaStore(anchors), chain),
      enroll(keys) {
        const csr = pki.createCertificationRequest()
        csr.publicKey = keys.publicKey
        csr.setSubject([{ name: 'commonName', value: 'unit' }])
        csr.sign(keys.privateKey)
        return util.encode64(asn1.toDer(pki.certificationRequestToAsn1(csr)).getBytes())
      },
      answer: text => pkcs7.messageFromAsn1(asn1.fromDer(util.decode64(text))).certificates,
    }`,
  jsrsasign: `
    import { KJUR, X509, b64tohex, hextob64 } from 'jsrsasign'
    globalThis.others = {
      parse(hex) {
        const certificate = new X509()
        certificate.readCertHex(hex)
        return certificate
      },
      validate: (leaf, issuerKey) => leaf.verifySignature(issuerKey),
      enroll: keys =>
        hextob64(
          new KJUR.asn1.csr.CertificationRequest({ subject: { str: '/CN=unit' }, sbjpubkey: keys.publicKey, sigalg: 'SHA256withECDSA', sbjprvkey: keys.privateKey }).tohex(),
        ),
      answer: text => new KJUR.asn1.cms.CMSParser().getCMSSignedData(b64tohex(text)).certs,
    }`,
}

/** What is not the same about one of them. */
export const remarks: Record<string, string> = {
  'node-forge': 'RSA alone',
  jsrsasign: 'no path validation, signatures one by one',
}

/** Script by library, minified. */
export async function otherBundles(): Promise<Record<string, string>> {
  const out: Record<string, string> = {}
  for (const [name, contents] of Object.entries(entries)) {
    const { outputFiles } = await build({
      stdin: { contents, resolveDir: join(root, 'bench'), sourcefile: 'entry.js', loader: 'js' },
      bundle: true,
      format: 'iife',
      target: 'es2020',
      platform: 'browser',
      minify: true,
      legalComments: 'none',
      external: ['crypto'],
      write: false,
      logLevel: 'silent',
    })
    out[name] = outputFiles[0].text
  }
  return out
}
