// Package selection says which files file events are about: osquery's patterns, compiled
// so that asking about a path costs a walk over its names, however many patterns there are.
// A Set does not change; it knows names alone, and nothing of who asks or of what is on disk.
package selection

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Rule is a pattern under a category.
//
// A pattern is an absolute path in which % and * stand for any text within one name, ? for
// one character, [a-z] for one of a set, {a,b} for either, and %% or ** for everything below,
// at any depth; in the middle they stand for any number of directories. A pattern that
// names a directory, with or without a slash at its end, is also about what is right in it.
type Rule struct{ Category, Pattern string }

// Options of Compile.
type Options struct {
	Watch   []Rule
	Exclude []Rule // what Watch names and these do too is left out, whatever the category
	// Accesses are the categories of which files merely opened are told, too.
	Accesses []string
	// Resolve returns the path that a path without wildcards leads to when symbolic links
	// in it are followed, as far as it exists. Both are watched: the kernel tells of the
	// latter, and of links themselves by the former. Nil: none is followed.
	Resolve func(string) string
}

// Bounds of what a configuration may ask for.
const (
	maxPattern  = 4096
	maxBraces   = 4096
	maxWildcard = 64 // parts of one pattern that have a wildcard
)

// Set is a compiled selection. The nil Set selects nothing.
type Set struct {
	watch, exclude node
	prefixes       []Prefix
	accesses       bool
	rules          int
}

// Match is what a Set knows of a file that it selects.
type Match struct {
	Category string
	Accesses bool
}

// Prefix is a directory, or the beginning of a path, that patterns start with.
type Prefix struct {
	Path string // whole names, without a slash at the end but for the root
	// Whole says that all below, and nothing else, is meant; of an exclusion alone.
	Whole, Exclude bool
	// Depth is how many names below Path what is selected may have; 0 is any number.
	Depth int
}

// node is a place between two names of patterns.
type node struct {
	names map[string]*node
	globs []glob
	any   *node  // after **, which may also stand for nothing
	loop  bool   // the node after **: stays where it is at any name
	ends  *Match // a pattern ends here
	below *Match // a pattern ends in ** here: all below is meant
}

type glob struct {
	pattern string
	next    *node
}

// Compile compiles a selection. Patterns that make no sense are left out, each with an error
// that says why.
func Compile(o Options) (*Set, []error) {
	s := &Set{}
	var problems []error
	add := func(root *node, r Rule, exclude bool) {
		patterns, err := expand(r.Pattern)
		if err != nil {
			problems = append(problems, fmt.Errorf("category %q: pattern %q: %w", r.Category, r.Pattern, err))
			return
		}
		m := &Match{Category: r.Category, Accesses: slices.Contains(o.Accesses, r.Category)}
		s.accesses = s.accesses || m.Accesses && !exclude
		for _, p := range patterns {
			for _, p := range resolved(p, o.Resolve) {
				root.add(p, m, !exclude)
				s.prefixes = append(s.prefixes, prefixOf(p, exclude))
				s.rules++
			}
		}
	}
	for _, r := range o.Watch {
		add(&s.watch, r, false)
	}
	for _, r := range o.Exclude {
		add(&s.exclude, r, true)
	}
	slices.SortFunc(s.prefixes, func(a, b Prefix) int { return strings.Compare(a.Path, b.Path) })
	s.prefixes = compact(s.prefixes)
	return s, problems
}

// compact leaves one of the prefixes that differ in depth alone: the deepest.
func compact(sorted []Prefix) []Prefix {
	var out []Prefix
next:
	for _, p := range sorted {
		for i := len(out) - 1; i >= 0 && out[i].Path == p.Path; i-- {
			if q := &out[i]; q.Exclude == p.Exclude && q.Whole == p.Whole {
				if q.Depth < p.Depth && q.Depth != 0 || p.Depth == 0 {
					q.Depth = p.Depth
				}
				continue next
			}
		}
		out = append(out, p)
	}
	return out
}

// expand checks a pattern, and replaces its braces and osquery's wildcards.
func expand(pattern string) ([]string, error) {
	switch {
	case !strings.HasPrefix(pattern, "/"):
		return nil, errors.New("it does not begin with a slash")
	case len(pattern) > maxPattern:
		return nil, fmt.Errorf("it has more than %d bytes", maxPattern)
	case strings.ContainsRune(pattern, 0):
		return nil, errors.New("it holds a zero byte")
	}
	list, err := braces(strings.ReplaceAll(pattern, "%", "*"))
	if err != nil {
		return nil, err
	}
	for i, p := range list {
		wild := 0
		for _, name := range strings.Split(p, "/") {
			if name == ".." {
				return nil, errors.New(`it has a ".." in it`)
			}
			if hasWildcard(name) {
				wild++
			}
			if _, err := path.Match(name, ""); err != nil {
				return nil, err
			}
		}
		if wild > maxWildcard {
			return nil, fmt.Errorf("more than %d parts have wildcards", maxWildcard)
		}
		clean := path.Clean(p)
		if strings.HasSuffix(p, "/") && clean != "/" {
			clean += "/"
		}
		list[i] = clean
	}
	return list, nil
}

