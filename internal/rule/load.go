package rule

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
)

// maxFiles bounds the files of a directory of rules.
const maxFiles = 20_000

// Load reads every .yml and .yaml file in trees of files, and compiles what is in them. What
// cannot be used is in the set's problems; an error says that a tree could not be read.
// Names of files begin with prefixes[i].
func Load(trees []fs.FS, prefixes []string) (*Set, error) {
	var docs []*parsed
	var problems []Problem
	files := 0
	for i, tree := range trees {
		err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if base := path.Base(name); d.IsDir() && strings.HasPrefix(base, ".") && base != "." {
				return fs.SkipDir
			}
			if ext := path.Ext(name); d.IsDir() || ext != ".yml" && ext != ".yaml" {
				return nil
			}
			if files++; files > maxFiles {
				return fmt.Errorf("more than %d files", maxFiles)
			}
			shown := path.Join(prefixes[i], name)
			text, err := fs.ReadFile(tree, name)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // gone meanwhile
			}
			if err != nil {
				problems = append(problems, Problem{File: shown, Line: 1, Reason: err.Error()})
				return nil
			}
			d1, p := readDocuments(shown, text)
			docs, problems = append(docs, d1...), append(problems, p...)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read rules: %w", err)
		}
	}
	return compile(docs, problems), nil
}

// Parse compiles the rules of one text, which is called file where something is wrong.
func Parse(file string, text []byte) *Set { return compile(readDocuments(file, text)) }

func compile(docs []*parsed, problems []Problem) *Set {
	s := &Set{Problems: problems, of: map[*Rule][]*correlationRule{}}
	byName := make(map[string]*parsed)
	fail := func(p *parsed, line int, partly bool, format string, args ...any) {
		if line == 0 {
			line = p.Line
		}
		s.Problems = append(s.Problems, Problem{File: p.File, Line: line, Rule: p.Title, Reason: fmt.Sprintf(format, args...), Partly: partly})
	}
	var rules []*parsed
	for _, p := range docs {
		switch {
		case p.silence != nil:
			s.silences = append(s.silences, p.silence)
			continue
		case p.filter != nil:
			continue
		}
		if other := byName[p.ID]; other != nil {
			fail(p, 0, false, "id %q is already that of %s:%d", p.ID, other.File, other.Line)
			continue
		}
		byName[p.ID] = p
		rules = append(rules, p)
	}
	for _, p := range rules {
		if p.Name != "" && byName[p.Name] == nil {
			byName[p.Name] = p
		}
	}
	for _, p := range docs {
		if p.filter == nil {
			continue
		}
		used := false
		for _, r := range rules {
			if r.correlation == nil && r.named(p.filter) && p.source.within(r.source) {
				r.condition = all(r.condition, p.condition)
				used = true
			}
		}
		if !used {
			fail(p, 0, true, "the filter is for no rule that is here")
		}
	}
	for _, p := range rules {
		if p.correlation == nil {
			s.compileRule(p, fail)
		}
	}
	s.compileCorrelations(rules, byName, fail)
	// A correlation's rules speak through it, unless it says otherwise.
	for _, c := range s.correlations {
		if !byName[c.rule.ID].generate {
			for _, r := range c.members {
				r.silent = true
			}
		}
	}
	for _, p := range rules {
		if slices.Contains(s.Rules, &p.Rule) && p.throttle.every > 0 && p.correlation == nil {
			s.checkThrottle(p, fail)
		}
	}
	for _, p := range s.programs {
		if p != nil {
			if _, ok := p.byField["@destination_name"]; ok {
				s.wantsNames = true
			}
			p.finish()
		}
	}
	return s
}

type failing func(p *parsed, line int, partly bool, format string, args ...any)

