package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// With the capabilities that its unit leaves it, and no new privileges, the daemon attaches
// what it attaches with all of them.
func TestLiveUnitCapabilities(t *testing.T) {
	needRoot(t)
	text, err := os.ReadFile("../../packaging/goshawk.service")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.*)$`).FindStringSubmatch(string(text))
	if line == nil {
		t.Fatal("the unit bounds no capabilities")
	}
	set := "-all"
	for _, name := range strings.Fields(line[1]) {
		set += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
	}
	ready := regexp.MustCompile(`ready: (source=\S+ hooks=\S+)`)
	start := func(prefix ...string) string {
		t.Helper()
		args := append(prefix, "goshawk", "run", "--quiet", "--duration", "1s", "--root-dir", t.TempDir())
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		m := ready.FindSubmatch(out)
		if m == nil {
			t.Fatalf("%v: not ready:\n%s", args, out)
		}
		return string(m[1])
	}
	all := start()
	few := start("setpriv", "--no-new-privs", "--bounding-set="+set, "--inh-caps=-all")
	if all != few {
		t.Errorf("with all capabilities %s, with the unit's %s", all, few)
	}
}
