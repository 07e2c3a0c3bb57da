package selection

import (
	"path"
	"slices"
	"strings"
)

// View is where a part of a file system is seen: what its directory Root holds is mounted at Path.
type View struct{ Root, Path string }

// Show is what a path from the root of the file system is in this view.
func (v *View) Show(name string) (string, bool) {
	switch {
	case !Within(name, v.Root):
		return "", false
	case v.Root == "/" && v.Path == "/":
		return name, true
	}
	rest := strings.TrimPrefix(name, strings.TrimSuffix(v.Root, "/"))
	return path.Join(v.Path, rest), true
}

// Views are all views of one file system, those of the largest parts first (Sort).
type Views []View

// Sort puts views into their order.
func (vs Views) Sort() {
	slices.SortStableFunc(vs, func(a, b View) int { return len(a.Root) - len(b.Root) })
}

// Match finds the view in which s selects a path from the root of the file system.
func (vs Views) Match(s *Set, name string) (string, Match, bool) {
	for i := range vs {
		if p, ok := vs[i].Show(name); ok {
			if m, ok := s.Match(p); ok {
				return p, m, true
			}
		}
	}
	return "", Match{}, false
}

// Inside reports whether s may select something right in a directory, as Set.Inside does.
func (vs Views) Inside(s *Set, dir string) bool {
	for i := range vs {
		if p, ok := vs[i].Show(dir); ok && s.Inside(p) {
			return true
		}
	}
	return false
}

// Seen is a path in the first view that shows it.
func (vs Views) Seen(name string) (string, bool) {
	for i := range vs {
		if p, ok := vs[i].Show(name); ok {
			return p, true
		}
	}
	return "", false
}

// Shown is Seen, and begins with .../ when no view shows it.
func (vs Views) Shown(name string) string {
	if p, ok := vs.Seen(name); ok {
		return p
	}
	return ".../" + strings.TrimPrefix(name, "/")
}
