package table

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// shadowEntry is a row of shadow. The hash itself is never kept.
type shadowEntry struct {
	status, algorithm, name                               string
	lastChange, min, max, warning, inactive, expire, flag int64
}

// parseShadow reads shadow(5). Fields that are empty are -1, as getspent(3) has them.
func parseShadow(b []byte, add func(*shadowEntry)) {
	for line := range bytes.Lines(b) {
		f := strings.Split(strings.TrimRight(string(line), "\r\n"), ":")
		if len(f) < 2 || f[0] == "" || strings.ContainsAny(f[0][:1], "#+-") {
			continue
		}
		e := &shadowEntry{name: f[0]}
		e.status, e.algorithm = passwordStatus(f[1])
		for i, at := range []*int64{&e.lastChange, &e.min, &e.max, &e.warning, &e.inactive, &e.expire, &e.flag} {
			*at = -1
			if i+2 < len(f) {
				if n, err := strconv.ParseInt(f[i+2], 10, 64); err == nil {
					*at = n
				}
			}
		}
		add(e)
	}
}

// passwordStatus tells what a password field means, in osquery's words, and the algorithm
// of a hash (crypt(5)).
func passwordStatus(field string) (status, algorithm string) {
	hash := strings.TrimLeft(field, "!*")
	if rest, ok := strings.CutPrefix(hash, "$"); ok {
		algorithm, _, _ = strings.Cut(rest, "$")
	}
	switch {
	case field == "!!":
		return "not_set", ""
	case field == "":
		return "empty", ""
	case field[0] == '!' || field[0] == '*' || field[0] == 'x':
		return "locked", algorithm
	}
	return "active", algorithm
}

func shadowTable(env *Env) schema.Relation {
	type row = *shadowEntry
	number := func(name string, at func(row) *int64, doc string) schema.Column[row] {
		return schema.Int(name, at, doc)
	}
	t := &schema.Table[row]{
		Name: "shadow",
		Doc:  "State and age of local accounts' passwords. The hashes themselves are not shown.",
		Columns: []schema.Column[row]{
			schema.Str("password_status", func(e row) *string { return &e.status }, "active, locked, empty or not_set"),
			schema.Str("hash_alg", func(e row) *string { return &e.algorithm }, "Algorithm of the hash, as crypt(5) marks it: y, 6, 5, 1 …"),
			number("last_change", func(e row) *int64 { return &e.lastChange }, "Day of the last change, since 1970; -1 when not set"),
			number("min", func(e row) *int64 { return &e.min }, "Days before it may change again"),
			number("max", func(e row) *int64 { return &e.max }, "Days after which it must change"),
			number("warning", func(e row) *int64 { return &e.warning }, "Days of warning before that"),
			number("inactive", func(e row) *int64 { return &e.inactive }, "Days after which the account is locked"),
			number("expire", func(e row) *int64 { return &e.expire }, "Day on which the account ends, since 1970"),
			number("flag", func(e row) *int64 { return &e.flag }, "Reserved"),
			schema.Str("username", func(e row) *string { return &e.name }, "Login name", schema.Index, schema.Optimized),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachScope(t.Def(), q, func(s *scope) error {
			b, err := optional(s.readFile("/etc/shadow", maxAccounts))
			if err != nil {
				q.Warning(err.Error())
			}
			parseShadow(b, func(e row) { rows = append(rows, e) })
			return nil
		})
		return rows, err
	}
	return t.Bind()
}

// sudoRule is a row of sudoers.
type sudoRule struct{ source, header, details string }

const maxSudoNest = 128 // sudoers(5): files included by files

// sudoers reads a file of sudoers(5) and what it includes. Lines that end in a backslash
// go on; #include and @include, with dir or without, are rows and are followed.
func (s *scope) sudoers(file string, level int, q *schema.Query, add func(*sudoRule)) {
	if level > maxSudoNest {
		q.Warning(fmt.Sprintf("Table sudoers is incomplete: %q is included by more than %d files", file, maxSudoNest))
		return
	}
	b, err := optional(s.readFile(file, maxText))
	if err != nil {
		q.Warning(fmt.Sprintf("Table sudoers is incomplete: %v", err))
		return
	}
	text := strings.ReplaceAll(strings.ReplaceAll(string(b), "\r\n", "\n"), "\\\n", " ")
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		header, details := words[0], strings.Join(words[1:], " ")
		keyword := strings.TrimLeft(header, "#@")
		switch {
		case header != keyword && len(header) == len(keyword)+1 && (keyword == "include" || keyword == "includedir") && len(words) > 1:
			target := strings.Trim(details, `"`)
			if !strings.HasPrefix(target, "/") {
				target = path.Join(path.Dir(file), target)
			}
			add(&sudoRule{file, keyword, target})
			if keyword == "include" {
				s.sudoers(target, level+1, q, add)
				continue
			}
			for _, name := range s.entries(target) {
				// sudoers(5): names with a dot, or that end in ~, are passed over.
				if !strings.Contains(name, ".") && !strings.HasSuffix(name, "~") && s.isFile(path.Join(target, name)) {
					s.sudoers(path.Join(target, name), level+1, q, add)
				}
			}
		case header[0] == '#' && !isNumber(keyword): // #1000 is a user by number
		default:
			add(&sudoRule{file, header, details})
		}
	}
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func sudoersTable(env *Env) schema.Relation {
	type row = *sudoRule
	t := &schema.Table[row]{
		Name: "sudoers",
		Doc:  "Rules of sudo: the lines of /etc/sudoers and of what it includes.",
		Columns: []schema.Column[row]{
			schema.Str("source", func(r row) *string { return &r.source }, "File it stands in"),
			schema.Str("header", func(r row) *string { return &r.header }, "First word: a user, a group, Defaults, an alias, include"),
			schema.Str("rule_details", func(r row) *string { return &r.details }, "The rest of the line"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachScope(t.Def(), q, func(s *scope) error {
			s.sudoers("/etc/sudoers", 1, q, func(r row) { rows = append(rows, r) })
			return nil
		})
		return rows, err
	}
	return t.Bind()
}
