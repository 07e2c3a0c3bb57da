package table

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The fixture was written by utmpdump -r of util-linux; /var/run leads to /run by an
// absolute link, as on Debian.
func TestLoggedInUsers(t *testing.T) {
	if utmpWide {
		t.Skip("the fixture is of an architecture with 32-bit times in utmp")
	}
	r := loggedInUsersTable(fixture(t, "debian-12"))
	want := [][]string{
		{"boot_time", "reboot", "~", "6.1.0-18-amd64", "1709366401", "0"},
		{"runlevel", "runlevel", "~", "6.1.0-18-amd64", "1709366409", "53"},
		{"login", "LOGIN", "tty1", "", "1709366410", "611"},
		{"user", "ada", "pts/0", "198.51.100.23", "1709371800", "1234"},
		{"dead", "", "pts/1", "", "1709372700", "1240"},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "type", "user", "tty", "host", "time", "pid")); diff != "" {
		t.Error(diff)
	}
}

func TestLoggedInUsersWithoutUtmp(t *testing.T) {
	if rows := scan(t, loggedInUsersTable(fixture(t, "centos-7")), whereAll()); len(rows) != 0 {
		t.Errorf("%d rows, want none", len(rows))
	}
}

func TestParseUtmpOfAarch64(t *testing.T) {
	b, err := os.ReadFile("testdata/aarch64.utmp")
	if err != nil {
		t.Fatal(err)
	}
	want := []*login{
		{kind: "user", user: "grace", tty: "pts/3", host: "2001:db8::7", time: 4102444800, pid: 4321, number: 7},
		{kind: "boot_time", user: "reboot", tty: "~", host: "5.15.0", time: 1700000000, number: 2},
	}
	if diff := cmp.Diff(want, parseUtmp(b, true), cmp.AllowUnexported(login{})); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseUtmp(f *testing.F) {
	for _, name := range []string{"testdata/aarch64.utmp", "testdata/debian-12/run/utmp"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := len(parseUtmp(b, false)), len(b)/384; got != want {
			t.Errorf("%d records, want %d", got, want)
		}
		if got, want := len(parseUtmp(b, true)), len(b)/400; got != want {
			t.Errorf("%d wide records, want %d", got, want)
		}
	})
}

func TestEtcHosts(t *testing.T) {
	r := etcHostsTable(fixture(t, "debian-12"))
	want := [][]string{
		{"127.0.0.1", "localhost", "0"},
		{"127.0.1.1", "tesla.example.org tesla", "0"},
		{"::1", "localhost ip6-localhost ip6-loopback", "0"},
		{"192.0.2.7", "", "0"},
		{"203.0.113.9", "short", "0"},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "address", "hostnames", "pid_with_namespace")); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseHosts(f *testing.F) {
	f.Add([]byte("127.0.0.1 a b # c\n#\n \x00 x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, h := range parseHosts(b) {
			if h.address == "" || len(h.address)+len(h.names) > len(b) {
				t.Errorf("odd entry %+v from %d bytes", h, len(b))
			}
		}
	})
}
