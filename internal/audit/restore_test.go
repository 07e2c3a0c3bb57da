package audit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testJournal() *journal {
	j := &journal{boot: "0123", pid: 7, start: 99, settings: []setting{{"enabled", 0, 1}, {"backlog_wait_time", 15000, 0}}}
	for _, r := range plan(&Options{}, 7, false) {
		j.rules = append(j.rules, r.append(nil))
	}
	j.replaced = [][]byte{(&rule{list: listTask, action: actNever}).append(nil)}
	return j
}

func TestJournal(t *testing.T) {
	want := testJournal()
	want.path = filepath.Join(t.TempDir(), "a", "b", journalName)
	if j, err := readJournal(want.path); j != nil || err != nil {
		t.Errorf("before it is written: %v, %v", j, err)
	}
	for range 2 {
		if err := want.write(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readJournal(want.path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(journal{}, setting{})); d != "" {
		t.Error(d)
	}
	st, err := os.Stat(want.path)
	if err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if files, _ := os.ReadDir(filepath.Dir(want.path)); len(files) != 1 {
		t.Errorf("left beside it: %v", files)
	}
	for range 2 {
		if err := want.remove(); err != nil {
			t.Error(err)
		}
	}
}

func TestJournalMalformed(t *testing.T) {
	good := string(testJournal().text())
	foreign := rule{list: listExit, action: actAlways, fields: []field{{onKey, equal, 0, "auditd's"}}}
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "it has no end"},
		{"head", "goshawk audit journal 2\nend\n", `line 1 is "goshawk audit journal 2"`},
		{"cut", good[:len(good)-4], "it has no end"},
		{"goes on", good + "rule 00\n", "is \"rule 00\""},
		{"setting", strings.Replace(good, "set enabled 0 1", "set pid 0 1", 1), `line 4 is "set pid 0 1"`},
		{"twice", strings.Replace(good, "set enabled 0 1", "set enabled 0 1\nset enabled 0 1", 1), "line 5"},
		{"number", strings.Replace(good, "process 7 99", "process 7 -1", 1), "line 3"},
		{"another's rule", journalHead + "\nrule " + hexOf(foreign.append(nil)) + "\nend\n", "line 2"},
		{"nothing replaced", journalHead + "\nreplaced 00ff\nend\n", `line 2 is "replaced 00ff"`},
		{"no rule", journalHead + "\nrule 00ff\nend\n", `line 2 is "rule 00ff"`},
	} {
		if _, err := parseJournal([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var out strings.Builder
	for _, c := range b {
		out.WriteByte(digits[c>>4])
		out.WriteByte(digits[c&15])
	}
	return out.String()
}

func FuzzJournal(f *testing.F) {
	f.Add(testJournal().text())
	f.Add([]byte(journalHead + "\nboot x\nprocess 1 2\nset failure 2 1\nend\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := parseJournal(b)
		if err != nil {
			return
		}
		again, err := parseJournal(j.text())
		if err != nil {
			t.Fatalf("%v\n%s", err, j.text())
		}
		if d := cmp.Diff(j, again, cmp.AllowUnexported(journal{}, setting{})); d != "" {
			t.Error(d)
		}
	})
}
