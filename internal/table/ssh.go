package table

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"path"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// sshAuthorized are the files of keys that may log in (sshd_config(5), AuthorizedKeysFile).
var sshAuthorized = [...]string{".ssh/authorized_keys", ".ssh/authorized_keys2"}

const maxKeyFile = 1 << 20 // of a private key

// authorizedKey is a row of authorized_keys.
type authorizedKey struct {
	place
	uid                                     uint32
	algorithm, key, options, comment, where string
}

// parseAuthorizedKeys reads the format of sshd(8), "AUTHORIZED_KEYS FILE FORMAT". A line that
// is no key it can read is kept whole as key, for sshd may read it.
func parseAuthorizedKeys(b []byte, add func(*authorizedKey)) {
	for line := range bytes.Lines(b) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		k := &authorizedKey{key: string(line)}
		if key, comment, options, _, err := ssh.ParseAuthorizedKey(line); err == nil {
			k.algorithm, k.key = key.Type(), base64.StdEncoding.EncodeToString(key.Marshal())
			k.options, k.comment = strings.Join(options, ","), comment
		}
		add(k)
	}
}

func authorizedKeysTable(env *Env) schema.Relation {
	type row = *authorizedKey
	t := &schema.Table[row]{
		Name: "authorized_keys",
		Doc:  "Keys that may log in over SSH, joined with users: the lines of each user's authorized_keys.",
		Columns: []schema.Column[row]{
			uidColumn(func(k row) *uint32 { return &k.uid }, schema.Additional),
			schema.Str("algorithm", func(k row) *string { return &k.algorithm }, "Type of the key"),
			schema.Str("key", func(k row) *string { return &k.key }, "The key in base64, or the line when it is none"),
			schema.Str("options", func(k row) *string { return &k.options }, "What the key may do, from where, running what"),
			schema.Str("comment", func(k row) *string { return &k.comment }, "Comment"),
			schema.Str("key_file", func(k row) *string { return &k.where }, "File it stands in"),
			pidColumn(func(k row) *place { return &k.place }),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachHome(t.Def(), q, func(s *scope, a *account) error {
			for _, name := range sshAuthorized {
				file := join(a.home, name)
				b, err := optional(s.readFile(file, maxText))
				if err != nil {
					q.Warning(fmt.Sprintf("Table authorized_keys is incomplete: %v", err))
				}
				parseAuthorizedKeys(b, func(k row) {
					k.place, k.uid, k.where = s.place(), a.uid, file
					rows = append(rows, k)
				})
			}
			return ctx.Err()
		})
		return rows, err
	}
	return t.Bind()
}

// sshKey is a row of user_ssh_keys.
type sshKey struct {
	place
	uid                  uint32
	path, kind, group    string
	encrypted            bool
	length, securityBits int64
}

// parsePrivateKey tells what a private key's file says without its passphrase; false when it
// is no private key. Nothing of the key is kept.
func parsePrivateKey(b []byte) (k *sshKey, ok bool) {
	block, _ := pem.Decode(b)
	if block == nil || !strings.HasSuffix(block.Type, "PRIVATE KEY") {
		return nil, false
	}
	k = &sshKey{}
	k.encrypted = block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED")
	if block.Type == "OPENSSH PRIVATE KEY" {
		// PROTOCOL.key of OpenSSH: cipher, then the public key in clear.
		cipher, public := opensshKey(block.Bytes)
		k.encrypted = cipher != "none"
		if key, err := ssh.ParsePublicKey(public); err == nil {
			k.describe(key)
		}
		return k, true
	}
	if k.encrypted {
		return k, true
	}
	if signer, err := ssh.ParsePrivateKey(b); err == nil {
		k.describe(signer.PublicKey())
	}
	return k, true
}

// opensshKey reads the beginning of OpenSSH's own format; nothing when it is malformed.
func opensshKey(b []byte) (cipher string, public []byte) {
	b, ok := bytes.CutPrefix(b, []byte("openssh-key-v1\x00"))
	next := func() []byte {
		if !ok || len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
			ok = false
			return nil
		}
		n := binary.BigEndian.Uint32(b)
		field := b[4 : 4+n]
		b = b[4+n:]
		return field
	}
	cipher = string(next())
	next() // key derivation
	next()
	if ok = ok && len(b) >= 4; ok {
		b = b[4:] // how many keys
	}
	return cipher, next()
}

