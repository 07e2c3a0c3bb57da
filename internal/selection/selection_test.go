package selection

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func compile(t testing.TB, o Options) *Set {
	t.Helper()
	s, problems := Compile(o)
	for _, p := range problems {
		t.Error(p)
	}
	return s
}

func TestMatch(t *testing.T) {
	s := compile(t, Options{
		Watch: []Rule{
			{"etc", "/etc/%%"}, {"homes", "/home/%/.ssh/%%"}, {"keys", "/root/id_%"}, {"one", "/var/log/auth.log"},
			{"dir", "/srv/www/"}, {"stars", "/opt/*/bin/[a-c]?"}, {"braces", "/usr/{,local/}s{bin,hare}/%"},
			{"mid", "/data/**/secret/*.pem"}, {"begins", "/var/lib/app%%"}, {"all", "/mnt/x/**"}, {"percent", `/a/\*b/%`},
		},
		Exclude:  []Rule{{"etc", "/etc/mtab"}, {"x", "/etc/cache/%%"}, {"x", "/mnt/x/%/tmp/**"}},
		Accesses: []string{"homes"},
	})
	for name, want := range map[string]string{
		"/etc/passwd": "etc", "/etc/a/b/c": "etc", "/etc": "", "/etc2/x": "", "/": "",
		"/etc/mtab": "", "/etc/mtab2": "etc", "/etc/cache": "etc", "/etc/cache/x": "", "/etc/cache/x/y": "",
		"/home/u/.ssh/id": "homes", "/home/u/.ssh/d/k": "homes", "/home/u/.ssh": "", "/home/u/x/.ssh/id": "", "/home/.ssh/id": "",
		"/root/id_rsa": "keys", "/root/id_": "keys", "/root/d/id_rsa": "", "/root/xid_rsa": "",
		"/var/log/auth.log": "one", "/var/log/auth.log.1": "", "/var/log": "", "/var/log/auth.log/x": "one",
		"/srv/www": "dir", "/srv/www/index": "dir", "/srv/www/a/b": "", "/srv/www2": "",
		"/opt/x/bin/aZ": "stars", "/opt/x/bin/dZ": "", "/opt/x/bin/a": "", "/opt/x/y/bin/aZ": "",
		"/usr/sbin/x": "braces", "/usr/local/share/x": "braces", "/usr/bin/x": "", "/usr/local/sbin/x": "braces",
		"/data/secret/k.pem": "mid", "/data/a/b/secret/k.pem": "mid", "/data/a/b/secret/k.key": "", "/data/a/secret/b/k.pem": "",
		"/var/lib/apple": "begins", "/var/lib/app/x/y": "begins", "/var/lib/ap": "",
		"/mnt/x/a": "all", "/mnt/x/a/tmp": "all", "/mnt/x/a/tmp/z": "", "/mnt/x/a/b/tmp/z": "all",
		"/a/*b/c": "percent", "/a/xb/c": "", "relative": "", "": "",
	} {
		m, ok := s.Match(name)
		if m.Category != want || ok != (want != "") {
			t.Errorf("%s: category %q (%v), want %q", name, m.Category, ok, want)
		}
		if ok && m.Accesses != (want == "homes") {
			t.Errorf("%s: accesses %v", name, m.Accesses)
		}
	}
	if s.Empty() || !s.Accesses() {
		t.Error("the set is empty, or tells of no accesses")
	}
	for dir, want := range map[string]bool{"/": true, "/etc": true, "/etc/x/y": true, "/home": true, "/home/u": true, "/proc": false, "/mnt": true, "/usr": true, "/boot": false} {
		if s.Touches(dir) != want {
			t.Errorf("Touches(%s) = %v", dir, !want)
		}
	}
}

// TestInside: a directory of which nothing can be selected is known by its name alone.
func TestInside(t *testing.T) {
	s := compile(t, Options{Watch: []Rule{{"a", "/etc/%%"}, {"b", "/home/%/.ssh/id_%"}, {"c", "/var/log/auth.log"}, {"d", "/data/%%/x"}}})
	for dir, want := range map[string]bool{
		"/": true, "/etc": true, "/etc/a/b": true, "/home": true, "/home/u": true, "/home/u/.ssh": true, "/home/u/.ssh/d": false,
		"/home/u/src": false, "/var": true, "/var/log": true, "/var/lib": false, "/proc": false, "/data/q/r": true,
	} {
		if got := s.Inside(dir); got != want {
			t.Errorf("Inside(%s) = %v", dir, got)
		}
	}
}

func TestNothing(t *testing.T) {
	var none *Set
	if _, ok := none.Match("/etc/passwd"); ok || !none.Empty() || none.Accesses() || none.Rules() != 0 || none.Touches("/") {
		t.Error("no set selects something")
	}
	s := compile(t, Options{Exclude: []Rule{{"x", "/etc/%%"}}})
	if _, ok := s.Match("/etc/x"); ok || !s.Empty() || s.Touches("/etc") {
		t.Error("a set of exclusions selects something")
	}
}