func (s *Set) compileRule(p *parsed, fail failing) {
	c, reason := categoryOf(p.source)
	if reason != "" {
		fail(p, p.source.line, false, "%s", reason)
		return
	}
	p.Category = c.name
	// Fields that one kind lacks and another has are no problem.
	lacking := make(map[string]int)
	first := make(map[string]int)
	for _, id := range c.kinds {
		kind := event.ByID(id)
		if s.programs[id] == nil {
			s.programs[id] = newProgram(kind)
		}
		seen := make(map[string]bool)
		if s.programs[id].add(&p.Rule, p.condition, &c, func(t *test) {
			name := t.field
			if t.look == lookField {
				if _, ok := c.find(kind, t.field); ok {
					name = t.other
				}
			}
			if !seen[name] {
				seen[name] = true
				lacking[name]++
			}
			if first[name] == 0 {
				first[name] = t.line
			}
		}) {
			p.Kinds = append(p.Kinds, id)
		}
	}
	var nowhere []string
	line := 0
	for name, n := range lacking {
		if n == len(c.kinds) {
			nowhere = append(nowhere, fmt.Sprintf("%q", name))
			if line == 0 || first[name] < line {
				line = first[name]
			}
		}
	}
	slices.Sort(nowhere)
	switch {
	case len(p.Kinds) == 0 && len(nowhere) > 0:
		fail(p, line, false, "no event of category %s has field %s", c.name, strings.Join(nowhere, ", "))
		return
	case len(p.Kinds) == 0:
		fail(p, 0, false, "nothing that an event of category %s tells can make it true", c.name)
		return
	case len(nowhere) > 0:
		fail(p, line, true, "no event of category %s has field %s: what asks for it is false", c.name, strings.Join(nowhere, ", "))
	}
	s.Rules = append(s.Rules, &p.Rule)
}

// compileCorrelations resolves what correlations are over: rules, or other correlations.
func (s *Set) compileCorrelations(rules []*parsed, byName map[string]*parsed, fail failing) {
	used := make(map[*Rule]bool)
	for _, r := range s.Rules {
		used[r] = true
	}
	for again := true; again; {
		again = false
		for _, p := range rules {
			c := p.correlation
			if c == nil || used[&p.Rule] {
				continue
			}
			var members []*Rule
			for _, name := range c.names {
				if m := byName[name]; m != nil && used[&m.Rule] && !slices.Contains(members, &m.Rule) {
					members = append(members, &m.Rule)
				}
			}
			if len(members) < len(c.names) {
				continue
			}
			c.rule, c.members, c.index = &p.Rule, members, len(s.correlations)
			p.Category, p.Of = "correlation", c.names
			s.correlations = append(s.correlations, c)
			for _, m := range members {
				s.of[m] = append(s.of[m], c)
			}
			s.Rules = append(s.Rules, &p.Rule)
			used[&p.Rule], again = true, true
		}
	}
	for _, p := range rules {
		if c := p.correlation; c != nil && !used[&p.Rule] {
			missing := slices.IndexFunc(c.names, func(name string) bool { m := byName[name]; return m == nil || !used[&m.Rule] })
			if missing < 0 {
				fail(p, c.line, false, "the correlation names a rule twice")
				continue
			}
			fail(p, c.line, false, "rule %q, which the correlation is over, is not there or not used", c.names[missing])
		}
	}
}

// checkThrottle wants the fields by which alerts are alike to be there.
func (s *Set) checkThrottle(p *parsed, fail failing) {
	c, _ := categoryOf(p.source)
	for _, name := range p.throttle.by {
		for _, id := range p.Kinds {
			if _, ok := c.find(event.ByID(id), name); !ok {
				fail(p, p.throttle.line, true, "throttle by %q: events of kind %s have no such field", name, id)
			}
		}
	}
}

// fieldOf is a field of an event, as a rule calls it; false when it has none.
func (s *Set) fieldOf(r *Rule, e event.Event, name string, en *Engine) (string, bool) {
	kind := event.ByID(e.Head().Kind)
	if kind == nil || name == "" {
		return "", false
	}
	c := category{name: r.Category}
	for i := range categories {
		if categories[i].name == r.Category {
			c = categories[i]
		}
	}
	f, ok := c.find(kind, name)
	if !ok {
		return "", false
	}
	text, _ := f.text(en, nil, e)
	return text, text != ""
}
