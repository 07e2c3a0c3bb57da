package table

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestExtendedAttributes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives a file capabilities")
	}
	dir := tree(t, map[string]string{"data/ping": "x", "data/plain": "y", "data/link": "-> ping"})
	file := filepath.Join(dir, "data/ping")
	for key, value := range map[string]string{
		"security.capability": "\x01\x00\x00\x02\x00\x30\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"trusted.text":        "hello\x00", "trusted.bytes": "\x00\xff\x01",
	} {
		if err := unix.Setxattr(file, key, []byte(value), 0); errors.Is(err, unix.EOPNOTSUPP) {
			t.Skipf("the kernel's file system here has no %s: %v", key, err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	r := extendedAttributesTable(at(dir))
	want := map[string][]string{
		"security.capability": {"cap_net_admin,cap_net_raw=ep", "0"}, "trusted.text": {"hello", "0"}, "trusted.bytes": {"AP8B", "1"},
	}
	for _, q := range []string{"directory", "path"} {
		name := map[string]string{"directory": "/data", "path": "/data/ping"}[q]
		got := map[string][]string{}
		for _, row := range cells(r, scan(t, r, where(r, q, name)), "path", "directory", "key", "value", "base64") {
			if row[0] != "/data/ping" || row[1] != "/data" {
				t.Errorf("%v", row)
			}
			got[row[2]] = row[3:]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("by %s: %s", q, diff)
		}
	}
	if _, err := tryScan(r, whereAll()); err == nil {
		t.Error("all files of the host were looked at")
	}
}

func FuzzFileCapabilities(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x02\x00\x30\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x00\x00\x03\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xe8\x03\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := &attribute{key: "security.capability"}
		a.setValue(b)
		if len(a.value) > 4*len(b)+2000 {
			t.Errorf("%d bytes of %d", len(a.value), len(b))
		}
	})
}
