package table

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// certificatePaths are where certificates of authorities and of this host lie on Linux, as
// patterns: Debian's and SUSE's, Red Hat's.
var certificatePaths = [...]string{
	"/etc/ssl/certs/%", "/etc/pki/tls/certs/%", "/etc/pki/ca-trust/source/anchors/%", "/usr/local/share/ca-certificates/%",
}

// certificate is a row of certificates.
type certificate struct {
	*x509.Certificate
	path string
}

// parseCertificates reads PEM blocks, or one certificate in DER.
func parseCertificates(b []byte, add func(*x509.Certificate)) {
	found := false
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		found = true
		if strings.HasSuffix(block.Type, "CERTIFICATE") {
			if c, err := x509.ParseCertificate(block.Bytes); err == nil {
				add(c)
			}
		}
	}
	if !found {
		if c, err := x509.ParseCertificate(b); err == nil {
			add(c)
		}
	}
}

// attributeNames are OpenSSL's short names of what a distinguished name is made of (RFC 4519).
var attributeNames = map[string]string{
	"2.5.4.3": "CN", "2.5.4.4": "SN", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.9": "street",
	"2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.12": "title", "2.5.4.42": "GN", "2.5.4.97": "organizationIdentifier",
	"1.2.840.113549.1.9.1": "emailAddress", "0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID",
}

// distinguished writes a name as X509_NAME_oneline does, /C=US/O=…, and as
// X509_NAME_print_ex, C=US, O=….
func distinguished(raw []byte) (slashes, commas string) {
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &name); err != nil || len(rest) > 0 {
		return "", ""
	}
	var parts []string
	for _, set := range name {
		for _, a := range set {
			key := attributeNames[a.Type.String()]
			if key == "" {
				key = a.Type.String()
			}
			parts = append(parts, key+"="+fmt.Sprint(a.Value))
		}
	}
	if len(parts) == 0 {
		return "", ""
	}
	return "/" + strings.Join(parts, "/"), strings.Join(parts, ", ")
}

// Names that OpenSSL has for algorithms (its obj_mac.h), which osquery shows.
var signatureNames = map[x509.SignatureAlgorithm]string{
	x509.MD5WithRSA: "md5WithRSAEncryption", x509.SHA1WithRSA: "sha1WithRSAEncryption", x509.SHA256WithRSA: "sha256WithRSAEncryption",
	x509.SHA384WithRSA: "sha384WithRSAEncryption", x509.SHA512WithRSA: "sha512WithRSAEncryption",
	x509.SHA256WithRSAPSS: "rsassaPss", x509.SHA384WithRSAPSS: "rsassaPss", x509.SHA512WithRSAPSS: "rsassaPss",
	x509.ECDSAWithSHA1: "ecdsa-with-SHA1", x509.ECDSAWithSHA256: "ecdsa-with-SHA256", x509.ECDSAWithSHA384: "ecdsa-with-SHA384",
	x509.ECDSAWithSHA512: "ecdsa-with-SHA512", x509.PureEd25519: "ED25519", x509.DSAWithSHA1: "dsaWithSHA1", x509.DSAWithSHA256: "dsa_with_SHA256",
}

// publicKey names a key's algorithm and its strength: bits, or the curve.
func publicKey(key any) (algorithm, strength string) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return "rsaEncryption", strconv.Itoa(k.N.BitLen())
	case *ecdsa.PublicKey:
		curve := map[string]string{"P-224": "secp224r1", "P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}[k.Curve.Params().Name]
		return "id-ecPublicKey", curve
	case ed25519.PublicKey:
		return "ED25519", "256"
	}
	return "", ""
}

var keyUsages = [...]string{
	"Digital Signature", "Non Repudiation", "Key Encipherment", "Data Encipherment", "Key Agreement",
	"Key Cert Sign", "CRL Sign", "Encipher Only", "Decipher Only",
}