// braces expands {a,b}, also nested (glob(3), GLOB_BRACE).
func braces(p string) ([]string, error) {
	out := []string{p}
	for i := 0; i < len(out); {
		open := -1
		var from, depth int
		var parts []string
		end := -1
		for at := 0; at < len(out[i]) && end < 0; at++ {
			switch out[i][at] {
			case '\\':
				at++
			case '{':
				if depth++; depth == 1 {
					open, from = at, at+1
				}
			case ',':
				if depth == 1 {
					parts, from = append(parts, out[i][from:at]), at+1
				}
			case '}':
				if depth == 1 {
					parts, end = append(parts, out[i][from:at]), at
				}
				if depth > 0 {
					depth--
				}
			}
		}
		switch {
		case open >= 0 && end < 0:
			return nil, errors.New("a brace is not closed")
		case open < 0:
			i++
			continue
		}
		var next []string
		for _, part := range parts {
			next = append(next, out[i][:open]+part+out[i][end+1:])
		}
		if out = slices.Replace(out, i, i+1, next...); len(out) > maxBraces {
			return nil, fmt.Errorf("its braces stand for more than %d patterns", maxBraces)
		}
	}
	return out, nil
}

func hasWildcard(name string) bool { return strings.ContainsAny(name, `*?[\`) }

// literal is the beginning of a pattern without wildcards: whole names.
func literal(pattern string) string {
	at := 0
	for at < len(pattern) {
		end := strings.IndexByte(pattern[at+1:], '/')
		next := len(pattern)
		if end >= 0 {
			next = at + 1 + end
		}
		if hasWildcard(pattern[at:next]) {
			break
		}
		at = next
	}
	if at == 0 {
		return "/"
	}
	return pattern[:at]
}

// resolved is a pattern, and the one that it becomes when links are followed.
func resolved(pattern string, resolve func(string) string) []string {
	if resolve == nil {
		return []string{pattern}
	}
	begin := literal(pattern)
	rest := strings.TrimPrefix(pattern, begin)
	if begin == "/" {
		return []string{pattern}
	}
	plain := strings.TrimSuffix(begin, "/")
	to := resolve(plain)
	if to == "" || to == plain || !strings.HasPrefix(to, "/") {
		return []string{pattern}
	}
	if plain != begin {
		to += "/"
	}
	out := []string{pattern, to + rest}
	if dir := path.Dir(plain); dir != "/" { // the link itself, in the directory that is really meant
		if real := resolve(dir); real != "" && real != dir {
			out = append(out, path.Join(real, path.Base(plain))+strings.TrimPrefix(begin, plain)+rest)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// prefixOf is what a pattern begins with, without wildcards.
func prefixOf(pattern string, exclude bool) Prefix {
	begin := literal(pattern)
	rest := strings.TrimPrefix(pattern, begin)
	if len(begin) > 1 {
		begin = strings.TrimSuffix(begin, "/")
	}
	rest = strings.TrimPrefix(rest, "/")
	p := Prefix{Path: begin, Exclude: exclude, Whole: exclude && rest == "**"}
	switch {
	case strings.Contains(rest, "**"):
	case rest == "":
		p.Depth = 1 // what is right in it
	default:
		p.Depth = strings.Count(strings.TrimSuffix(rest, "/"), "/") + 2
	}
	return p
}

// add adds a pattern. One without a wildcard at its end is also about what is right in it,
// when inside says so.
func (n *node) add(pattern string, m *Match, inside bool) {
	names := strings.Split(strings.Trim(pattern, "/"), "/")
	at := n
	for i, name := range names {
		last := i == len(names)-1
		switch {
		case name == "":
		case name == "**" && last:
			if at.below == nil {
				at.below = m
			}
			return
		case name == "**":
			if at.any == nil {
				at.any = &node{loop: true}
			}
			at = at.any
		case last && strings.HasSuffix(name, "**"): // and all below what it matches
			at = at.glob(strings.TrimRight(name, "*") + "*")
			if at.below == nil {
				at.below = m
			}
		case hasWildcard(name):
			at = at.glob(name)
		default:
			if at.names == nil {
				at.names = map[string]*node{}
			}
			next := at.names[name]
			if next == nil {
				next = &node{}
				at.names[name] = next
			}
			at = next
		}
	}
	if at.ends == nil {
		at.ends = m
	}
	if inside && !hasWildcard(names[len(names)-1]) {
		if in := at.glob("*"); in.ends == nil {
			in.ends = m
		}
	}
}

func (n *node) glob(pattern string) *node {
	for _, g := range n.globs {
		if g.pattern == pattern {
			return g.next
		}
	}
	next := &node{}
	n.globs = append(n.globs, glob{pattern, next})
	return next
}

// find looks for a pattern that the names of rest match; rest has no slash at its ends. It
// goes through the names once, at all the places at once that patterns can be at.
func (n *node) find(rest string) *Match {
	var room [2][16]*node
	at, turn := enter(room[0][:0], n), 0
	for rest != "" {
		for _, n := range at {
			if n.below != nil {
				return n.below
			}
		}
		if at, rest, turn = step(at, rest, &room, turn); len(at) == 0 {
			return nil
		}
	}
	for _, n := range at {
		if n.ends != nil {
			return n.ends
		}
	}
	return nil
}

// step goes from places over the next name.
func step(at []*node, rest string, room *[2][16]*node, turn int) (to []*node, after string, other int) {
	name, after, _ := strings.Cut(rest, "/")
	turn ^= 1
	to = room[turn][:0]
	for _, n := range at {
		if next := n.names[name]; next != nil {
			to = enter(to, next)
		}
		for _, g := range n.globs {
			if g.pattern == "*" {
				to = enter(to, g.next)
			} else if ok, err := path.Match(g.pattern, name); ok && err == nil {
				to = enter(to, g.next)
			}
		}
		if n.loop {
			to = enter(to, n)
		}
	}
	return to, after, turn
}

// enter adds a place, and the one after a ** that may stand for nothing.
func enter(at []*node, n *node) []*node {
	for ; n != nil; n = n.any {
		if slices.Contains(at, n) {
			break
		}
		at = append(at, n)
	}
	return at
}

// Match reports whether a file is selected. Its path is absolute and clean, as the kernel
// gives it.
func (s *Set) Match(name string) (Match, bool) {
	if s == nil || name == "" || name[0] != '/' {
		return Match{}, false
	}
	rest := strings.Trim(name, "/")
	m := s.watch.find(rest)
	if m == nil || s.exclude.find(rest) != nil {
		return Match{}, false
	}
	return *m, true
}

// Inside reports whether something right in a directory may be selected, or was at least
// named; it is never wrong when it says no.
func (s *Set) Inside(dir string) bool {
	if s == nil {
		return false
	}
	var room [2][16]*node
	at, turn := enter(room[0][:0], &s.watch), 0
	for rest := strings.Trim(dir, "/"); rest != ""; {
		if at, rest, turn = step(at, rest, &room, turn); len(at) == 0 {
			return false
		}
		for _, n := range at {
			if n.below != nil {
				return true
			}
		}
	}
	return slices.ContainsFunc(at, func(n *node) bool {
		return n.below != nil || n.loop || len(n.names)+len(n.globs) > 0
	})
}

// Empty reports whether nothing is selected.
func (s *Set) Empty() bool { return s == nil || s.watch.empty() }

func (n *node) empty() bool {
	return n.names == nil && n.globs == nil && n.any == nil && n.ends == nil && n.below == nil
}

// Accesses reports whether files that are merely opened are wanted of some category.
func (s *Set) Accesses() bool { return s != nil && s.accesses }

// Rules is how many patterns there are, after braces and links.
func (s *Set) Rules() int {
	if s == nil {
		return 0
	}
	return s.rules
}

// Prefixes are what the patterns begin with, in order, each once: whatever is selected
// begins with one that is no exclusion.
func (s *Set) Prefixes() []Prefix {
	if s == nil {
		return nil
	}
	return s.prefixes
}

// Touches reports whether something at dir or below it may be selected.
func (s *Set) Touches(dir string) bool {
	for _, p := range s.Prefixes() {
		if !p.Exclude && (Within(p.Path, dir) || Within(dir, p.Path)) {
			return true
		}
	}
	return false
}

// Within reports whether name is dir or below it; both are clean.
func Within(name, dir string) bool {
	if dir == "/" || name == dir {
		return true
	}
	return len(name) > len(dir) && name[len(dir)] == '/' && name[:len(dir)] == dir
}
