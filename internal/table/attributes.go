package table

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// attribute is a row of extended_attributes.
type attribute struct {
	target
	key, value string
	base64     bool
}

// maxAttribute is the kernel's bound on a value, and on the list of names (XATTR_SIZE_MAX,
// XATTR_LIST_MAX in include/uapi/linux/limits.h).
const maxAttribute = 64 << 10

// setValue decodes what is known, shows text as it is, and all else in base64.
func (a *attribute) setValue(b []byte) {
	if a.key == "security.capability" {
		if s, ok := fileCapabilities(b); ok {
			a.value = s
			return
		}
	}
	text := bytes.TrimRight(b, "\x00")
	if utf8.Valid(text) && !bytes.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		a.value = string(text)
		return
	}
	a.value, a.base64 = base64.StdEncoding.EncodeToString(b), true
}

// fileCapabilities writes struct vfs_ns_cap_data (include/uapi/linux/capability.h) as getcap(8)
// does, such as cap_net_raw=ep.
func fileCapabilities(b []byte) (string, bool) {
	if len(b) < 12 {
		return "", false
	}
	word := func(at int) uint64 {
		if at+4 > len(b) {
			return 0
		}
		return uint64(binary.LittleEndian.Uint32(b[at:]))
	}
	magic := word(0)
	permitted, inheritable := word(4), word(8)
	switch magic & 0xff000000 {
	case 0x01000000: // VFS_CAP_REVISION_1
	case 0x02000000, 0x03000000:
		if len(b) < 20 {
			return "", false
		}
		permitted |= word(12) << 32
		inheritable |= word(16) << 32
	default:
		return "", false
	}
	flag := "" // all or none of them take effect at once
	if magic&1 != 0 {
		flag = "e"
	}
	var parts []string
	for _, p := range [...]struct {
		set  uint64
		flag string
	}{{permitted &^ inheritable, flag + "p"}, {inheritable &^ permitted, flag + "i"}, {permitted & inheritable, flag + "ip"}} {
		if p.set != 0 {
			parts = append(parts, event.Capabilities(p.set)+"="+p.flag)
		}
	}
	s := strings.Join(parts, " ")
	if magic&0xff000000 == 0x03000000 && len(b) >= 24 && word(20) != 0 {
		s += fmt.Sprintf(" [rootid=%d]", word(20))
	}
	return s, true
}

// attributes reads those of one file, of the link itself where it is one.
func (t target) attributes() []*attribute {
	fd, err := t.open(t.path, false)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	file := procfs.DescriptorPath(fd) // listxattr(2) takes no O_PATH descriptor
	buf := make([]byte, maxAttribute)
	n, err := unix.Listxattr(file, buf)
	if err != nil || n <= 0 {
		return nil
	}
	var out []*attribute
	for key := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		n, err := unix.Getxattr(file, key, buf)
		if err != nil {
			continue // gone, or not for this user
		}
		a := &attribute{target: t, key: key}
		a.setValue(buf[:n])
		out = append(out, a)
	}
	return out
}

func extendedAttributesTable(env *Env) schema.Relation {
	type row = *attribute
	t := newPathTable(env, "extended_attributes", "Extended attributes of the files that the query names by path or directory.", []schema.Column[row]{
		schema.Str("path", func(a row) *string { return &a.path }, "Path, as the query spells it", schema.Required, schema.Optimized),
		schema.Str("directory", func(a row) *string { return &a.directory }, "Directory, as the query spells it", schema.Required, schema.Optimized),
		schema.Str("key", func(a row) *string { return &a.key }, "Name of the attribute"),
		schema.Str("value", func(a row) *string { return &a.value }, "Value; of security.capability what getcap(8) shows"),
		schema.Bool("base64", func(a row) *bool { return &a.base64 }, "1 when the value is in base64"),
		schema.Calc("pid_with_namespace", schema.Integer, func(a row) schema.Value { return schema.IntValue(a.pid) }, namespaceDoc, schema.Hidden, schema.Additional),
	})
	t.rows = func(_ *schema.Query, at target) []row { return at.attributes() }
	return t
}