// describe fills in what a public key tells: osquery's (OpenSSL's) names, and the bits of
// security of NIST SP 800-57, 5.6.1.1.
func (k *sshKey) describe(key ssh.PublicKey) {
	switch key.Type() {
	case ssh.KeyAlgoRSA:
		k.kind, k.length = "rsa", rsaBits(key.Marshal())
		switch {
		case k.length >= 15360:
			k.securityBits = 256
		case k.length >= 7680:
			k.securityBits = 192
		case k.length >= 3072:
			k.securityBits = 128
		case k.length >= 2048:
			k.securityBits = 112
		case k.length >= 1024:
			k.securityBits = 80
		}
	case ssh.KeyAlgoECDSA256, ssh.KeyAlgoSKECDSA256:
		k.kind, k.group, k.length, k.securityBits = "ec", "prime256v1", 256, 128
	case ssh.KeyAlgoECDSA384:
		k.kind, k.group, k.length, k.securityBits = "ec", "secp384r1", 384, 192
	case ssh.KeyAlgoECDSA521:
		k.kind, k.group, k.length, k.securityBits = "ec", "secp521r1", 521, 256
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519:
		k.kind, k.length, k.securityBits = "ed25519", 256, 128
	default:
		k.kind = key.Type()
	}
}

// rsaBits is the length of the modulus in an RSA key on the wire (RFC 4253, 6.6).
func rsaBits(b []byte) int64 {
	var field []byte
	for range 3 { // name, exponent, modulus
		if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
			return 0
		}
		n := binary.BigEndian.Uint32(b)
		field, b = b[4:4+n], b[4+n:]
	}
	field = bytes.TrimLeft(field, "\x00")
	return int64(len(field)) * 8
}

func userSSHKeysTable(env *Env) schema.Relation {
	type row = *sshKey
	t := &schema.Table[row]{
		Name: "user_ssh_keys",
		Doc:  "Private keys for SSH in users' .ssh directories, joined with users. The keys themselves are not shown.",
		Columns: []schema.Column[row]{
			uidColumn(func(k row) *uint32 { return &k.uid }, schema.Additional, schema.Optimized),
			schema.Str("path", func(k row) *string { return &k.path }, "File", schema.Index),
			schema.Bool("encrypted", func(k row) *bool { return &k.encrypted }, "1 when a passphrase guards it"),
			schema.Str("key_type", func(k row) *string { return &k.kind }, "Type: rsa, ec, ed25519 …; empty when only the passphrase tells"),
			schema.Str("key_group_name", func(k row) *string { return &k.group }, "Elliptic curve"),
			schema.Int("key_length", func(k row) *int64 { return &k.length }, "Length in bits").As(schema.Integer),
			schema.Int("key_security_bits", func(k row) *int64 { return &k.securityBits }, "Strength in bits").As(schema.Integer),
			pidColumn(func(k row) *place { return &k.place }),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachHome(t.Def(), q, func(s *scope, a *account) error {
			dir := join(a.home, ".ssh")
			for _, name := range s.entries(dir) {
				file := path.Join(dir, name)
				b, err := s.readFile(file, maxKeyFile)
				if err != nil {
					continue
				}
				if k, ok := parsePrivateKey(b); ok {
					k.place, k.uid, k.path = s.place(), a.uid, file
					rows = append(rows, k)
				}
			}
			return ctx.Err()
		})
		return rows, err
	}
	return t.Bind()
}
