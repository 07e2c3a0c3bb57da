package table

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rpmdb "github.com/knqyf263/go-rpmdb/pkg"
	"github.com/ncruces/go-sqlite3/driver"

	"github.com/goshawk-project/goshawk/internal/schema"
	engine "github.com/goshawk-project/goshawk/internal/sql"
)

// rpmFixture is a root directory with a database that go-rpmdb's own tests read, of a real
// system, and the path of that database.
func rpmFixture(t *testing.T, system string) (env *Env, database string) {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/knqyf263/go-rpmdb").Output()
	if err != nil {
		t.Fatalf("find go-rpmdb: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "pkg/testdata", system, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%s has the databases %q, %v", system, files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := "var/lib/rpm"
	if strings.HasPrefix(system, "fedora") || strings.HasPrefix(system, "sle") {
		dir = "usr/lib/sysimage/rpm"
	}
	name := dir + "/" + filepath.Base(files[0])
	root := tree(t, map[string]string{name: string(b)})
	env = at(root)
	env.SQLite = sqliteTable
	return env, filepath.Join(root, name)
}

func sqliteTable(query string, columns []string, path string) schema.Relation {
	return engine.NewFileTable("file", query, columns, func() ([]string, error) { return []string{path}, nil })
}

// Databases of every kind and byte order, by what another reader finds in them.
func TestRPMPackages(t *testing.T) {
	if !slices.Contains(sql.Drivers(), "sqlite") { // with -count
		sql.Register("sqlite", &driver.SQLite{})
	}
	for system, least := range map[string]int{
		"centos7-plain": 100, "ubi8-s390x": 100, // Berkeley DB; the second in the other byte order
		"sle15-bci": 30,  // ndb
		"fedora35":  100, // SQLite
	} {
		t.Run(system, func(t *testing.T) {
			t.Parallel()
			env, path := rpmFixture(t, system)
			db, err := rpmdb.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			list, err := db.ListPackages()
			if err != nil {
				t.Fatal(err)
			}
			var want, wantFiles []string
			for _, p := range list {
				epoch := "NULL"
				if p.Epoch != nil {
					epoch = fmt.Sprint(*p.Epoch)
				}
				want = append(want, fmt.Sprint([]string{p.Name, p.Version, p.Release, epoch, p.Arch, p.SourceRpm, p.Vendor, fmt.Sprint(p.Size), fmt.Sprint(p.InstallTime)}))
				files, err := p.InstalledFiles()
				if err != nil {
					t.Fatalf("files of %s: %v", p.Name, err)
				}
				for _, f := range files {
					digest := ""
					if p.DigestAlgorithm == rpmdb.PGPHASHALGO_SHA256 {
						digest = f.Digest
					}
					wantFiles = append(wantFiles, fmt.Sprint([]string{p.Name, filepath.Clean(f.Path), fmt.Sprintf("%04o", f.Mode&0o7777), fmt.Sprint(uint32(f.Size)), f.Username, f.Groupname, digest}))
				}
			}
			if len(want) < least {
				t.Fatalf("go-rpmdb finds %d packages", len(want))
			}
			r := rpmPackagesTable(env)
			var got []string
			for _, row := range cells(r, scan(t, r, &schema.Query{Warn: func(s string) { t.Error(s) }}), "name", "version", "release", "epoch", "arch", "source", "vendor", "size", "install_time") {
				got = append(got, fmt.Sprint(row))
			}
			compareSorted(t, want, got)
			f := rpmPackageFilesTable(env)
			got = nil
			for _, row := range cells(f, scan(t, f, whereAll()), "package", "path", "mode", "size", "username", "groupname", "sha256") {
				row[1] = filepath.Clean(row[1])
				got = append(got, fmt.Sprint(row))
			}
			compareSorted(t, wantFiles, got)
			if n := len(scan(t, f, where(f, "package", list[0].Name))); n == 0 && len(list[0].BaseNames) > 0 {
				t.Errorf("no files of %s alone", list[0].Name)
			}
		})
	}
}

func compareSorted(t *testing.T, want, got []string) {
	t.Helper()
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got): %.4000s", diff)
	}
}

// A database that is damaged, or made to harm, is a warning: what was read before it stays.
func TestRPMDamaged(t *testing.T) {
	env, path := rpmFixture(t, "libuuid")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(b []byte) []byte{
		"empty":     func([]byte) []byte { return nil },
		"cut":       func(b []byte) []byte { return b[:len(b)/2+100] },
		"zeroes":    func(b []byte) []byte { return make([]byte, len(b)) },
		"page size": func(b []byte) []byte { binary.LittleEndian.PutUint32(b[20:], 3); return b },
		"pages":     func(b []byte) []byte { binary.LittleEndian.PutUint32(b[32:], 1<<31); return b },
		"circle of pages": func(b []byte) []byte {
			for at := 4096; at < len(b); at += 4096 {
				if b[at+25] == 7 {
					binary.LittleEndian.PutUint32(b[at+16:], uint32(at/4096))
				}
			}
			return b
		},
	}
	for name, harm := range tests {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, harm(bytes.Clone(whole)), 0o600); err != nil {
				t.Fatal(err)
			}
			var warned []string
			q := &schema.Query{Warn: func(s string) { warned = append(warned, s) }}
			if _, err := tryScan(rpmPackagesTable(env), q); err != nil || len(warned) != 1 || !strings.Contains(warned[0], "/var/lib/rpm/Packages") {
				t.Errorf("%v, warnings %q", err, warned)
			}
		})
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := mkfifo(path); err != nil {
		t.Fatal(err)
	}
	if rows := scan(t, rpmPackagesTable(env), whereAll()); len(rows) != 0 {
		t.Errorf("%d rows of a FIFO", len(rows))
	}
}

func FuzzRPM(f *testing.F) {
	page := make([]byte, 1024)
	binary.LittleEndian.PutUint32(page[12:], 0x061561)
	binary.LittleEndian.PutUint32(page[20:], 512)
	binary.LittleEndian.PutUint32(page[32:], 1)
	page[512+25] = 13
	f.Add(page)
	f.Add(append([]byte("RpmP\x00\x00\x00\x00\x00\x00\x00\x00\x01"), make([]byte, 5000)...))
	f.Add([]byte("\x00\x00\x00\x01\x00\x00\x00\x05\x00\x00\x03\xe8\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x01name\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		add := func(blob []byte) error {
			h, err := parseRPMHeader(blob)
			if err != nil {
				return err
			}
			newRPMPackage(h)
			_ = eachRPMFile(h, func(*packageFile) error { return nil })
			return ctx.Err()
		}
		_ = readBerkeley(bytes.NewReader(b), add)
		_ = readNDB(bytes.NewReader(b), add)
		_ = add(b)
		if ctx.Err() != nil {
			t.Errorf("%d bytes take more than 20 s", len(b))
		}
	})
}
