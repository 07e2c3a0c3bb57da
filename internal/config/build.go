package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
)

// builder makes a Config of the trees of its sources.
type builder struct {
	config *Config
	o      Options
	shard  uint64
}

func (b *builder) problem(n *node, format string, args ...any) {
	b.config.Problems = append(b.config.Problems, Problem{n.source.where(n.at), fmt.Sprintf(format, args...)})
}

// want reports whether n is of kind k; when it is something else, that is a problem.
func (b *builder) want(n *node, k kind, what string) bool {
	if n == nil || n.kind == null {
		return false
	}
	if n.kind != k {
		b.problem(n, "%s is %s, not %s: it is ignored", what, n.kind, k)
		return false
	}
	return true
}

// root reads one source.
func (b *builder) root(root *node) error {
	if n := root.get("options"); b.want(n, object, "options") {
		b.options(n)
	}
	if n := root.get("schedule"); b.want(n, object, "schedule") {
		for _, q := range b.queries(n) {
			b.config.Schedule = replace(b.config.Schedule, q, func(have Query) bool { return have.Name == q.Name })
		}
	}
	b.shared(root)
	if n := root.get("events"); b.want(n, object, "events") {
		b.config.EnableSubscribers = append(b.config.EnableSubscribers, b.texts(n.get("enable_subscribers"), "events.enable_subscribers")...)
		b.config.DisableSubscribers = append(b.config.DisableSubscribers, b.texts(n.get("disable_subscribers"), "events.disable_subscribers")...)
	}
	if n := root.get("packs"); b.want(n, object, "packs") {
		for _, f := range n.fields {
			if err := b.packs(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// replace appends item to list, in the place of one that same is true of.
func replace[T any](list []T, item T, same func(T) bool) []T {
	if i := slices.IndexFunc(list, same); i >= 0 {
		list[i] = item
		return list
	}
	return append(list, item)
}

// shared reads what packs may say, too.
func (b *builder) shared(n *node) {
	c := b.config
	if d := n.get("decorators"); b.want(d, object, "decorators") {
		b.decorators(d)
	}
	if v := n.get("views"); b.want(v, object, "views") {
		for _, f := range v.fields {
			if b.want(f.value, text, "view "+f.name) && f.value.text != "" {
				view := View{f.name, f.value.text, f.value.source.where(f.value.at)}
				c.Views = replace(c.Views, view, func(have View) bool { return have.Name == view.Name })
			}
		}
	}
	for _, paths := range [...]struct {
		name string
		to   map[string][]string
	}{{"file_paths", c.FilePaths}, {"file_paths_query", c.FilePathsQuery}, {"exclude_paths", c.ExcludePaths}} {
		if m := n.get(paths.name); b.want(m, object, paths.name) {
			for _, f := range m.fields {
				paths.to[f.name] = append(paths.to[f.name], b.texts(f.value, paths.name+"."+f.name)...)
			}
		}
	}
	c.FileAccesses = append(c.FileAccesses, b.texts(n.get("file_accesses"), "file_accesses")...)
	if t := n.get("auto_table_construction"); b.want(t, object, "auto_table_construction") {
		for _, f := range t.fields {
			b.table(f)
		}
	}
	for _, name := range [...]string{"yara", "prometheus_targets", "kafka_topics", "feature_vectors", "logger"} {
		if o := n.get(name); o != nil {
			c.Other[name] = o.json()
		}
	}
}

// texts reads a list of text.
func (b *builder) texts(n *node, what string) []string {
	if !b.want(n, array, what) {
		return nil
	}
	var out []string
	for _, item := range n.list {
		if b.want(item, text, "an entry of "+what) && item.text != "" {
			out = append(out, item.text)
		}
	}
	return out
}

func (b *builder) options(n *node) {
	for _, f := range n.fields {
		o := Option{Name: f.name, Where: f.value.source.where(f.value.at)}
		switch v := f.value; v.kind {
		case text, number:
			o.Value = v.text
		case boolean:
			o.Value = "false"
			if v.bool {
				o.Value = "true"
			}
		case array, object:
			o.Value = string(v.json())
		case null:
			b.problem(v, "Cannot parse unknown value type for option: %s", f.name)
		}
		if o.Value != "" && o.Name != "" { // as in osquery, an empty option says nothing
			b.config.Options = append(b.config.Options, o)
		}
	}
}

// queries reads the entries of a schedule, sorted by name.
func (b *builder) queries(n *node) []Query {
	var out []Query
	for _, f := range n.fields {
		if q, ok := b.query(f); ok {
			out = replace(out, q, func(have Query) bool { return have.Name == q.Name })
		}
	}
	slices.SortFunc(out, func(x, y Query) int { return strings.Compare(x.Name, y.Name) })
	return out
}

func (b *builder) query(f field) (Query, bool) {
	n := f.value
	if !b.want(n, object, fmt.Sprintf("query %q", f.name)) {
		return Query{}, false
	}
	q := Query{Name: f.name, Removed: true, Denylist: true, Where: n.source.where(n.at)}
	q.Platform, q.Version, q.Shard = b.conditions(n)
	if !b.here(q.Platform, q.Version, q.Shard) {
		return Query{}, false
	}
	sql := n.get("query")
	if sql == nil || sql.kind != text || strings.TrimSpace(sql.text) == "" {
		b.problem(n, "query %q has no text: it is left out", f.name)
		return Query{}, false
	}
	q.SQL = sql.text
	if v := n.get("interval"); v != nil {
		q.Interval = v.size()
		if q.Interval == 0 || q.Interval > maxInterval {
			b.problem(v, "Query has invalid interval: %s: %s; it is from 1 to %d seconds", f.name, cut80(string(v.json())), maxInterval)
			return Query{}, false
		}
	}
	if v := n.get("snapshot"); v != nil {
		q.Snapshot = v.truth()
	}
	if v := n.get("detection"); v != nil {
		q.Detection = b.detection(v, f.name)
		if d := n.get("description"); d != nil && d.kind == text && q.Detection != nil && q.Detection.Description == "" {
			q.Detection.Description = d.text
		}
	}
	if v := n.get("removed"); v != nil {
		q.Removed = v.truth()
	}
	for _, name := range [...]string{"blacklist", "denylist"} {
		if v := n.get(name); v != nil {
			q.Denylist = v.truth()
		}
	}
	if v := n.get("startup_priority"); v != nil {
		q.Priority = v.size()
	}
	return q, true
}

// detection reads what marks a query as detection: true, a level, or an object with title, level,
// description and tags.
func (b *builder) detection(n *node, query string) *Detection {
	d := &Detection{Level: "medium"}
	level := n
	switch n.kind {
	case object:
		for name, to := range map[string]*string{"title": &d.Title, "description": &d.Description} {
			if v := n.get(name); v != nil && v.kind == text {
				*to = v.text
			}
		}
		if v := n.get("tags"); v != nil && v.kind == array {
			for _, tag := range v.list {
				if tag.kind == text && tag.text != "" && !strings.Contains(tag.text, "\x00") {
					d.Tags = append(d.Tags, tag.text)
				}
			}
		}
		level = n.get("level")
	case text:
	default:
		if !n.truth() {
			return nil
		}
		return d
	}
	if level == nil {
		return d
	}
	if level.kind == text && slices.Contains(event.Levels, level.text) {
		d.Level = level.text
	} else {
		b.problem(level, "query %q: a detection's level is one of %s: it is medium", query, strings.Join(event.Levels, ", "))
	}
	return d
}

// conditions reads what says where an entry runs.
func (b *builder) conditions(n *node) (platform, version string, shard uint64) {
	if v := n.get("platform"); v != nil && v.kind == text {
		platform = v.text
	}
	if v := n.get("version"); v != nil && v.kind == text {
		version = v.text
	}
	if v := n.get("shard"); v != nil {
		shard = v.size()
	}
	return platform, version, shard
}

func (b *builder) here(platform, version string, shard uint64) bool {
	return (shard == 0 || shard >= b.shard) && PlatformHere(platform) && VersionAtLeast(version, b.o.Version)
}

// packs reads one field of packs: a pack, the name of a file with one, or, under the name *,
// a pattern of such files.
func (b *builder) packs(f field) error {
	n := f.value
	if n.kind == object {
		if f.name == "*" {
			for _, inner := range n.fields {
				if b.want(inner.value, object, fmt.Sprintf("pack %q", inner.name)) {
					b.pack(inner.name, inner.value)
				}
			}
			return nil
		}
		b.pack(f.name, n)
		return nil
	}
	if !b.want(n, text, fmt.Sprintf("pack %q", f.name)) {
		return nil
	}
	if !b.o.Files {
		b.problem(n, "pack %q names a file, which a server may not: it is left out", f.name)
		return nil
	}
	if f.name != "*" {
		b.packFile(f.name, n.text, n)
		return nil
	}
	paths, err := Glob(n.text)
	if err != nil {
		b.problem(n, "packs: %v", err)
		return nil
	}
	if len(paths) == 0 {
		b.problem(n, "packs: no file matches %q", n.text)
	}
	for _, path := range paths {
		name := filepath.Base(path)
		b.packFile(strings.TrimSuffix(name, filepath.Ext(name)), path, n)
	}
	return nil
}

// packFile reads a pack from its own file. As in osquery, one that cannot be read does not
// keep the rest from running.
func (b *builder) packFile(name, path string, n *node) {
	data, err := readRegular(path, maxFile)
	if err != nil {
		b.problem(n, "Error reading the query pack named: %s: %v", name, err)
		return
	}
	root, err := newSource(path, data).parse()
	if err != nil {
		b.config.Problems = append(b.config.Problems, Problem{"", fmt.Sprintf("Error parsing the %q pack JSON: %v", name, err)})
		return
	}
	b.pack(name, root)
}

func (b *builder) pack(name string, n *node) {
	p := Pack{Name: name, Where: n.source.where(n.at)}
	p.Platform, p.Version, p.Shard = b.conditions(n)
	if p.Here = b.here(p.Platform, p.Version, p.Shard); p.Here {
		p.Discovery = b.texts(n.get("discovery"), "discovery of pack "+name)
		if q := n.get("queries"); b.want(q, object, "queries of pack "+name) {
			p.Queries = b.queries(q)
		}
		b.shared(n)
	}
	b.config.Packs = replace(b.config.Packs, p, func(have Pack) bool { return have.Name == name })
}

func (b *builder) decorators(n *node) {
	d := &b.config.Decorators
	d.Load = append(d.Load, b.texts(n.get("load"), "decorators.load")...)
	d.Always = append(d.Always, b.texts(n.get("always"), "decorators.always")...)
	intervals := n.get("interval")
	if !b.want(intervals, object, "decorators.interval") {
		return
	}
	for _, f := range intervals.fields {
		key := &node{kind: text, text: f.name}
		seconds := key.size()
		if seconds == 0 || seconds%60 != 0 {
			b.problem(f.value, "Invalid decorator interval rate %s: it is a multiple of 60 seconds", f.name)
			continue
		}
		queries := b.texts(f.value, "decorators.interval."+f.name)
		i := slices.IndexFunc(d.Interval, func(have IntervalDecorator) bool { return have.Seconds == seconds })
		if i < 0 {
			i = len(d.Interval)
			d.Interval = append(d.Interval, IntervalDecorator{Seconds: seconds})
		}
		d.Interval[i].SQL = append(d.Interval[i].SQL, queries...)
	}
}

func (b *builder) table(f field) {
	n := f.value
	if !b.want(n, object, fmt.Sprintf("table %q", f.name)) {
		return
	}
	t := Table{Name: f.name, Where: n.source.where(n.at)}
	if v := n.get("query"); v != nil && v.kind == text {
		t.SQL = v.text
	}
	if v := n.get("path"); v != nil && v.kind == text {
		t.Path = v.text
	}
	if platform, _, _ := b.conditions(n); !PlatformHere(platform) {
		return
	}
	switch columns := n.get("columns"); {
	case t.SQL == "" || t.Path == "":
		b.problem(n, "ATC Table: Skipping %s because it is misconfigured (missing query or path)", f.name)
		return
	case columns == nil || columns.kind != array:
		b.problem(n, "ATC Table: Skipping %s because it is misconfigured (no columns)", f.name)
		return
	default:
		for _, c := range columns.list {
			switch {
			case c.kind != text || c.text == "":
				b.problem(c, "ATC Table: %s is misconfigured. (non-string column)", f.name)
			case strings.EqualFold(c.text, "path"):
				b.problem(c, "ATC Table: %s is misconfigured. The configuration includes `%s`. This is a reserved column name", f.name, c.text)
			default:
				t.Columns = append(t.Columns, c.text)
			}
		}
	}
	b.config.Tables = replace(b.config.Tables, t, func(have Table) bool { return have.Name == t.Name })
}

func cut80(s string) string { return s[:min(len(s), 80)] }
