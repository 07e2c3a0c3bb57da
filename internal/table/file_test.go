package table

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// stat(1) agrees about every kind of file.
func TestFileHere(t *testing.T) {
	dir := tree(t, map[string]string{
		"regular": "12345", "sub/": "", "link": "-> regular", "dangling": "-> nowhere", "todir": "-> sub",
	})
	if err := mkfifo(dir + "/fifo"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(dir+"/regular", 0o4751); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{
		"regular": "regular", "sub": "directory", "link": "regular", "todir": "directory",
		"dangling": "unknown", "fifo": "fifo",
	}
	r := fileTable(here())
	columns := []string{"inode", "uid", "gid", "size", "block_size", "atime", "mtime", "ctime", "btime", "hard_links"}
	for name, kind := range kinds {
		path := filepath.Join(dir, name)
		args := []string{"-c", "%i %u %g %s %o %X %Y %Z %W %h", path}
		if name != "dangling" {
			args = append([]string{"-L"}, args...)
		}
		out, err := exec.Command("stat", args...).Output()
		if err != nil {
			t.Fatal(err)
		}
		rows := scan(t, r, where(r, "path", path))
		if diff := cmp.Diff([][]string{strings.Fields(string(out))}, cells(r, rows, columns...)); diff != "" {
			t.Errorf("%s (-stat +ours): %s", name, diff)
		}
		link, target := "0", ""
		if to, err := os.Readlink(path); err == nil {
			link, target = "1", to
		}
		want := [][]string{{path, dir, name, kind, link, target, "0", ""}}
		got := cells(r, rows, "path", "directory", "filename", "type", "symlink", "symlink_target_path", "pid_with_namespace", "mount_namespace_id")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for path, want := range map[string][]string{
		dir + "/regular": {"4751", "regular", "0"},
		"/dev/null":      {"0666", "character", "259"}, // makedev(1, 3)
	} {
		if diff := cmp.Diff([][]string{want}, cells(r, scan(t, r, where(r, "path", path)), "mode", "type", "device")); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
}

// What a query names is spelled in the answer as in the query, or SQL would drop it.
func TestFileSpelling(t *testing.T) {
	dir := tree(t, map[string]string{"d/f": "", "d/.hidden": "", "d/sub/g": ""})
	r := fileTable(here())
	both := func(path, directory string) *schema.Query {
		return &schema.Query{Constraints: []schema.Constraint{equals(r, "path", path), equals(r, "directory", directory)}}
	}
	tests := []struct {
		name string
		q    *schema.Query
		want [][]string // path, directory, filename
	}{
		{"path", where(r, "path", dir+"/d/f"), [][]string{{"/d/f", "/d", "f"}}},
		{"doubled slash", where(r, "path", dir+"/d//f"), [][]string{{"/d//f", "/d", "f"}}},
		{"directory as a path", where(r, "path", dir+"/d/"), [][]string{{"/d/", "/d", "."}}},
		{"paths", where(r, "path", dir+"/d/f", dir+"/none", dir+"/d/f", dir+"/d/sub"), [][]string{{"/d/f", "/d", "f"}, {"/d/sub", "/d", "sub"}}},
		{"directory", where(r, "directory", dir+"/d"), [][]string{{"/d/.hidden", "/d", ".hidden"}, {"/d/f", "/d", "f"}, {"/d/sub", "/d", "sub"}}},
		{"directory with slash", where(r, "directory", dir+"/d/"), [][]string{{"/d/.hidden", "/d/", ".hidden"}, {"/d/f", "/d/", "f"}, {"/d/sub", "/d/", "sub"}}},
		{"no directory", where(r, "directory", dir+"/d/f"), nil},
		{"path and directory", both(dir+"/d/f", dir+"/d"), [][]string{{"/d/f", "/d", "f"}}},
		{"path and its directory with slash", both(dir+"/d/f", dir+"/d/"), [][]string{{"/d/f", "/d", "f"}, {"/d/f", "/d/", "f"}}},
		{"empty path", where(r, "path", ""), nil},
		{"NUL in path", where(r, "path", dir+"/d/f\x00x"), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := cells(r, scan(t, r, tt.q), "path", "directory", "filename")
			for _, row := range got {
				row[0], row[1] = strings.TrimPrefix(row[0], dir), strings.TrimPrefix(row[1], dir)
			}
			slices.SortFunc(got, slices.Compare)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFilePatterns(t *testing.T) {
	dir := tree(t, map[string]string{
		"a.conf":          "",
		"b.CONF":          "",
		"my_app/x":        "",
		"my-app/x":        "",
		".dot/x":          "",
		"deep/1/2/3":      "",
		"deep/1/2/.4":     "",
		"deep/link":       "-> 1",
		"deep/loop":       "-> ..",
		"bärchen":         "",
		"dangling":        "-> nowhere",
		"100%":            "",
		"star*":           "",
		"deep/dir.conf/x": "",
	})
	r := fileTable(here())
	tests := []struct {
		pattern string
		want    []string
	}{
		{"/%.conf", []string{"/a.conf", "/b.CONF"}},
		{"/%", []string{"/.dot/", "/100%", "/a.conf", "/b.CONF", "/bärchen", "/dangling", "/deep/", "/my-app/", "/my_app/", "/star*"}},
		{"/%/x", []string{"/.dot/x", "/my-app/x", "/my_app/x"}},
		{"/my_app/%", []string{"/my-app/x", "/my_app/x"}},
		{"/b_rchen", []string{"/bärchen"}},
		{"/b__rchen", nil},
		{"/star*", []string{"/star*"}},
		{"/a.conf", []string{"/a.conf"}},
		{"/none/%", nil},
		{"/a.conf/%", nil},
		{"/deep/%", []string{"/deep/1/", "/deep/dir.conf/", "/deep/link/", "/deep/loop/"}},
		{"/deep/%/", []string{"/deep/1/", "/deep/dir.conf/", "/deep/link/", "/deep/loop/"}},
		{"/deep/link/%", []string{"/deep/link/2/"}},
		{"/deep/%.conf", []string{"/deep/dir.conf"}},
		{"/deep/%%", []string{
			"/deep/1/", "/deep/1/2/", "/deep/1/2/.4", "/deep/1/2/3",
			"/deep/dir.conf/", "/deep/dir.conf/x", "/deep/link/", "/deep/loop/",
		}},
		{"/deep/1%%", []string{"/deep/1/", "/deep/1/2/", "/deep/1/2/.4", "/deep/1/2/3"}},
		{"/deep/%%/", []string{"/deep/1/", "/deep/1/2/", "/deep/dir.conf/", "/deep/link/", "/deep/loop/"}},
		{"/deep/%%/3", nil}, // in the middle %% is one level, as in osquery
		{"/deep/%%/%/3", []string{"/deep/1/2/3", "/deep/link/2/3"}},
		{"//my_app//x", []string{"/my-app/x", "/my_app/x"}},
	}
	for _, tt := range tests {
		t.Run(tt.pattern, func(t *testing.T) {
			var got []string
			for _, row := range cells(r, scan(t, r, whereLike(r, "path", dir+tt.pattern)), "path") {
				got = append(got, strings.TrimPrefix(row[0], dir))
			}
			slices.Sort(got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Directories found by a pattern are spelled with a slash, and so are their entries'
// directory columns, but not the entries' paths.
func TestFileDirectoryPatterns(t *testing.T) {
	dir := tree(t, map[string]string{"a/f": "", "b/g": "", "c": ""})
	r := fileTable(here())
	got := cells(r, scan(t, r, whereLike(r, "directory", dir+"/%")), "path", "directory")
	slices.SortFunc(got, slices.Compare)
	want := [][]string{{dir + "/a/f", dir + "/a/"}, {dir + "/b/g", dir + "/b/"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = cells(r, scan(t, r, whereLike(r, "directory", dir+"/_")), "path", "directory")
	slices.SortFunc(got, slices.Compare)
	want = [][]string{{dir + "/a/f", dir + "/a"}, {dir + "/b/g", dir + "/b"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Without a constraint that names files there is nothing to scan but the whole machine.
func TestFileNeedsConstraint(t *testing.T) {
	for _, r := range []schema.Relation{fileTable(here()), hashTable(here())} {
		for _, q := range []*schema.Query{
			whereAll(),
			{Constraints: []schema.Constraint{{Column: r.Def().Column("path"), Op: schema.Gt, Value: schema.TextValue("/etc")}}},
			{Constraints: []schema.Constraint{{Column: r.Def().Column("path"), Op: schema.Glob, Value: schema.TextValue("/etc/*")}}},
		} {
			if rows, err := tryScan(r, q); err == nil {
				t.Errorf("%s %+v: %d rows, want an error", r.Def().Name, q.Constraints, len(rows))
			}
		}
	}
}

// A scan finds files as it goes: LIMIT 1 over the whole machine is quick, and closing it
// gives all descriptors back.
func TestFileStreams(t *testing.T) {
	before := openDescriptors(t)
	r := fileTable(here())
	c, err := r.Open(context.Background(), whereLike(r, "path", "/%%"))
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if ok, err := c.Next(); !ok || err != nil {
			t.Fatalf("Next = %v, %v", ok, err)
		}
	}
	if openDescriptors(t) == before {
		t.Error("the scan holds no directory open; is it a stream?")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors are open after the scan, %d before", after, before)
	}
}

func TestFileStopsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	r := fileTable(here())
	c, err := r.Open(ctx, whereLike(r, "path", "/usr/%%"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if ok, err := c.Next(); !ok || err != nil {
		t.Fatalf("Next = %v, %v", ok, err)
	}
	cancel()
	if ok, err := c.Next(); ok || err != context.Canceled {
		t.Errorf("Next = %v, %v; want %v", ok, err, context.Canceled)
	}
}

// Directories that may not be read are one warning a scan, however many they are.
func TestFileRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives files to another user")
	}
	dir := tree(t, map[string]string{"open/f": "", "shut1/f": "", "shut2/f": ""})
	for _, d := range []string{"shut1", "shut2"} {
		if err := os.Chmod(filepath.Join(dir, d), 0); err != nil {
			t.Fatal(err)
		}
	}
	for up := dir; up != "/tmp" && up != "/"; up = filepath.Dir(up) {
		if err := os.Chmod(up, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r := fileTable(here())
	q := whereLike(r, "path", dir+"/%%")
	var warnings []string
	q.Warn = func(s string) { warnings = append(warnings, s) }
	runtime.LockOSThread() // the file system user is the thread's
	if err := unix.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	rows, err := tryScan(r, q)
	if err := errors.Join(unix.Setfsuid(0), unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)); err != nil {
		t.Fatal(err) // and let the thread end
	}
	runtime.UnlockOSThread()
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, row := range cells(r, rows, "path") {
		paths = append(paths, strings.TrimPrefix(row[0], dir))
	}
	slices.Sort(paths)
	if diff := cmp.Diff([]string{"/open/", "/open/f", "/shut1/", "/shut2/"}, paths); diff != "" {
		t.Error(diff)
	}
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], "Table file is incomplete: list ") {
		t.Errorf("warnings %q, want one", warnings)
	}
}

func TestFileBelowHostRoot(t *testing.T) {
	dir := tree(t, map[string]string{"etc/link": "-> /etc/real", "etc/real": "12", "out": "-> /../../proc/version"})
	r := fileTable(at(dir))
	got := cells(r, scan(t, r, whereLike(r, "path", "/etc/%")), "path", "size", "symlink")
	slices.SortFunc(got, slices.Compare)
	if diff := cmp.Diff([][]string{{"/etc/link", "2", "1"}, {"/etc/real", "2", "0"}}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]string{{"unknown"}}, cells(r, scan(t, r, where(r, "path", "/out")), "type")); diff != "" {
		t.Error(diff)
	}
}

func TestMatches(t *testing.T) {
	tests := []struct {
		part, name string
		want       bool
	}{
		{"%", "", true}, {"%", "x", true}, {"a%", "b", false}, {"%a", "ba", true}, {"%a", "ab", false},
		{"a%b%c", "a-b-b-c", true}, {"a%b%c", "a-c-b", false}, {"%%", "x", true}, {"_", "", false},
		{"_", "é", true}, {"__", "é", false}, {"a_c", "abc", true}, {"ABC%", "abcd", true}, {"É", "é", false},
		{"%x_", "axxy", true}, {"", "", true}, {"", "x", false}, {"_", "\xff", true}, {"%aab", "aaab", true},
	}
	for _, tt := range tests {
		if got := matches(tt.part, tt.name); got != tt.want {
			t.Errorf("matches(%q, %q) = %v", tt.part, tt.name, got)
		}
	}
}

func TestPathParts(t *testing.T) {
	for path, want := range map[string][2]string{
		"/etc/passwd": {"/etc", "passwd"}, "/etc/apt/": {"/etc/apt", "."}, "/etc": {"/", "etc"},
		"/": {"/", "/"}, "//": {"/", "/"}, "/etc//x": {"/etc", "x"}, "x": {"", "x"}, "": {"", "/"},
	} {
		if got := [2]string{parent(path), base(path)}; got != want {
			t.Errorf("%q: parent and base %q, want %q", path, got, want)
		}
	}
}

func FuzzMatches(f *testing.F) {
	f.Add("a%b_c", "axxbyc")
	f.Add("", "_\x8a")
	f.Fuzz(func(t *testing.T, part, name string) {
		// Anything matches itself between wildcards.
		if !matches("%"+name+"%", name) {
			t.Errorf("%%%q%% does not match it", name)
		}
		if matches(part, name) && !matches(part+"%", name) {
			t.Errorf("%q matches %q but not with %% after it", part, name)
		}
	})
}
