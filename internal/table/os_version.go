package table

import (
	"bytes"
	"context"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
)

const maxRelease = 64 << 10

// osVersion is what a distribution says of itself.
type osVersion struct {
	name, version, build, platform, platformLike, codename, arch, mount string
	major, minor, patch                                                 int64
	pid                                                                 int64
}

// parseOSRelease reads os-release(5): shell-like assignments, a value perhaps in double
// or single quotes. The first of the three numbers of VERSION_ID is the major one. Any
// key with CODENAME in it is the code name, for some distributions invented their own.
func (v *osVersion) parseOSRelease(b []byte) {
	for line := range bytes.Lines(b) {
		key, val, found := strings.Cut(strings.TrimSpace(string(line)), "=")
		if !found || strings.HasPrefix(key, "#") {
			continue
		}
		val = unquote(val)
		switch {
		case key == "NAME":
			v.name = val
		case key == "VERSION":
			v.version = val
		case key == "BUILD_ID":
			v.build = val
		case key == "ID":
			v.platform = val
		case key == "ID_LIKE":
			v.platformLike = val
		case key == "VERSION_ID":
			parts := strings.SplitN(val, ".", 3)
			for i, p := range []*int64{&v.major, &v.minor, &v.patch} {
				if i < len(parts) {
					*p = leadingNumber(parts[i])
				}
			}
		case strings.Contains(key, "CODENAME"):
			if key == "VERSION_CODENAME" || v.codename == "" {
				v.codename = val
			}
		}
	}
}

// unquote undoes the quoting that os-release(5) allows.
func unquote(s string) string {
	if len(s) < 2 || s[0] != s[len(s)-1] || s[0] != '"' && s[0] != '\'' {
		return s
	}
	quote := s[0]
	s = s[1 : len(s)-1]
	if quote == '\'' || !strings.Contains(s, `\`) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && strings.IndexByte("$\"\\`", s[i+1]) >= 0 {
			i++
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// leadingNumber is the decimal number that s begins with, 0 when it begins with none.
func leadingNumber(s string) int64 {
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, _ := strconv.ParseInt(s[:end], 10, 64)
	return n
}

// releaseLine matches "CentOS Linux release 7.9.2009 (Core)" as osquery does.
var releaseLine = regexp.MustCompile(`([\w+\s]+) .* ([0-9]+)\.([0-9]+)\.?(\w+)?`)

// parseRelease reads /etc/redhat-release or /etc/gentoo-release. As in osquery the file
// overrides os-release: its family's name is the platform, so that a fleet manager which
// knows rhel knows CentOS, Rocky, Alma, Oracle and Fedora, and its text is the version.
func (v *osVersion) parseRelease(b []byte, family string) {
	v.platform, v.platformLike = family, family
	line := strings.Join(strings.Fields(string(b)), " ")
	if m := releaseLine.FindStringSubmatch(line); m != nil {
		v.name = m[1]
		v.major, v.minor, v.patch = leadingNumber(m[2]), leadingNumber(m[3]), leadingNumber(m[4])
	}
	v.version, v.build = line, ""
}

func (s *scope) osVersion() (*osVersion, error) {
	v := &osVersion{name: "Unknown", platform: "posix", pid: s.pid, mount: s.mount}
	b, err := s.readFile("/etc/os-release", maxRelease)
	if err != nil {
		// The vendor's copy, where an image has only that.
		b, err = optional(s.readFile("/usr/lib/os-release", maxRelease))
	}
	if err != nil {
		return nil, err
	}
	v.parseOSRelease(b)
	if b, err := s.readFile("/etc/redhat-release", maxRelease); err == nil {
		v.parseRelease(b, "rhel")
	} else if b, err := s.readFile("/etc/gentoo-release", maxRelease); err == nil {
		v.parseRelease(b, "gentoo")
	}
	v.arch = machine()
	return v, nil
}

// machine is the hardware's name as uname(2) gives it.
func machine() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Machine[:])
}

func osVersionTable(env *Env) schema.Relation {
	integer := func(name string, at func(*osVersion) *int64, doc string, flags ...schema.Flag) schema.Column[*osVersion] {
		return schema.Int(name, at, doc, flags...).As(schema.Integer)
	}
	t := &schema.Table[*osVersion]{
		Name: "os_version",
		Doc:  "The distribution's name and version, one row.",
		Columns: []schema.Column[*osVersion]{
			schema.Str("name", func(v *osVersion) *string { return &v.name }, "Name of the distribution"),
			schema.Str("version", func(v *osVersion) *string { return &v.version }, "Version as the distribution presents it").Collated("version"),
			integer("major", func(v *osVersion) *int64 { return &v.major }, "Major release number"),
			integer("minor", func(v *osVersion) *int64 { return &v.minor }, "Minor release number"),
			integer("patch", func(v *osVersion) *int64 { return &v.patch }, "Patch release number"),
			schema.Str("build", func(v *osVersion) *string { return &v.build }, "Build or variant"),
			schema.Str("platform", func(v *osVersion) *string { return &v.platform }, "Identifier of the distribution; rhel for the whole Red Hat family"),
			schema.Str("platform_like", func(v *osVersion) *string { return &v.platformLike }, "Identifiers of distributions it derives from"),
			schema.Str("codename", func(v *osVersion) *string { return &v.codename }, "Code name of the release"),
			schema.Str("arch", func(v *osVersion) *string { return &v.arch }, "Machine architecture"),
			integer("pid_with_namespace", func(v *osVersion) *int64 { return &v.pid }, namespaceDoc, schema.Hidden, schema.Additional),
			schema.Str("mount_namespace_id", func(v *osVersion) *string { return &v.mount }, mountDoc, schema.Hidden),
			schema.Absent[*osVersion]("extra", schema.Text, "Rapid security response on macOS", schema.Hidden),
			schema.Absent[*osVersion]("install_date", schema.BigInt, "Time of installation on Windows", schema.Hidden),
			schema.Absent[*osVersion]("revision", schema.Integer, "Update build revision on Windows", schema.Hidden),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]*osVersion, error) {
		var rows []*osVersion
		err := env.eachScope(t.Def(), q, func(s *scope) error {
			v, err := s.osVersion()
			if err == nil {
				rows = append(rows, v)
			}
			return err
		})
		return rows, err
	}
	return t.Bind()
}

// mountDoc is what mount_namespace_id means in every table that has it.
const mountDoc = "Mount namespace that pid_with_namespace led to"
