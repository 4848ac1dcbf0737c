// Drives BouncyCastle's EST client (org.bouncycastle.est) as a device's firmware would, and says in one line a step what came of it.
// Usage: EstDriver COMMAND TLS-VERSION PORT CA.pem OUT.pem SUBJECT CHAIN.pem|- KEY.pem|- USER|- PASSWORD|-
// COMMAND: cacerts, csrattrs, enroll, bound, reenroll or serverkeygen; bound is an enrollment whose CSR carries the session's tls-unique. Enrolling makes a fresh P-256 key, writes the issued certificate and its chain to OUT.pem
// and the key to OUT.pem.key.

import java.io.FileReader;
import java.io.FileWriter;
import java.io.Reader;
import java.net.Socket;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.Security;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.security.spec.ECGenParameterSpec;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.X509TrustManager;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.est.CACertsResponse;
import org.bouncycastle.est.ESTAuth;
import org.bouncycastle.est.ESTException;
import org.bouncycastle.est.ESTService;
import org.bouncycastle.est.EnrollmentResponse;
import org.bouncycastle.est.HttpAuth;
import org.bouncycastle.est.jcajce.ChannelBindingProvider;
import org.bouncycastle.est.jcajce.JcaJceUtils;
import org.bouncycastle.est.jcajce.JsseDefaultHostnameAuthorizer;
import org.bouncycastle.est.jcajce.JsseESTServiceBuilder;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.jsse.BCSSLSocket;
import org.bouncycastle.jsse.provider.BouncyCastleJsseProvider;
import org.bouncycastle.openssl.PEMParser;
import org.bouncycastle.openssl.jcajce.JcaPEMKeyConverter;
import org.bouncycastle.openssl.jcajce.JcaPEMWriter;
import org.bouncycastle.openssl.jcajce.JcaPKCS8Generator;
import org.bouncycastle.operator.ContentSigner;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;
import org.bouncycastle.pkcs.PKCS10CertificationRequestBuilder;
import org.bouncycastle.pkcs.jcajce.JcaPKCS10CertificationRequestBuilder;

public final class EstDriver {
  static List<X509Certificate> certificates(String file) throws Exception {
    List<X509Certificate> out = new ArrayList<>();
    try (Reader reader = new FileReader(file); PEMParser parser = new PEMParser(reader)) {
      for (Object o = parser.readObject(); o != null; o = parser.readObject())
        out.add(new JcaX509CertificateConverter().getCertificate((X509CertificateHolder) o));
    }
    return out;
  }

  static PrivateKey privateKey(String file) throws Exception {
    try (Reader reader = new FileReader(file); PEMParser parser = new PEMParser(reader)) {
      return new JcaPEMKeyConverter().getPrivateKey((PrivateKeyInfo) parser.readObject());
    }
  }

  public static void main(String[] args) throws Exception {
    // For its certificate paths; TLS itself stays the JDK's.
    Security.addProvider(new BouncyCastleProvider());
    String command = args[0];
    Set<TrustAnchor> anchors = new HashSet<>();
    for (X509Certificate c : certificates(args[3])) anchors.add(new TrustAnchor(c, null));
    X509TrustManager[] trust = JcaJceUtils.getCertPathTrustManager(anchors, null);
    JsseESTServiceBuilder builder = new JsseESTServiceBuilder("localhost:" + args[2], trust);
    builder.withTLSVersion(args[1]);
    builder.withTimeout(20000);
    builder.withHostNameAuthorizer(new JsseDefaultHostnameAuthorizer(Collections.emptySet()));
    if (!args[6].equals("-")) {
      KeyStore store = KeyStore.getInstance("PKCS12");
      store.load(null);
      store.setKeyEntry("device", privateKey(args[7]), new char[0], certificates(args[6]).toArray(new X509Certificate[0]));
      KeyManagerFactory factory = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
      factory.init(store, new char[0]);
      builder.withKeyManagers(factory.getKeyManagers());
    }
    if (command.equals("bound")) {
      // The JDK's own TLS does not tell tls-unique; BouncyCastle's does.
      Security.addProvider(new BouncyCastleJsseProvider());
      builder.withProvider("BCJSSE");
      builder.withChannelBindingProvider(new ChannelBindingProvider() {
        public boolean canAccessChannelBinding(Socket socket) {
          return socket instanceof BCSSLSocket;
        }
        public byte[] getChannelBinding(Socket socket, String binding) {
          return ((BCSSLSocket) socket).getConnection().getChannelBinding(binding);
        }
      });
    }
    ESTService est = builder.build();
    try {
      if (command.equals("cacerts")) {
        CACertsResponse response = est.getCACerts();
        for (X509CertificateHolder c : ESTService.storeToArray(response.getCertificateStore())) System.out.println("ca " + c.getSubject());
        System.out.println("trusted " + response.isTrusted());
      } else if (command.equals("csrattrs")) {
        if (est.getCSRAttributes().hasAttributesResponse())
          for (ASN1ObjectIdentifier oid : est.getCSRAttributes().getAttributesResponse().getRequirements()) System.out.println("asks " + oid);
      } else {
        KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
        generator.initialize(new ECGenParameterSpec("secp256r1"));
        KeyPair pair = generator.generateKeyPair();
        // A renewal keeps the subject of the certificate that opens TLS, byte for byte.
        X500Name subject = command.equals("reenroll")
          ? X500Name.getInstance(certificates(args[6]).get(0).getSubjectX500Principal().getEncoded())
          : new X500Name(args[5]);
        PKCS10CertificationRequestBuilder request = new JcaPKCS10CertificationRequestBuilder(subject, pair.getPublic());
        ContentSigner signer = new JcaContentSignerBuilder("SHA256withECDSA").build(pair.getPrivate());
        PKCS10CertificationRequest csr = request.build(signer);
        ESTAuth auth = args[8].equals("-") ? null : new HttpAuth(args[8], args[9].toCharArray());
        EnrollmentResponse response = command.equals("serverkeygen")
          ? est.simpleEnrollWithServersideCreation(csr, auth)
          : command.equals("bound") ? est.simpleEnrollPoP(false, request, signer, auth)
          : est.simpleEnroll(command.equals("reenroll"), csr, auth);
        if (!response.isCompleted()) {
          System.out.println("pending " + (response.getNotBefore() > System.currentTimeMillis()));
          return;
        }
        try (JcaPEMWriter out = new JcaPEMWriter(new FileWriter(args[4]))) {
          for (X509CertificateHolder c : ESTService.storeToArray(response.getStore())) {
            out.writeObject(c);
            System.out.println("issued " + c.getSubject());
          }
        }
        PrivateKeyInfo made = response.getPrivateKeyInfo();
        PrivateKey key = made == null ? pair.getPrivate() : new JcaPEMKeyConverter().getPrivateKey(made);
        try (JcaPEMWriter out = new JcaPEMWriter(new FileWriter(args[4] + ".key"))) {
          out.writeObject(new JcaPKCS8Generator(key, null));
        }
      }
    } catch (ESTException e) {
      System.out.println("refused " + e.getStatusCode() + " " + e.getMessage());
    }
  }
}
