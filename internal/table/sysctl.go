package table

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// sysctlDirectories are those of sysctl.d(5), the first wins.
var sysctlDirectories = []string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"}

// sysctlSetting is a line of sysctl.d(5): a path below /proc/sys, or a pattern of them.
type sysctlSetting struct{ path, value string }

// parseSysctl reads sysctl.d(5). In a name the first separator, . or /, says what the other
// one stands for.
func parseSysctl(b []byte, add func(sysctlSetting)) {
	for line := range bytes.Lines(b) {
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' || text[0] == ';' {
			continue
		}
		name, value, ok := strings.Cut(text, "=")
		name = strings.TrimSpace(strings.TrimPrefix(name, "-"))
		if !ok || name == "" {
			continue
		}
		if at := strings.IndexAny(name, "./"); at >= 0 && name[at] == '.' {
			name = swapSeparators(name)
		}
		add(sysctlSetting{strings.TrimPrefix(name, "/"), strings.TrimSpace(value)})
	}
}

// swapSeparators makes dots of slashes, and slashes of dots.
func swapSeparators(s string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, s)
}

// sysctlSettings returns what is configured, in the order in which it is set.
func (s *scope) sysctlSettings(warn func(error)) []sysctlSetting {
	var out []sysctlSetting
	read := func(file string) {
		b, err := optional(s.readFile(file, maxText))
		if err != nil {
			warn(err)
		}
		parseSysctl(b, func(c sysctlSetting) { out = append(out, c) })
	}
	files := map[string]string{}
	var names []string
	for _, dir := range sysctlDirectories {
		for _, name := range s.entries(dir) {
			if path.Ext(name) == ".conf" && files[name] == "" {
				files[name] = path.Join(dir, name)
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	for _, name := range names {
		read(files[name])
	}
	read("/etc/sysctl.conf")
	return out
}

// configured is what settings make of a path: the last that is about it; patterns do not
// overrule names.
func configured(settings []sysctlSetting, name string) string {
	value, exact := "", false
	for _, c := range settings {
		if c.path == name {
			value, exact = c.value, true
		} else if !exact && strings.ContainsAny(c.path, "*?[") {
			if ok, _ := path.Match(c.path, name); ok {
				value = c.value
			}
		}
	}
	return value
}

// control is a row of system_controls.
type control struct {
	procfs.Sysctl
	name, subsystem, config string
}

func systemControlsTable(env *Env) schema.Relation {
	type row = *control
	t := &schema.Table[row]{
		Name: "system_controls",
		Doc:  "Settings of the kernel (sysctl), as they are and as they are configured.",
		Columns: []schema.Column[row]{
			schema.Str("name", func(c row) *string { return &c.name }, "Name, as sysctl(8) has it", schema.Index),
			schema.Absent[row]("oid", schema.Text, "Number; Linux has none", schema.Additional),
			schema.Str("subsystem", func(c row) *string { return &c.subsystem }, "First part of the name: kernel, net, vm …"),
			schema.Str("current_value", func(c row) *string { return &c.Value }, "Value"),
			schema.Str("config_value", func(c row) *string { return &c.config }, "Value in /etc/sysctl.conf and sysctl.d, empty when it is not there"),
			schema.Calc("type", schema.Text, func(row) schema.Value { return schema.TextValue("string") }, "Type, always string"),
			schema.Absent[row]("field_name", schema.Text, "Of macOS", schema.Hidden),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachScope(t.Def(), q, func(s *scope) error {
			settings := s.sysctlSettings(func(err error) { q.Warning(fmt.Sprintf("Table system_controls is incomplete: %v", err)) })
			add := func(one procfs.Sysctl) bool {
				c := &control{Sysctl: one, name: swapSeparators(one.Path), config: configured(settings, one.Path)}
				c.subsystem, _, _ = strings.Cut(one.Path, "/")
				rows = append(rows, c)
				return ctx.Err() == nil
			}
			if names, asked := q.Equals(t.Def().Column("name")); asked {
				for _, name := range names {
					if one, ok := env.FS.Sysctl(swapSeparators(name.Text())); ok {
						add(one)
					}
				}
				return ctx.Err()
			}
			env.FS.Sysctls("", add)
			return ctx.Err()
		})
		return rows, err
	}
	return t.Bind()
}
