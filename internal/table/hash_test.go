package table

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// digestOf runs md5sum, sha1sum or sha256sum.
func digestOf(t *testing.T, program, path string) string {
	t.Helper()
	out, err := exec.Command(program, "--", path).Output()
	if err != nil {
		t.Fatalf("%s: %v", program, err)
	}
	word, _, _ := strings.Cut(string(out), " ")
	return word
}

func TestHashHere(t *testing.T) {
	dir := tree(t, map[string]string{"empty": "", "abc": "abc", "link": "-> abc", "sub/": ""})
	big := make([]byte, 300_001) // more than one buffer
	rand.Read(big)
	if err := os.WriteFile(dir+"/big", big, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := mkfifo(dir + "/fifo"); err != nil {
		t.Fatal(err)
	}
	r := hashTable(here())
	for _, name := range []string{"empty", "abc", "link", "big"} {
		path := filepath.Join(dir, name)
		want := [][]string{{path, dir, digestOf(t, "md5sum", path), digestOf(t, "sha1sum", path), digestOf(t, "sha256sum", path), "0", ""}}
		got := cells(r, scan(t, r, where(r, "path", path)), "path", "directory", "md5", "sha1", "sha256", "pid_with_namespace", "mount_namespace_id")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	abc := [][]string{{"a9993e364706816aba3e25717850c26c9cd0d89d"}} // FIPS 180-4's example
	if diff := cmp.Diff(abc, cells(r, scan(t, r, where(r, "path", dir+"/abc")), "sha1")); diff != "" {
		t.Error(diff)
	}
	// Of a directory only the regular files: no FIFO that would block, no directory.
	names := map[string]bool{}
	for _, row := range cells(r, scan(t, r, where(r, "directory", dir)), "path") {
		names[filepath.Base(row[0])] = true
	}
	if diff := cmp.Diff(map[string]bool{"empty": true, "abc": true, "link": true, "big": true}, names); diff != "" {
		t.Error(diff)
	}
	for _, path := range []string{dir + "/fifo", dir + "/sub", dir + "/none", "/dev/zero", "/dev/null"} {
		if rows := scan(t, r, where(r, "path", path)); len(rows) != 0 {
			t.Errorf("%s: %d rows, want none", path, len(rows))
		}
	}
}

// Files that the kernel makes up say that they are empty; their content is hashed all the
// same, and anew each time.
func TestHashOfProc(t *testing.T) {
	r := hashTable(here())
	want := digestOf(t, "sha256sum", "/proc/version")
	for range 2 {
		if diff := cmp.Diff([][]string{{want}}, cells(r, scan(t, r, where(r, "path", "/proc/version")), "sha256")); diff != "" {
			t.Error(diff)
		}
	}
	cache := cacheOf(r)
	if n := cache.order.Len(); n != 0 {
		t.Errorf("%d entries of /proc are remembered", n)
	}
}

func cacheOf(r schema.Relation) *hashCache {
	t := r.(*pathTable[*hashed])
	row, _ := t.row(&schema.Query{}, target{scope: &scope{root: root{ownRoot}}, path: "/proc/version"})
	defer t.drop(row)
	return &row.scan.cache
}

func TestHashReadMax(t *testing.T) {
	dir := tree(t, map[string]string{"five": "12345", "six": "123456"})
	env := here()
	env.ReadMax = 5
	r := hashTable(env)
	var warnings []string
	q := where(r, "path", dir+"/five", dir+"/six")
	q.Warn = func(s string) { warnings = append(warnings, s) }
	want := [][]string{{dir + "/five", "827ccb0eea8a706c4c34a16891f84e7b"}, {dir + "/six", ""}}
	if diff := cmp.Diff(want, cells(r, scan(t, r, q), "path", "md5")); diff != "" {
		t.Error(diff)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], dir+"/six") || !strings.Contains(warnings[0], "read_max") {
		t.Errorf("warnings %q, want one about six and read_max", warnings)
	}
	// A file of /proc does not say how large it is; it is cut off while it is read.
	if diff := cmp.Diff([][]string{{""}}, cells(r, scan(t, r, where(r, "path", "/proc/self/environ")), "md5")); diff != "" {
		t.Error(diff)
	}
}

// What is not asked for is not computed, and nothing is read for a row whose digests
// nobody looks at.
func TestHashIsLazy(t *testing.T) {
	dir := tree(t, map[string]string{"f": "x"})
	env := here()
	r := hashTable(env)
	q := where(r, "path", dir+"/f")
	q.Used = make([]bool, len(r.Def().Columns))
	q.Used[r.Def().Column("sha1")] = true
	c, err := r.Open(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if ok, err := c.Next(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	row := c.(*pathCursor[*hashed]).at
	if row.done {
		t.Error("the file was read before a digest was asked for")
	}
	if got, want := c.Value(r.Def().Column("sha1")).Text(), "11f6ad8ec52a2984abaafd7c3b516503785c2072"; got != want {
		t.Errorf("sha1 %q, want %q", got, want)
	}
	if row.known[digestMD5] != "" || row.known[digestSHA256] != "" {
		t.Errorf("computed what was not asked for: %q", row.known)
	}
}

// A changed file is never answered from memory, even when size and mtime are put back.
func TestHashCache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	r := hashTable(here())
	md5 := func() string { return cells(r, scan(t, r, where(r, "path", path)), "md5")[0][0] }
	old := time.Now().Add(-time.Hour)
	put := func(s string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	put("one")
	if got, want := md5(), "f97c5d29941bfb1b2fdab0874906ab82"; got != want {
		t.Errorf("one: %s, want %s", got, want)
	}
	put("two")
	if got, want := md5(), "b8a9f715dbb64fd5c56e7783c6820a61"; got != want {
		t.Errorf("two: %s, want %s", got, want)
	}
	cache := cacheOf(r)
	if n := cache.order.Len(); n != 0 {
		t.Errorf("%d entries remembered of a file that changed just now", n)
	}
	// An old file is remembered: the digest comes back without the file being read.
	var st unix.Stat_t
	if err := unix.Stat("/bin/true", &st); err != nil {
		t.Fatal(err)
	}
	fake := digests{"from memory", "from memory", "from memory"}
	path = "/bin/true"
	if got, want := md5(), digestOf(t, "md5sum", path); got != want {
		t.Errorf("true: %s, want %s", got, want)
	}
	if n := cache.order.Len(); n != 1 {
		t.Fatalf("%d entries, want 1", n)
	}
	cache.put(keyOf(&st), fake)
	if got := md5(); got != "from memory" {
		t.Errorf("true: %s, was read again", got)
	}
}

func TestHashCacheIsBounded(t *testing.T) {
	var c hashCache
	all := [digestCount]bool{true, true, true}
	for i := range hashCacheMax + 1 {
		c.put(fileKey{inode: uint64(i)}, digests{"a", "b", "c"})
		c.get(fileKey{inode: 0}, all) // keep the first in use
	}
	if c.order.Len() != hashCacheMax || len(c.byKey) != hashCacheMax {
		t.Errorf("%d entries, %d keys; want %d", c.order.Len(), len(c.byKey), hashCacheMax)
	}
	if _, ok := c.get(fileKey{inode: 0}, all); !ok {
		t.Error("the entry used last was dropped")
	}
	if _, ok := c.get(fileKey{inode: 1}, all); ok {
		t.Error("the entry not used longest was kept")
	}
	c.put(fileKey{inode: 7}, digests{digestMD5: "a"})
	if known, ok := c.get(fileKey{inode: 7}, all); ok || known[digestMD5] != "a" {
		t.Errorf("half known: %q, complete %v", known, ok)
	}
}
