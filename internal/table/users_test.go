package table

import (
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUsers(t *testing.T) {
	columns := []string{"uid", "gid", "uid_signed", "gid_signed", "username", "description", "directory", "shell", "uuid", "type", "pid_with_namespace", "is_hidden"}
	tests := []struct {
		fixture string
		where   []any
		want    [][]string
	}{
		{"debian-12", nil, [][]string{
			{"0", "0", "0", "0", "root", "root", "/root", "/bin/bash", "", "", "0", "NULL"},
			{"1", "1", "1", "1", "daemon", "daemon", "/usr/sbin", "/usr/sbin/nologin", "", "", "0", "NULL"},
			{"0", "0", "0", "0", "toor", "second root", "/root", "/bin/sh", "", "", "0", "NULL"},
			{"65534", "65534", "65534", "65534", "nobody", "nobody", "/nonexistent", "/usr/sbin/nologin", "", "", "0", "NULL"},
			{"1000", "1000", "1000", "1000", "ada", "Ada Lovelace,,,", "/home/ada", "/bin/zsh", "", "", "0", "NULL"},
			{"4294967294", "4294967294", "-2", "-2", "apple", "", "/var/empty", "/usr/bin/false", "", "", "0", "NULL"},
		}},
		{"debian-12", []any{0, 1000}, [][]string{
			{"0", "0", "0", "0", "root", "root", "/root", "/bin/bash", "", "", "0", "NULL"},
			{"0", "0", "0", "0", "toor", "second root", "/root", "/bin/sh", "", "", "0", "NULL"},
			{"1000", "1000", "1000", "1000", "ada", "Ada Lovelace,,,", "/home/ada", "/bin/zsh", "", "", "0", "NULL"},
		}},
		{"centos-7", nil, [][]string{
			{"0", "0", "0", "0", "root", "root", "/root", "/bin/bash", "", "", "0", "NULL"},
			{"999", "998", "999", "998", "polkitd", "User for polkitd", "/", "/sbin/nologin", "", "", "0", "NULL"},
		}},
		{"alpine-3.20-bare", nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.fixture, func(t *testing.T) {
			r := usersTable(fixture(t, tt.fixture))
			q := where(r, "uid", 0)
			if tt.where != nil {
				q = where(r, "uid", tt.where...)
			} else {
				q.Constraints = nil
			}
			if diff := cmp.Diff(tt.want, cells(r, scan(t, r, q), columns...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestGroups(t *testing.T) {
	for name, want := range map[string][][]string{
		"debian-12": {
			{"0", "0", "root", "0"}, {"1", "1", "daemon", "0"}, {"27", "27", "sudo", "0"}, {"65534", "65534", "nogroup", "0"},
			{"1000", "1000", "ada", "0"}, {"999", "999", "docker", "0"}, {"0", "0", "wheel", "0"},
		},
		"alpine-3.20-bare": nil,
	} {
		r := groupsTable(fixture(t, name))
		if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "gid", "gid_signed", "groupname", "pid_with_namespace")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	r := groupsTable(fixture(t, "debian-12"))
	if diff := cmp.Diff([][]string{{"root"}, {"wheel"}}, cells(r, scan(t, r, where(r, "gid", 0)), "groupname")); diff != "" {
		t.Errorf("gid 0: %s", diff)
	}
}

func TestUserGroups(t *testing.T) {
	r := userGroupsTable(fixture(t, "debian-12"))
	want := [][]string{
		{"0", "0"}, {"1", "1"}, {"65534", "65534"},
		{"1000", "1000"}, {"1000", "27"}, {"1000", "999"}, {"1000", "0"}, {"4294967294", "4294967294"},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "uid", "gid")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want[3:7], cells(r, scan(t, r, where(r, "uid", 1000)), "uid", "gid")); diff != "" {
		t.Error(diff)
	}
}

// What the C library lets log in must be listed, however oddly it is written.
func TestParseAccounts(t *testing.T) {
	tests := []struct {
		line string
		want []account
	}{
		{"a:x:1:2:d:h:s", []account{{name: "a", uid: 1, gid: 2, description: "d", home: "h", shell: "s"}}},
		{"short::0:0", []account{{name: "short"}}},
		{"  blank:x:0:0:::", []account{{name: "blank"}}},
		{"sign:x:+0: 7:::", []account{{name: "sign", gid: 7}}},
		{"minus:x:-1:-0:::", []account{{name: "minus", uid: math.MaxUint32}}},
		{"big:x:99999999999:1:::", []account{{name: "big", uid: math.MaxUint32, gid: 1}}},
		{"shell:x:1:1:::/bin/a:b", []account{{name: "shell", uid: 1, gid: 1, shell: "/bin/a:b"}}},
		{"crlf:x:1:1:::/bin/sh\r", []account{{name: "crlf", uid: 1, gid: 1, shell: "/bin/sh"}}},
		{"# comment:x:0:0:::", nil},
		{"+::::::", nil},
		{"+user:x:0:0:::", nil},
		{"-@netgroup:x:0:0:::", nil},
		{":x:0:0:::", nil},
		{"few:x:0", nil},
		{"noid:x::0:::", nil},
		{"hex:x:0x0:0:::", nil},
		{"", nil},
	}
	for _, tt := range tests {
		got := parseAccounts([]byte(tt.line + "\n"))
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(account{})); diff != "" {
			t.Errorf("%q: %s", tt.line, diff)
		}
	}
}

// The C library's own reading of this host's accounts agrees.
func TestUsersHere(t *testing.T) {
	for table, database := range map[string]string{"users": "passwd", "groups": "group"} {
		out, err := exec.Command("getent", "-s", "files", database).Output()
		if err != nil {
			t.Fatalf("getent %s: %v", database, err)
		}
		var want [][]string
		for line := range strings.Lines(string(out)) {
			f := strings.Split(strings.TrimSpace(line), ":")
			want = append(want, []string{f[0], f[2]})
		}
		r, name, id := usersTable(here()), "username", "uid"
		if table == "groups" {
			r, name, id = groupsTable(here()), "groupname", "gid"
		}
		if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), name, id)); diff != "" {
			t.Errorf("%s (-getent +ours): %s", table, diff)
		}
	}
}

// A FIFO in the place of /etc/passwd, as a container may have it, is refused at once.
func TestUsersHostile(t *testing.T) {
	dir := tree(t, map[string]string{"etc/": ""})
	if err := mkfifo(dir + "/etc/passwd"); err != nil {
		t.Fatal(err)
	}
	if rows, err := tryScan(usersTable(at(dir)), whereAll()); err == nil {
		t.Errorf("%d rows from a FIFO, want an error", len(rows))
	}
	if err := os.Remove(dir + "/etc/passwd"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", dir+"/etc/passwd"); err != nil {
		t.Fatal(err)
	}
	// The link leads to /dev/zero of that root, which has none.
	if rows, err := tryScan(usersTable(at(dir)), whereAll()); err != nil || len(rows) != 0 {
		t.Errorf("%d rows, %v; want none", len(rows), err)
	}
}

func FuzzParseAccounts(f *testing.F) {
	f.Add([]byte("root:x:0:0:root:/root:/bin/sh\n+::0\n\x00:::\n"))
	f.Add([]byte("wheel:x:10:a,b,,c\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		accounts, groups := parseAccounts(b), parseGroups(b)
		for _, a := range accounts {
			if a.name == "" || strings.ContainsAny(a.name, ":\n") {
				t.Errorf("odd name %q", a.name)
			}
		}
		for _, g := range groups {
			if g.name == "" || strings.ContainsAny(g.name, ":\n") {
				t.Errorf("odd name %q", g.name)
			}
		}
		all := memberships(accounts, groups, func(int64) bool { return true })
		seen := map[membership]bool{}
		for _, m := range all {
			if seen[*m] {
				t.Errorf("%+v twice", *m)
			}
			seen[*m] = true
		}
	})
}
