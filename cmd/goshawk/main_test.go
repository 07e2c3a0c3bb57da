package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"goshawk": main, "goshawk.ext": main, "nc": listenHere, "masquerade": masquerade})
}

// TestScripts runs the sessions in testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("ROOT", env.WorkDir+"/root")
			return nil
		},
		Condition: func(cond string) (bool, error) {
			return cond == "root" && os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exit": exitCommand},
	})
}

// exitCommand is "exit CODE COMMAND ARGS…": the command must end with that code, and say
// what it has to say on one line of standard error.
func exitCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit CODE COMMAND ARGS...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("%s ended with %s, want %s", strings.Join(args[1:], " "), got, args[0])
	}
	if said := ts.ReadFile("stderr"); args[0] != "0" && strings.Count(said, "\n") > 1 {
		ts.Fatalf("more than one line on standard error:\n%s", said)
	}
}

// TestHelp asks that every command's help has its four sections.
func TestHelp(t *testing.T) {
	for _, cmd := range append(newRoot().Commands(), newRoot()) {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" {
			continue
		}
		t.Run(cmd.Name(), func(t *testing.T) {
			args := []string{cmd.Name(), "--help"}
			if cmd.Name() == "goshawk" {
				args = args[1:]
			}
			var out, errOut bytes.Buffer
			if code := execute(args, strings.NewReader(""), &out, &errOut); code != 0 || errOut.Len() > 0 {
				t.Fatalf("exit %d, %s", code, errOut.String())
			}
			for _, section := range []string{"\n\nUsage:\n", "\n\nFlags:\n", "\n\nExit status:\n  0  done\n", "\n\nExamples:\n  goshawk "} {
				if !strings.Contains(out.String(), section) {
					t.Errorf("no section %q in:\n%s", section, out.String())
				}
			}
			for line := range strings.Lines(out.String()) {
				if strings.HasSuffix(line, " \n") || strings.HasSuffix(line, " .\n") {
					t.Errorf("line ends in a blank: %q", line)
				}
			}
		})
	}
}
