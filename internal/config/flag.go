// Package config is what the daemon is told: osquery's flags, from the command line, flag
// files and the configuration's options, and osquery's configuration itself, read once
// into one struct and checked.
//
// Errors name the file, line and column. The package reads files and nothing else: it must
// never know what a query means, who runs it, or where a server is.
package config

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Flag is what is known of a flag without its value.
type Flag struct {
	Name        string
	Type        string // bool, string, int32, uint32, uint64: gflags' names
	Description string // one phrase, no full stop
	Default     string

	// Alias names the flag whose value this one has, being an older name of it.
	Alias string
	// CommandLine flags cannot be set by a configuration's options: osquery warns and
	// ignores them there.
	CommandLine bool
	// Hidden flags are not in osquery's help.
	Hidden bool
	// Used flags mean something here. The others are accepted, for configurations in the
	// field set them.
	Used bool
	// Below says that the default is a path below root_dir.
	Below bool
}

// Known returns the flag of that name.
func Known(name string) (Flag, bool) {
	for _, list := range [...][]Flag{knownFlags, ownFlags} {
		for _, f := range list {
			if f.Name == name {
				return f, true
			}
		}
	}
	return Flag{}, false
}

// All returns every flag, by name.
func All() []Flag {
	all := slices.Concat(knownFlags, ownFlags)
	slices.SortFunc(all, func(a, b Flag) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Problem is something wrong in what the daemon was told that does not keep it from
// running.
type Problem struct {
	Where string // file:line:column, "command line"; may be empty
	Text  string
}

func (p Problem) String() string {
	if p.Where == "" {
		return p.Text
	}
	return p.Where + ": " + p.Text
}

// Flags are the values in force. They do not change: With makes others.
type Flags struct {
	line    map[string]string // from the command line and flag files, by the name that is no alias
	options map[string]string // from the configuration, which win
}

// Defaults are the flags when none is given.
func Defaults() *Flags { return &Flags{} }

// Text returns a flag's value as text, "" when no flag has that name.
func (f *Flags) Text(name string) string {
	flag, ok := Known(name)
	if !ok {
		return f.options[name] // custom_*
	}
	if flag.Alias != "" {
		name = flag.Alias
	}
	if v, ok := f.options[name]; ok {
		return v
	}
	if v, ok := f.line[name]; ok {
		return v
	}
	if flag.Below {
		return path.Join(f.root(), flag.Default)
	}
	return flag.Default
}

func (f *Flags) root() string { return cmp.Or(f.line["root_dir"], "/") }

// String returns the value of a flag of text.
func (f *Flags) String(name string) string { return f.typed(name, "string") }

// Bool returns the value of a flag that is true or false.
func (f *Flags) Bool(name string) bool {
	b, _ := parseBool(f.typed(name, "bool"))
	return b
}

// Int returns the value of a flag that is a number.
func (f *Flags) Int(name string) int64 {
	n, _ := strconv.ParseInt(f.typed(name, "int32", "uint32", "uint64"), 0, 64)
	return n
}

// Seconds returns the value of a flag that is a number of seconds.
func (f *Flags) Seconds(name string) time.Duration {
	const most = int64(1<<63-1) / int64(time.Second)
	return time.Duration(min(f.Int(name), most)) * time.Second
}

// typed returns the value of a flag that has one of these types.
func (f *Flags) typed(name string, types ...string) string {
	if flag, ok := Known(name); !ok || !slices.Contains(types, flag.Type) {
		panic(fmt.Sprintf("BUG: flag %q is no %s", name, strings.Join(types, " or ")))
	}
	return f.Text(name)
}

// Given reports whether a flag was given, by whatever way.
func (f *Flags) Given(name string) bool {
	if flag, ok := Known(name); ok && flag.Alias != "" {
		name = flag.Alias
	}
	_, line := f.line[name]
	_, option := f.options[name]
	return line || option
}

// Custom are the options that begin with custom_, by name: osquery keeps them for others
// to read.
func (f *Flags) Custom() []string {
	var names []string
	for name := range f.options {
		if _, ok := Known(name); !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Idle returns the flags, by name, that were given another value than their default but
// mean nothing here.
func (f *Flags) Idle() []string {
	var names []string
	for _, flag := range All() {
		if !flag.Used && flag.Alias == "" && flag.Name != "utc" && f.Given(flag.Name) && f.Text(flag.Name) != flag.Default {
			names = append(names, flag.Name)
		}
	}
	return names
}

// check returns v in the form that a flag of type kind has.
func check(kind, v string) (string, error) {
	switch kind {
	case "string":
		return v, nil
	case "bool":
		b, ok := parseBool(v)
		if !ok {
			return "", fmt.Errorf("%q is neither true nor false", v)
		}
		return strconv.FormatBool(b), nil
	}
	bits := map[string]int{"int32": 32, "uint32": 32, "uint64": 64}[kind]
	v = strings.TrimSpace(v)
	base := 10
	digits := strings.TrimPrefix(strings.TrimPrefix(v, "0x"), "0X")
	if digits != v { // as in gflags, 010 is ten
		base = 16
	}
	if kind == "int32" {
		n, err := strconv.ParseInt(digits, base, bits)
		if err != nil {
			return "", fmt.Errorf("%q is no number of 32 bits", v)
		}
		return strconv.FormatInt(n, 10), nil
	}
	n, err := strconv.ParseUint(digits, base, bits)
	// Sizes and times are kept in 63 bits; what is beyond means as much as possible.
	if err != nil {
		return "", fmt.Errorf("%q is no number from 0 to %d", v, uint64(1)<<bits-1)
	}
	return strconv.FormatUint(min(n, 1<<63-1), 10), nil
}

// parseBool reads what gflags takes for true or false.
func parseBool(v string) (value, ok bool) {
	switch strings.ToLower(v) {
	case "1", "t", "true", "y", "yes":
		return true, true
	case "0", "f", "false", "n", "no":
		return false, true
	}
	return false, false
}
