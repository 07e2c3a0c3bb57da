package config

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Config is what the sources of one reading say together. It does not change.
type Config struct {
	Options    []Option
	Schedule   []Query // sorted by name
	Packs      []Pack  // in the order in which they stand
	Decorators Decorators
	Views      []View // sorted by name

	// What file events are about, by category. Patterns are in osquery's language.
	FilePaths      map[string][]string
	FilePathsQuery map[string][]string // queries whose column path gives patterns
	FileAccesses   []string            // categories
	ExcludePaths   map[string][]string

	// EnableSubscribers and DisableSubscribers name event tables; disabling wins.
	EnableSubscribers, DisableSubscribers []string

	Tables []Table // sorted by name

	// Other holds, as JSON, what is for others to read: yara, prometheus_targets …
	Other map[string][]byte

	// Hash is osquery_info.config_hash: SHA-1 over the SHA-1 of each source.
	Hash string
	// Problems are what was left out, and why.
	Problems []Problem
}

// Option is a flag set by the configuration.
type Option struct {
	Name, Value string
	Where       string
}

// Query is an entry of the schedule or of a pack.
type Query struct {
	Name     string // within its pack
	SQL      string
	Interval uint64 // seconds; 0: schedule_default_interval
	Snapshot bool
	Removed  bool // log rows that are gone
	Denylist bool // do not run it for a day when the agent died of it
	// Priority orders the queries that run once at the start; 0 is none of them.
	Priority uint64

	// Detection has new rows raise alerts; nil: it does not.
	Detection *Detection

	Platform, Version string
	Shard             uint64
	Where             string
}

// Detection is what a query's alerts say of it. No such thing is in osquery.
type Detection struct {
	Title, Level, Description string
	Tags                      []string
}

// Pack is a set of queries that run where its conditions hold.
type Pack struct {
	Name              string
	Platform, Version string
	Shard             uint64
	Here              bool     // platform, version and shard are this host's; else it has no queries
	Discovery         []string // each must give a row
	Queries           []Query  // sorted by name
	Where             string
}

// Decorators are queries whose first row is added to log lines.
type Decorators struct {
	Load     []string
	Always   []string
	Interval []IntervalDecorator // sorted by seconds
}

// IntervalDecorator is run each so many seconds, a multiple of 60.
type IntervalDecorator struct {
	Seconds uint64
	SQL     []string
}

// View is a name for a query.
type View struct{ Name, SQL, Where string }

// Table is osquery's auto_table_construction: a query over SQLite files.
type Table struct {
	Name    string
	SQL     string
	Path    string   // pattern of the files
	Columns []string // without the column path, which is added
	Where   string
}

// maxInterval is the longest interval that osquery takes: a week.
const maxInterval = 604800

// Options of Load.
type Options struct {
	// Version is that of osquery, which packs ask for.
	Version string
	// Host is the host's name, of which its shard is made.
	Host string
	// Files allows packs to be read from files that the configuration names. A server
	// must not make the agent read files.
	Files bool
}

// Load merges sources. The error is a *SyntaxError, or says which file cannot be read; what
// else is wrong is among the problems, and left out.
func Load(sources []Source, o Options) (*Config, error) {
	b := &builder{
		config: &Config{
			FilePaths: map[string][]string{}, FilePathsQuery: map[string][]string{},
			ExcludePaths: map[string][]string{}, Other: map[string][]byte{},
		},
		o: o, shard: Shard(o.Host),
	}
	hash := sha1.New()
	for _, s := range sources {
		root, err := newSource(s.Name, s.Text).parse()
		if err != nil {
			return nil, err
		}
		sum := sha1.Sum(s.Text)
		hash.Write([]byte(hex.EncodeToString(sum[:])))
		if err := b.root(root); err != nil {
			return nil, err
		}
	}
	c := b.config
	c.Hash = hex.EncodeToString(hash.Sum(nil))
	slices.SortFunc(c.Schedule, func(x, y Query) int { return strings.Compare(x.Name, y.Name) })
	slices.SortFunc(c.Views, func(x, y View) int { return strings.Compare(x.Name, y.Name) })
	slices.SortFunc(c.Tables, func(x, y Table) int { return strings.Compare(x.Name, y.Name) })
	slices.SortFunc(c.Decorators.Interval, func(x, y IntervalDecorator) int { return int(x.Seconds) - int(y.Seconds) })
	return c, nil
}

// With returns the flags with options in force, which win over the command line. remote says
// that they come from a server, which may not say where the agent writes.
func (f *Flags) With(options []Option, remote bool) (*Flags, []Problem) {
	out := &Flags{line: f.line, options: make(map[string]string, len(options))}
	var problems []Problem
	bad := func(o Option, format string, args ...any) {
		problems = append(problems, Problem{o.Where, fmt.Sprintf(format, args...)})
	}
	for _, o := range options {
		flag, ok := Known(o.Name)
		switch {
		case !ok && strings.HasPrefix(o.Name, "custom_"):
			out.options[o.Name] = o.Value
			continue
		case !ok:
			bad(o, "Cannot set unknown or invalid flag: %s", o.Name)
			continue
		case flag.CommandLine:
			bad(o, "The CLI only flag --%s set via config file will be ignored, please use a flagfile or pass it to the process at startup", o.Name)
			continue
		case remote && flag.Below:
			bad(o, "--%s is a path, which a server may not set: it is ignored", o.Name)
			continue
		}
		value, err := check(flag.Type, o.Value)
		if err != nil {
			bad(o, "option %s: %v", o.Name, err)
			continue
		}
		if flag.Alias != "" {
			out.options[flag.Alias] = value
		} else {
			out.options[o.Name] = value
		}
	}
	return out, problems
}

// PlatformHere reports whether an entry for a platform is for this one, in osquery's way:
// by the words in its text.
func PlatformHere(platform string) bool {
	if platform == "" || platform == "null" {
		return true
	}
	for _, word := range [...]string{"any", "all", "linux", "ubuntu", "centos", "posix"} {
		if strings.Contains(platform, word) {
			return true
		}
	}
	return false
}

// VersionAtLeast reports whether have is no older than least: numbers between dots are
// compared one by one.
func VersionAtLeast(least, have string) bool {
	if least == "" || least == "null" {
		return true
	}
	x, y := strings.Split(least, "."), strings.Split(have, ".")
	for i := range max(len(x), len(y)) {
		var a, b uint64
		if i < len(x) {
			a = leadingNumber(x[i])
		}
		if i < len(y) {
			b = leadingNumber(y[i])
		}
		if a != b {
			return a < b
		}
	}
	return true
}

func leadingNumber(s string) uint64 {
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, _ := strconv.ParseUint(s[:end], 10, 64)
	return n
}

// Shard is the share of hosts, of a hundred, that a host of this name belongs to.
func Shard(host string) uint64 {
	sum := sha1.Sum([]byte(host))
	return uint64(sum[0]) * 100 / 255
}
