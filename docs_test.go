package goshawk

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the generated references (make docs)")

// binary builds goshawk for a test.
func binary(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "goshawk")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", name, "./cmd/goshawk")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build goshawk: %v\n%s", err, out)
	}
	return name
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, &stderr)
	}
	return string(out)
}

// TestReferences compares the generated parts of the documentation with what generates
// them; -update writes them.
func TestReferences(t *testing.T) {
	goshawk := binary(t)
	check(t, "docs/tables.md", tablesReference(t, output(t, goshawk, "tables", "--format", "json")))
	check(t, "docs/commands.md", commandsReference(t, goshawk))
	check(t, "docs/kernels.md", kernelsReference(t, read(t, kernelsFile)))
	costs, fileCosts := instructionCosts(t, read(t, instructionsFile))
	check(t, "docs/performance.md", within(t, read(t, "docs/performance.md"), instructionsBegin, costs, instructionsEnd))
	check(t, "docs/file-integrity.md", within(t, read(t, "docs/file-integrity.md"), instructionsBegin, fileCosts, instructionsEnd))
	check(t, "docs/detection.md", withSigma(t, read(t, "docs/detection.md"), goshawk))
	check(t, "README.md", withCosts(t, read(t, "README.md"), read(t, "docs/performance.md")))
}

// withSigma replaces the lists of rules that cannot be used: that of the forms that our own
// fixtures have, and, where GOSHAWK_SIGMA_DIR names a clone of SigmaHQ's rules, that of these.
func withSigma(t *testing.T, text, goshawk string) string {
	t.Helper()
	text = within(t, text, "<!-- forms: begin -->\n", unusedRules(t, goshawk, "internal/rule/testdata/sigma"), "<!-- forms: end -->")
	if dir := os.Getenv("GOSHAWK_SIGMA_DIR"); dir != "" {
		text = within(t, text, "<!-- sigma: begin -->\n", unusedRules(t, goshawk, dir), "<!-- sigma: end -->")
	}
	return text
}

// unusedRules says which rules below dir cannot be used, by reason.
func unusedRules(t *testing.T, goshawk, dir string) string {
	t.Helper()
	out, err := exec.Command(goshawk, "rules", "check", "--format", "json", dir).Output()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		t.Fatal(err)
	}
	var list struct {
		Rules    int
		Problems []struct {
			File   string
			Rule   string `json:"rule_name"`
			Reason string
			Partly bool
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	var reasons []string
	rules := map[string][]string{}
	n := 0
	for _, p := range list.Problems {
		reason := p.Reason
		if p.Partly {
			reason = "*in part:* " + reason
		} else {
			n++
		}
		if rules[reason] == nil {
			reasons = append(reasons, reason)
		}
		name, _ := strings.CutPrefix(p.File, strings.TrimSuffix(dir, "/")+"/")
		rules[reason] = append(rules[reason], fmt.Sprintf("%s (%s)", p.Rule, name))
	}
	slices.Sort(reasons)
	var b strings.Builder
	fmt.Fprintf(&b, "%d rules can be used, %d cannot.\n\n| reason | rules |\n|---|---|\n", list.Rules, n)
	cell := strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;")
	for _, r := range reasons {
		fmt.Fprintf(&b, "| %s | %s |\n", cell.Replace(r), cell.Replace(strings.Join(rules[r], ", ")))
	}
	return b.String()
}

// TestSigmaDirectory has the list made of a directory that GOSHAWK_SIGMA_DIR names.
func TestSigmaDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "rules/linux"), os.DirFS("internal/rule/testdata/sigma")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOSHAWK_SIGMA_DIR", dir+"/")
	goshawk := binary(t)
	const text = "a\n<!-- forms: begin -->\n<!-- forms: end -->\nb\n<!-- sigma: begin -->\nwhat was there\n<!-- sigma: end -->\nc\n"
	forms, rest, _ := strings.Cut(withSigma(t, text, goshawk), "b\n<!-- sigma")
	if strings.Contains(rest, "what was there") || !strings.HasSuffix(rest, "<!-- sigma: end -->\nc\n") {
		t.Errorf("the list is %s", rest)
	}
	const reason = "| service \"syslog\" writes a log, and goshawk reads no logs | Words of a log (%sunused.yml)"
	for got, at := range map[string]string{forms: "", rest: "rules/linux/"} {
		if !strings.Contains(got, fmt.Sprintf(reason, at)) {
			t.Errorf("not in the list: %s\n%s", fmt.Sprintf(reason, at), got)
		}
	}
}

