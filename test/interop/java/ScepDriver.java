// A SCEP client made of BouncyCastle's CMS, as jscep is: messages in BER with indefinite lengths and octet strings in pieces.
// Usage: ScepDriver URL RA.pem NAME CHALLENGE CIPHER HASH. Prints one line: the pkiStatus, then the subject of the certificate or the failInfo.

import java.io.ByteArrayOutputStream;
import java.io.FileReader;
import java.math.BigInteger;
import java.net.HttpURLConnection;
import java.net.URI;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.SecureRandom;
import java.security.Security;
import java.util.Date;
import java.util.Hashtable;
import org.bouncycastle.asn1.ASN1Encodable;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.asn1.ASN1String;
import org.bouncycastle.asn1.DEROctetString;
import org.bouncycastle.asn1.DERPrintableString;
import org.bouncycastle.asn1.DERSet;
import org.bouncycastle.asn1.cms.Attribute;
import org.bouncycastle.asn1.cms.AttributeTable;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaCertStore;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.cert.jcajce.JcaX509v3CertificateBuilder;
import org.bouncycastle.cms.CMSAlgorithm;
import org.bouncycastle.cms.CMSEnvelopedData;
import org.bouncycastle.cms.CMSEnvelopedDataStreamGenerator;
import org.bouncycastle.cms.CMSProcessableByteArray;
import org.bouncycastle.cms.CMSSignedData;
import org.bouncycastle.cms.CMSSignedDataStreamGenerator;
import org.bouncycastle.cms.DefaultSignedAttributeTableGenerator;
import org.bouncycastle.cms.RecipientInformation;
import org.bouncycastle.cms.SignerInformation;
import org.bouncycastle.cms.jcajce.JcaSignerInfoGeneratorBuilder;
import org.bouncycastle.cms.jcajce.JcaSimpleSignerInfoVerifierBuilder;
import org.bouncycastle.cms.jcajce.JceCMSContentEncryptorBuilder;
import org.bouncycastle.cms.jcajce.JceKeyTransEnvelopedRecipient;
import org.bouncycastle.cms.jcajce.JceKeyTransRecipientInfoGenerator;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.openssl.PEMParser;
import org.bouncycastle.operator.ContentSigner;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.operator.jcajce.JcaDigestCalculatorProviderBuilder;
import org.bouncycastle.pkcs.jcajce.JcaPKCS10CertificationRequestBuilder;

public class ScepDriver {
  static final String VERISIGN = "2.16.840.1.113733.1.9.";

  static Attribute attribute(int number, ASN1Encodable value) {
    return new Attribute(new ASN1ObjectIdentifier(VERISIGN + number), new DERSet(value));
  }

  public static void main(String[] args) throws Exception {
    Security.addProvider(new BouncyCastleProvider());
    X509CertificateHolder ra;
    try (PEMParser parser = new PEMParser(new FileReader(args[1]))) {
      ra = (X509CertificateHolder) parser.readObject();
    }
    KeyPairGenerator generator = KeyPairGenerator.getInstance("RSA");
    generator.initialize(2048);
    KeyPair pair = generator.generateKeyPair();
    X500Name name = new X500Name("CN=" + args[2]);
    ContentSigner signer = new JcaContentSignerBuilder(args[5]).setProvider("BC").build(pair.getPrivate());
    JcaPKCS10CertificationRequestBuilder request = new JcaPKCS10CertificationRequestBuilder(name, pair.getPublic());
    request.addAttribute(PKCSObjectIdentifiers.pkcs_9_at_challengePassword, new DERPrintableString(args[3]));
    byte[] csr = request.build(signer).getEncoded();

    Date from = new Date(System.currentTimeMillis() - 60000);
    Date to = new Date(System.currentTimeMillis() + 86400000L);
    X509CertificateHolder self =
        new JcaX509v3CertificateBuilder(name, BigInteger.ONE, from, to, name, pair.getPublic()).build(signer);

    CMSEnvelopedDataStreamGenerator envelope = new CMSEnvelopedDataStreamGenerator();
    envelope.setBufferSize(100);
    envelope.setBEREncodeRecipients(true);
    envelope.addRecipientInfoGenerator(new JceKeyTransRecipientInfoGenerator(new JcaX509CertificateConverter().getCertificate(ra)));
    ASN1ObjectIdentifier cipher = args[4].equals("AES256") ? CMSAlgorithm.AES256_CBC : CMSAlgorithm.AES128_CBC;
    ByteArrayOutputStream sealed = new ByteArrayOutputStream();
    var out = envelope.open(sealed, new JceCMSContentEncryptorBuilder(cipher).build());
    out.write(csr);
    out.close();

    byte[] nonce = new byte[16];
    new SecureRandom().nextBytes(nonce);
    Hashtable<ASN1ObjectIdentifier, Attribute> attributes = new Hashtable<>();
    for (Attribute a : new Attribute[] {
          attribute(2, new DERPrintableString("19")),
          attribute(7, new DERPrintableString(new BigInteger(1, nonce).toString(16))),
          attribute(5, new DEROctetString(nonce)) }) attributes.put(a.getAttrType(), a);
    JcaSignerInfoGeneratorBuilder info = new JcaSignerInfoGeneratorBuilder(new JcaDigestCalculatorProviderBuilder().build());
    info.setSignedAttributeGenerator(new DefaultSignedAttributeTableGenerator(new AttributeTable(attributes)));
    CMSSignedDataStreamGenerator signed = new CMSSignedDataStreamGenerator();
    signed.setBufferSize(100);
    signed.addSignerInfoGenerator(info.build(signer, self));
    signed.addCertificates(new JcaCertStore(java.util.List.of(new JcaX509CertificateConverter().getCertificate(self))));
    ByteArrayOutputStream message = new ByteArrayOutputStream();
    out = signed.open(message, true);
    out.write(sealed.toByteArray());
    out.close();
    byte[] sent = message.toByteArray();
    if ((sent[1] & 0xff) != 0x80) throw new Exception("expected an indefinite length");

    HttpURLConnection http = (HttpURLConnection) URI.create(args[0] + "?operation=PKIOperation").toURL().openConnection();
    http.setDoOutput(true);
    http.setRequestProperty("Content-Type", "application/octet-stream");
    http.getOutputStream().write(sent);
    CMSSignedData answer = new CMSSignedData(http.getInputStream());
    SignerInformation who = answer.getSignerInfos().getSigners().iterator().next();
    if (!who.verify(new JcaSimpleSignerInfoVerifierBuilder().build(ra))) throw new Exception("the answer does not verify");
    String status = value(who, 3);
    if (!status.equals("0")) {
      System.out.println(status + " " + value(who, 4));
      return;
    }
    CMSEnvelopedData inside = new CMSEnvelopedData((byte[]) answer.getSignedContent().getContent());
    RecipientInformation recipient = inside.getRecipientInfos().getRecipients().iterator().next();
    byte[] certs = recipient.getContent(new JceKeyTransEnvelopedRecipient(pair.getPrivate()));
    for (X509CertificateHolder certificate : new CMSSignedData(certs).getCertificates().getMatches(null))
      if (certificate.getSubjectPublicKeyInfo().equals(self.getSubjectPublicKeyInfo()))
        System.out.println("0 " + certificate.getSubject() + " " + certificate.getSerialNumber().toString(16));
  }

  static String value(SignerInformation who, int number) {
    Attribute found = who.getSignedAttributes().get(new ASN1ObjectIdentifier(VERISIGN + number));
    return ((ASN1String) found.getAttrValues().getObjectAt(0)).getString();
  }
}