func keyUsage(u x509.KeyUsage) string {
	var out []string
	for i, name := range keyUsages {
		if u&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return strings.Join(out, ", ")
}

func certificatesTable(env *Env) schema.Relation {
	type row = *certificate
	text := func(name string, of func(row) string, doc string, flags ...schema.Flag) schema.Column[row] {
		return schema.Calc(name, schema.Text, func(c row) schema.Value { return schema.TextValue(of(c)) }, doc, flags...)
	}
	truth := func(name string, of func(row) bool, doc string) schema.Column[row] {
		return schema.Calc(name, schema.Integer, func(c row) schema.Value {
			if of(c) {
				return schema.IntValue(1)
			}
			return schema.IntValue(0)
		}, doc)
	}
	first := func(a, _ string) string { return a }
	second := func(_, b string) string { return b }
	t := &schema.Table[row]{
		Name: "certificates",
		Doc:  "X.509 certificates in the directories of this host's trusted authorities, or in the files that path names.",
		Columns: []schema.Column[row]{
			text("common_name", func(c row) string { return c.Subject.CommonName }, "Common name of the subject"),
			text("subject", func(c row) string { return first(distinguished(c.RawSubject)) }, "Subject, its parts after slashes"),
			text("subject2", func(c row) string { return second(distinguished(c.RawSubject)) }, "Subject, its parts separated by commas"),
			text("issuer", func(c row) string { return first(distinguished(c.RawIssuer)) }, "Issuer, its parts after slashes"),
			text("issuer2", func(c row) string { return second(distinguished(c.RawIssuer)) }, "Issuer, its parts separated by commas"),
			truth("ca", func(c row) bool { return c.BasicConstraintsValid && c.IsCA }, "1 for an authority's certificate"),
			truth("self_signed", func(c row) bool { return string(c.RawSubject) == string(c.RawIssuer) }, "1 when subject and issuer are the same"),
			text("not_valid_before", func(c row) string { return strconv.FormatInt(c.NotBefore.Unix(), 10) }, "Beginning of validity, unix seconds"),
			text("not_valid_after", func(c row) string { return strconv.FormatInt(c.NotAfter.Unix(), 10) }, "End of validity, unix seconds"),
			text("signing_algorithm", func(c row) string { return signatureNames[c.SignatureAlgorithm] }, "Algorithm of the signature, in OpenSSL's words"),
			text("key_algorithm", func(c row) string { return first(publicKey(c.PublicKey)) }, "Algorithm of the key, in OpenSSL's words"),
			text("key_strength", func(c row) string { return second(publicKey(c.PublicKey)) }, "Bits of the key, or its curve"),
			text("key_usage", func(c row) string { return keyUsage(c.KeyUsage) }, "What the key may be used for"),
			text("subject_key_id", func(c row) string { return strings.ToUpper(hex.EncodeToString(c.SubjectKeyId)) }, "Subject key identifier").Collated("nocase"),
			text("authority_key_id", func(c row) string { return strings.ToUpper(hex.EncodeToString(c.AuthorityKeyId)) }, "Authority key identifier").Collated("nocase"),
			text("sha1", func(c row) string { s := sha1.Sum(c.Raw); return hex.EncodeToString(s[:]) }, "SHA-1 of the certificate").Collated("nocase"),
			text("path", func(c row) string { return c.path }, "File", schema.Additional, schema.Optimized),
			text("serial", func(c row) string { return strings.ToUpper(c.SerialNumber.Text(16)) }, "Serial number in hexadecimal").Collated("nocase"),
			schema.Absent[row]("sid", schema.Text, "User's SID on Windows", schema.Hidden),
			schema.Absent[row]("store_location", schema.Text, "Location of the store on Windows", schema.Hidden),
			schema.Absent[row]("store", schema.Text, "Store on Windows", schema.Hidden),
			schema.Absent[row]("username", schema.Text, "User on Windows", schema.Hidden),
			schema.Absent[row]("store_id", schema.Text, "Identifier of the store on Windows", schema.Hidden),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		def := t.Def()
		var rows []row
		err := env.eachScope(def, q, func(s *scope) error {
			var files []string
			if values, asked := q.Equals(def.Column("path")); asked {
				files = texts(values)
			} else if pattern, asked := like(q, def.Column("path")); asked {
				files = s.match(ctx, q, def.Name, pattern)
			} else {
				for _, pattern := range certificatePaths {
					files = append(files, s.match(ctx, q, def.Name, pattern)...)
				}
			}
			for _, file := range files {
				if err := ctx.Err(); err != nil {
					return err
				}
				b, err := s.readFile(file, maxManifest)
				if err != nil {
					continue // a directory, or not for us
				}
				parseCertificates(b, func(c *x509.Certificate) { rows = append(rows, &certificate{c, file}) })
			}
			return nil
		})
		return rows, err
	}
	return t.Bind()
}