func check(t *testing.T, name, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, read(t, name)); diff != "" {
		t.Errorf("%s is not what generates it (+ is the file): run `make docs`\n%s", name, diff)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil && !(*update && os.IsNotExist(err)) {
		t.Fatal(err)
	}
	return string(data)
}

const notice = "<!-- Written by `make docs`; edit what it describes, not this file. -->\n"

func tablesReference(t *testing.T, list string) string {
	type column struct {
		Name, Type, Description string
		Flags, Aliases          []string
	}
	var tables []struct {
		Name, Description string
		Events            bool
		Aliases           []string
		Columns           []column
	}
	if err := json.Unmarshal([]byte(list), &tables); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(notice + `# Tables

What ` + "`goshawk query`" + ` knows. Tables of events hold what happened and was kept; the others
show the host as it is when asked. Columns marked *hidden* are not part of ` + "`SELECT *`" + `. A
*required* column must have a condition in ` + "`WHERE`" + `; conditions on *index* columns make a
query cheaper, and those on *additional* columns change what it looks at.

`)
	for _, events := range []bool{true, false} {
		b.WriteString(map[bool]string{true: "Events: ", false: "Present state: "}[events])
		n := 0
		for _, x := range tables {
			if x.Events != events {
				continue
			}
			if n++; n > 1 {
				b.WriteString(",\n")
			}
			fmt.Fprintf(&b, "[%s](#%[1]s)", x.Name)
		}
		b.WriteString(".\n\n")
	}
	cell := strings.NewReplacer("|", `\|`, "\n", " ", "*", `\*`, "<", "&lt;")
	for _, x := range tables {
		fmt.Fprintf(&b, "## %s\n\n%s.", x.Name, cell.Replace(strings.TrimSuffix(x.Description, ".")))
		if len(x.Aliases) > 0 {
			fmt.Fprintf(&b, " Also called %s.", strings.Join(x.Aliases, ", "))
		}
		b.WriteString("\n\n| column | type | |\n|---|---|---|\n")
		for _, c := range x.Columns {
			text := cell.Replace(c.Description)
			if len(c.Aliases) > 0 {
				text += "; also called " + strings.Join(c.Aliases, ", ")
			}
			if len(c.Flags) > 0 {
				text += " (*" + strings.Join(c.Flags, ", ") + "*)"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", c.Name, c.Type, text)
		}
		b.WriteString("\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func commandsReference(t *testing.T, goshawk string) string {
	var b strings.Builder
	b.WriteString(notice + "# Commands\n\nWhat `--help` says.\n\n")
	for _, c := range append([]string{""}, subcommands(t, goshawk)...) {
		args := append(strings.Fields(c), "--help")
		fmt.Fprintf(&b, "## %s\n\n```text\n%s\n```\n\n", strings.TrimSpace("goshawk "+c), strings.TrimSpace(output(t, goshawk, args...)))
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// subcommands are those that goshawk's own help lists, and those below them: "rules check".
func subcommands(t *testing.T, goshawk string) []string {
	names := listed(t, goshawk)
	if len(names) == 0 {
		t.Fatal("goshawk --help lists no commands")
	}
	var all []string
	for _, name := range names {
		all = append(all, name)
		for _, below := range listed(t, goshawk, name) {
			all = append(all, name+" "+below)
		}
	}
	return all
}

// listed are the commands that the help of one lists.
func listed(t *testing.T, goshawk string, command ...string) []string {
	_, list, _ := strings.Cut(output(t, goshawk, append(command, "--help")...), "\nCommands:\n")
	var names []string
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if len(f) == 0 {
			break
		}
		names = append(names, f[0])
	}
	return names
}

// withCosts puts the short table of docs/performance.md into the README.
func withCosts(t *testing.T, readme, performance string) string {
	const begin, end = "<!-- costs: from docs/performance.md, by `make docs` -->\n", "<!-- end of costs -->\n"
	_, rest, ok := strings.Cut(performance, "<!-- in short -->\n")
	short, _, ok2 := strings.Cut(rest, "<!-- end -->\n")
	before, rest, ok3 := strings.Cut(readme, begin)
	_, after, ok4 := strings.Cut(rest, end)
	if !ok || !ok2 || !ok3 || !ok4 {
		t.Errorf("the marks round the costs in docs/performance.md or README.md are gone")
		return readme
	}
	return before + begin + short + end + after
}

// documents are the hand-written pages.
func documents(t *testing.T) map[string]string {
	names := []string{"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"}
	more, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]string{}
	for _, n := range append(names, more...) {
		if text := read(t, n); !strings.HasPrefix(text, notice) {
			pages[n] = text
		}
	}
	return pages
}

var block = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")

// TestDocumentedQueries runs every SQL block of the documentation, with goshawk query, on a
// host without an agent.
func TestDocumentedQueries(t *testing.T) {
	goshawk, root := binary(t), t.TempDir()
	n := 0
	for name, text := range documents(t) {
		for _, m := range block.FindAllStringSubmatch(text, -1) {
			if m[1] != "sql" {
				continue
			}
			n++
			cmd := exec.Command(goshawk, "query", "--root-dir", root, "--format", "json", m[2])
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s\n%s", name, err, out, m[2])
			}
		}
	}
	if n == 0 {
		t.Error("no document has an SQL block: the README should show one")
	}
}

// TestDocumentedCommands checks that the commands, flags, make targets and files that the
// documentation names are there.
func TestDocumentedCommands(t *testing.T) {
	goshawk := binary(t)
	help := map[string]string{}
	for _, c := range subcommands(t, goshawk) {
		help[c] = output(t, goshawk, append(strings.Fields(c), "--help")...)
	}
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(read(t, "Makefile"), -1) {
		targets[m[1]] = true
	}
	var (
		code   = regexp.MustCompile("(?s)```(?:sh|console)\n(.*?)```|`([^`\n]+)`")
		option = regexp.MustCompile(`--[a-z][a-z_-]*`)
		file   = regexp.MustCompile(`^(?:bpf|cmd|internal|docs|bench|testdata|kerneltest|\.ci)/[\w./-]*$`)
	)
	for name, text := range documents(t) {
		for _, m := range code.FindAllStringSubmatch(text, -1) {
			for line := range strings.Lines(m[1] + m[2]) {
				line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "sudo "))
				f := strings.Fields(line)
				switch {
				case len(f) == 1 && file.MatchString(f[0]) && !strings.Contains(f[0], "KIND"):
					if _, err := os.Stat(f[0]); err != nil {
						t.Errorf("%s names %s, which is not there", name, f[0])
					}
				case len(f) > 1 && f[0] == "make":
					if !targets[f[1]] {
						t.Errorf("%s: %q: the Makefile has no such target", name, line)
					}
				case len(f) > 1 && f[0] == "goshawk" && f[1] != "--help":
					command := f[1]
					if len(f) > 2 && help[f[1]+" "+f[2]] != "" {
						command += " " + f[2]
					}
					text, ok := help[command]
					if !ok {
						t.Errorf("%s: %q: goshawk has no such command", name, line)
						continue
					}
					for _, o := range option.FindAllString(line, -1) {
						if !strings.Contains(text, o) {
							t.Errorf("%s: %q: goshawk %s has no flag %s", name, line, command, o)
						}
					}
				}
			}
		}
	}
}

// TestArchitectureIsShort: a newcomer reads all of it, or none.
func TestArchitectureIsShort(t *testing.T) {
	if n := strings.Count(read(t, "ARCHITECTURE.md"), "\n"); n > 150 {
		t.Errorf("ARCHITECTURE.md has %d lines, 150 is the most", n)
	}
}

// TestGoVersion compares the Go release that documents ask for with go.mod's.
func TestGoVersion(t *testing.T) {
	m := regexp.MustCompile(`(?m)^go (1\.\d+)`).FindStringSubmatch(read(t, "go.mod"))
	if m == nil {
		t.Fatal("go.mod names no Go version")
	}
	var named []string
	for name, text := range documents(t) {
		for _, v := range regexp.MustCompile(`\bGo (1\.\d+)`).FindAllStringSubmatch(text, -1) {
			named = append(named, name)
			if v[1] != m[1] {
				t.Errorf("%s asks for Go %s, go.mod for %s", name, v[1], m[1])
			}
		}
	}
	if !slices.Contains(named, "README.md") {
		t.Error("README.md does not say which Go it needs")
	}
}