// TestProblems: a pattern without a meaning is said to be one, and the others stay.
func TestProblems(t *testing.T) {
	for _, bad := range []string{"etc/%%", "", "/a/{b", "/a/[b", "/a/../b", "/a\x00", "/" + strings.Repeat("x", 5000),
		"/" + strings.Repeat("{a,b}", 20), strings.Repeat("/*", 100)} {
		s, problems := Compile(Options{Watch: []Rule{{"bad", bad}, {"good", "/good"}}})
		if len(problems) != 1 || !strings.Contains(problems[0].Error(), "bad") {
			t.Errorf("%.20q: %v", bad, problems)
		}
		if _, ok := s.Match("/good"); !ok {
			t.Errorf("%.20q: the good one is gone", bad)
		}
	}
}

// TestLinks: the kernel tells of the directory that a link leads to.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := os.MkdirAll(filepath.Join(real, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, l := range [][2]string{{real, link}, {filepath.Join(real, "file"), filepath.Join(real, "other")}} {
		if err := os.Symlink(l[0], l[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(real, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s := compile(t, Options{Watch: []Rule{{"deep", link + "/sub/%%"}, {"file", link + "/other"}}, Resolve: Resolve})
	for name, want := range map[string]bool{
		real + "/sub/x": true, link + "/sub/x": true, real + "/file": true, real + "/other": true, real + "/third": false,
	} {
		if _, ok := s.Match(name); ok != want {
			t.Errorf("%s: selected %v, want %v", name, ok, want)
		}
	}
	for name, want := range map[string]string{
		link + "/sub": real + "/sub", link + "/no/such": real + "/no/such", "/no/such": "/no/such", link + "/other": real + "/file",
	} {
		if got := Resolve(name); got != want {
			t.Errorf("Resolve(%s) = %s, want %s", name, got, want)
		}
	}
}

// TestMany: what many patterns cost, as a fact of their number and not of a clock.
func TestMany(t *testing.T) {
	var o Options
	for i := range 100_000 {
		o.Watch = append(o.Watch, Rule{"many", fmt.Sprintf("/srv/d%d/f%d", i/100, i)})
	}
	o.Exclude = []Rule{{"x", "/srv/d7/%%"}}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := compile(t, o)
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / 100_000
	t.Logf("%d bytes a pattern", per)
	if per > 700 {
		t.Errorf("a pattern takes %d bytes", per)
	}
	if _, ok := s.Match("/srv/d999/f99999"); !ok {
		t.Error("the last is not selected")
	}
	if _, ok := s.Match("/srv/d7/f700"); ok {
		t.Error("an excluded one is selected")
	}
	if n := testing.AllocsPerRun(100, func() { s.Match("/srv/d999/f99999"); s.Match("/home/user/src/project/file.go") }); n != 0 {
		t.Errorf("asking allocates %v times", n)
	}
}

func BenchmarkMatch(b *testing.B) {
	s := compile(b, Options{Watch: []Rule{{"etc", "/etc/%%"}, {"homes", "/home/%/.ssh/%%"}, {"bin", "/usr/{bin,sbin}/%"}}})
	for b.Loop() {
		s.Match("/home/user/src/project/internal/file.go")
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{"/etc/%%", "/a/{b,c{d,e}}/[x-y]?", "/**/x/**", `/a\`, "/{}", "/[", "//x//"} {
		f.Add(s, "/etc/a/b")
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		s, problems := Compile(Options{Watch: []Rule{{"c", pattern}}})
		if len(problems) == 0 && s.Empty() {
			t.Errorf("%q selects nothing, and nobody says so", pattern)
		}
		if _, ok := s.Match(name); ok && !slices.ContainsFunc(s.Prefixes(), func(p Prefix) bool {
			clean := filepath.Clean(name)
			below := strings.Count(strings.Trim(strings.TrimPrefix(clean, p.Path), "/"), "/") + 1
			return Within(clean, p.Path) && (p.Depth == 0 || below <= p.Depth || clean == p.Path)
		}) {
			t.Errorf("%q selects %q, which is deeper than %v say", pattern, name, s.Prefixes())
		}
		if _, ok := s.Match(name); ok && !s.Touches(name) {
			t.Errorf("%q selects %q, which is below none of %v", pattern, name, s.Prefixes())
		} else if ok && name != "/" && !s.Inside(filepath.Dir(filepath.Clean(name))) {
			t.Errorf("%q selects %q, and nothing in its directory", pattern, name)
		}
	})
}

func TestDepth(t *testing.T) {
	for pattern, want := range map[string]Prefix{
		"/etc/%%": {Path: "/etc"}, "/etc/passwd": {Path: "/etc/passwd", Depth: 1}, "/srv/www/": {Path: "/srv/www", Depth: 1},
		"/root/id_%": {Path: "/root", Depth: 2}, "/home/%/.ssh/%": {Path: "/home", Depth: 4}, "/home/%/.ssh/%%": {Path: "/home"}, "/%": {Path: "/", Depth: 2},
	} {
		if got := compile(t, Options{Watch: []Rule{{"c", pattern}}}).Prefixes(); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %v, want %v", pattern, got, want)
		}
	}
	s := compile(t, Options{Watch: []Rule{{"a", "/a/%"}, {"b", "/a/%/%/%"}, {"c", "/b/%%"}, {"d", "/b/%"}}, Exclude: []Rule{{"x", "/a/x%"}}})
	want := []Prefix{{Path: "/a", Depth: 4}, {Path: "/a", Depth: 2, Exclude: true}, {Path: "/b"}}
	if got := s.Prefixes(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
