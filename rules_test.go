// Package goshawk has no code: its tests are the rules of the whole house, each with the
// reason it is there.
package goshawk

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/goshawk-project/goshawk/"

// layers says which packages of ours each may import: dependencies point down only. A
// package that is not listed fails the test, so that its place is chosen on purpose.
var layers = []struct {
	name string
	may  []string
	why  string
}{
	{"bpf", nil, "it is generated from C, and decides nothing"},
	{"internal/schema", nil, "it is the leaf that all others stand on"},
	{"internal/event", []string{"internal/schema"}, "an event does not know where it comes from or goes to"},
	{"internal/procfs", nil, "it reads /proc and /sys for everybody, so it can know nobody"},
	{"internal/config", []string{"internal/event"}, "what the daemon is told does not depend on what it does with it"},
	{"internal/kernel", []string{"internal/procfs"}, "what a kernel can do does not depend on what we want of it"},
	{"internal/watchdog", []string{"internal/procfs"}, "it holds a worker to limits, whatever that does"},
	{"internal/selection", nil, "which files are meant does not depend on who asks"},
	{"internal/fanotify", []string{"internal/procfs", "internal/selection"}, "it tells what is done to files, and not what becomes of that"},
	{"internal/sensor", []string{"bpf", "internal/event", "internal/fanotify", "internal/procfs", "internal/selection"}, "sources know events and nothing above them: not the process table, the store or a rule"},
	{"internal/audit", []string{"internal/event", "internal/procfs"}, "sources know events and nothing above them: not the process table, the store or a rule"},
	{"internal/canary", []string{"internal/event", "internal/procfs"}, "it does things and looks whether they are told, whichever source tells and whoever carries it"},
	{"internal/process", []string{"internal/event", "internal/schema"}, "the process table completes events of any source, and reads no file"},
	{"internal/container", []string{"internal/event", "internal/procfs", "internal/schema"}, "containers complete events of any source; what asks their runtimes knows neither processes nor the store"},
	{"internal/content", []string{"internal/event"}, "it looks into files for whoever asks"},
	{"internal/rule", []string{"internal/event", "internal/schema"}, "a rule is over columns: it knows neither who tells of events nor where alerts go"},
	{"internal/store", []string{"internal/event", "internal/schema"}, "the store keeps events and knows neither SQL nor tables"},
	{"internal/table", []string{"internal/container", "internal/event", "internal/procfs", "internal/schema"}, "tables are read by SQL and by other tools; they reach events through event.Log"},
	{"internal/sql", []string{"internal/schema"}, "SQL scans relations, whatever is behind them"},
	{"internal/state", []string{"internal/event"}, "what is kept is kept whoever means what by it"},
	{"internal/schedule", []string{"internal/config", "internal/schema", "internal/sql", "internal/state"}, "the schedule asks an engine and fills queues, whoever answers and empties them"},
	{"internal/sink", []string{"internal/event", "internal/schema", "internal/state"}, "a sink takes completed events and finished lines, and must not ask for more"},
	{"internal/remote", []string{"internal/event", "internal/schema", "internal/sql", "internal/state"}, "the server's wishes reach an engine and queues, whatever these are"},
	{"internal/extension", []string{"internal/schema", "internal/sql"}, "extensions bring relations and ask queries, whoever answers and whatever the tables are about"},
	{"internal/remotetest", nil, "a server for tests knows the protocol, and nothing of who speaks it"},
	{"internal/agent", []string{"internal/event", "internal/process"}, "the agent meets sources, the store and sinks through small interfaces, so that each can be replaced"},
	{"internal/ctl", []string{"internal/schema", "internal/sql"}, "the socket carries rows, whoever made them"},
	{"cmd/goshawk", []string{"*"}, ""},
	{"cmd/btf", []string{"internal/sensor"}, "it packs what the BPF objects need of kernels' types"},
	{"bench", nil, "it measures goshawk as a user runs it"},
	{"kerneltest", nil, "it boots test binaries and knows nothing of what they test"},
}

// TestLayers checks what packages import, of ours and from outside.
func TestLayers(t *testing.T) {
	place := map[string]int{}
	for i, l := range layers {
		place[l.name] = i
		if _, err := os.Stat(l.name); err != nil {
			t.Errorf("layers lists %s, which is gone", l.name)
		}
	}
	for _, f := range goFiles(t) {
		if f.test || f.dir == "." || !f.built {
			continue
		}
		i, ok := place[f.dir]
		if !ok {
			t.Errorf("%s: package %s has no place in the layers: add it there, with the reason", f.path, f.dir)
			continue
		}
		for _, spec := range f.ast.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if ours, ok := strings.CutPrefix(imported, module); ok {
				if l := layers[i]; !slices.Contains(l.may, ours) && !slices.Contains(l.may, "*") {
					t.Errorf("%s imports %s: %s", f.path, ours, l.why)
				}
				continue
			}
			for _, o := range outside {
				if o.matches(imported) && !slices.Contains(o.may, f.dir) {
					t.Errorf("%s imports %s: %s", f.path, imported, o.why)
				}
			}
		}
	}
}

// A restriction is an import from outside that few packages may have.
type restriction struct {
	path string // with what lies below it, when it ends in /
	may  []string
	why  string
}

func (r *restriction) matches(imported string) bool {
	below, ok := strings.CutSuffix(r.path, "/")
	return imported == below || ok && strings.HasPrefix(imported, r.path)
}

var outside = []restriction{
	{"os/exec", []string{"bench", "kerneltest"}, "an agent that runs programs can be made to run others, and is itself a process that it reports"},
	{"log", nil, "the agent tells through log/slog, sinks and exit codes"},
	{"reflect", []string{"internal/store"}, "nothing on the way of an event uses reflection; the store looks once, at start, where columns lie"},
	{"encoding/json", []string{"cmd/goshawk", "internal/config", "internal/container", "internal/ctl", "internal/extension", "internal/remote", "internal/remotetest", "internal/table", "bench"}, "events are encoded from their columns: encoding/json costs three times as much; what is read here are manifests and replies"},
	{"github.com/cilium/ebpf/", []string{"bpf", "internal/sensor", "internal/kernel"}, "the sensor alone loads BPF programs"},
	{"github.com/ncruces/go-sqlite3/", []string{"internal/sql", "internal/state", "internal/store"}, "SQL is behind internal/sql, so that the engine can be changed; the store and the daemon's state are databases of their own"},
	{"github.com/osquery/", []string{"internal/extension"}, "osquery's Thrift is spoken in one place"},
	{"github.com/apache/thrift/", []string{"internal/extension"}, "osquery's Thrift is spoken in one place"},
	{"github.com/spf13/", []string{"cmd/goshawk"}, "flags are wiring, which is cmd's"},
	{"google.golang.org/", []string{"internal/container"}, "protocol buffers are what container runtimes speak"},
	{"os/user", []string{"cmd/goshawk"}, "users come from the tables or are asked for in cmd: looking one up may read files at any moment"},
	{"plugin", nil, "goshawk is one static binary"},
	{"C", nil, "goshawk is built without cgo: one static binary for every distribution"},
}

// TestVirtualTables keeps SQLite's virtual table interface in one package.
func TestVirtualTables(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.dir == "internal/sql" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "CreateModule" {
				t.Errorf("%s: CreateModule: internal/sql alone makes virtual tables", f.at(n))
			}
			return true
		})
	}
}

// TestCode checks what Go code may do, wherever it is.
func TestCode(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.generated {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: init(): lists stand in one visible place; nothing happens because a package was imported", f.at(fn))
			}
		}
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "types"}, strings.TrimSuffix(f.ast.Name.Name, "_test")) {
			t.Errorf("%s: package %s: name it after what it holds", f.path, f.ast.Name.Name)
		}
		if f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			switch fn := call.Fun.(type) {
			case *ast.SelectorExpr:
				x, _ := fn.X.(*ast.Ident)
				if x != nil && f.dir != "internal/canary" && f.dir != "internal/watchdog" && startsProcess(x.Name, fn.Sel.Name) {
					t.Errorf("%s: %s.%s: only internal/canary and internal/watchdog start a process, and that is goshawk itself: an agent that runs programs can be made to run others", f.at(n), x.Name, fn.Sel.Name)
				}
				if x == nil || f.ast.Name.Name == "main" {
					break
				}
				if (x.Name == "os" || x.Name == "syscall" || x.Name == "unix") && fn.Sel.Name == "Exit" ||
					x.Name == "log" && strings.HasPrefix(fn.Sel.Name, "Fatal") {
					t.Errorf("%s: %s.%s: only a command ends the process; others return an error", f.at(n), x.Name, fn.Sel.Name)
				}
			case *ast.Ident:
				if fn.Name == "panic" && !startsWithBug(call.Args[0]) {
					t.Errorf("%s: a panic is for programmers' errors, and its text starts with BUG:", f.at(n))
				}
			}
			return true
		})
	}
}

// startsProcess reports whether a function of a package starts a program; os/exec is not to
// be imported at all.
func startsProcess(pkg, name string) bool {
	switch pkg {
	case "os":
		return name == "StartProcess"
	case "syscall", "unix":
		return name == "ForkExec" || name == "StartProcess" || name == "Exec"
	}
	return false
}

// startsWithBug reports whether the text of a panic says so; one that passes on what was
// recovered may too.
func startsWithBug(arg ast.Expr) bool {
	switch a := arg.(type) {
	case *ast.BasicLit:
		return strings.HasPrefix(a.Value, `"BUG: `)
	case *ast.CallExpr: // fmt.Sprintf
		return len(a.Args) > 0 && startsWithBug(a.Args[0])
	case *ast.BinaryExpr:
		return startsWithBug(a.X)
	case *ast.Ident:
		return true
	}
	return false
}

// TestPackageComments wants one package comment each: what the package is, and what it must
// never know.
func TestPackageComments(t *testing.T) {
	docs := map[string][]string{}
	for _, f := range goFiles(t) {
		if strings.HasSuffix(f.ast.Name.Name, "_test") {
			continue
		}
		if _, ok := docs[f.dir]; !ok {
			docs[f.dir] = nil
		}
		if f.ast.Doc == nil {
			continue
		}
		docs[f.dir] = append(docs[f.dir], f.path)
		start, want := f.ast.Doc.Text(), "Package "+f.ast.Name.Name+" "
		if f.ast.Name.Name == "main" {
			want = "Command " + path.Base(f.dir) + " "
		}
		if f.dir != ".ci" && !strings.HasPrefix(start, want) {
			t.Errorf("%s: the package comment starts with %.30q, not %q", f.path, start, want)
		}
	}
	for dir, files := range docs {
		if len(files) != 1 {
			t.Errorf("package %s: %d package comments %v, want one", dir, len(files), files)
		}
	}
}

// TestFileLengths keeps files readable in one sitting.
func TestFileLengths(t *testing.T) {
	walk(t, func(name string) {
		switch path.Ext(name) {
		case ".go", ".c", ".h":
		default:
			return
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if isGenerated(data) {
			return
		}
		switch n := bytes.Count(data, []byte("\n")); {
		case n > 1000:
			t.Errorf("%s has %d lines: split it, 1,000 is the most", name, n)
		case n > 600:
			t.Logf("%s has %d lines and asks to be split", name, n)
		}
	})
}

// TestLicences wants a licence line at the head of every C file: the kernel asks for one
// that the GPL is compatible with, which the rest of the repository is not under.
func TestLicences(t *testing.T) {
	walk(t, func(name string) {
		if ext := path.Ext(name); ext != ".c" && ext != ".h" {
			return
		}
		want := "/* SPDX-License-Identifier: Apache-2.0 */"
		if strings.HasPrefix(name, "bpf/") {
			want = "/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */"
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		s := bufio.NewScanner(bytes.NewReader(data))
		for range 3 { // after a build constraint
			if s.Scan() && s.Text() == want {
				return
			}
		}
		t.Errorf("%s: no %q in its first lines", name, want)
	})
}

// TestModule keeps go.mod usable by those who import or vendor us.
func TestModule(t *testing.T) {
	data, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "replace ") || strings.Contains(line, " => ") {
			t.Errorf("go.mod: %q: `go install` of a module with a replacement fails", strings.TrimSpace(line))
		}
	}
}

// goFile is a parsed Go file.
type goFile struct {
	path, dir string
	test      bool
	generated bool
	built     bool // not set aside by "ignore"
	ast       *ast.File
	set       *token.FileSet
}

func (f *goFile) at(n ast.Node) token.Position { return f.set.Position(n.Pos()) }

// goFiles parses every Go file in the repository, for any architecture and build tag.
func goFiles(t *testing.T) []goFile {
	t.Helper()
	var all []goFile
	set := token.NewFileSet()
	walk(t, func(name string) {
		if path.Ext(name) != ".go" {
			return
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(set, name, data, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, goFile{
			path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"),
			generated: isGenerated(data), built: !bytes.HasPrefix(data, []byte("//go:build ignore\n")),
			ast: file, set: set,
		})
	})
	if len(all) < 50 {
		t.Fatalf("found %d Go files: the rules look at the wrong place", len(all))
	}
	return all
}

func isGenerated(data []byte) bool {
	head, _, _ := bytes.Cut(data, []byte("\npackage "))
	return bytes.Contains(head, []byte("// Code generated ")) && bytes.Contains(head, []byte(" DO NOT EDIT."))
}

// walk visits the files of the repository, by their path from the root.
func walk(t *testing.T, visit func(name string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch d.Name() {
			case ".git", "bin", "testdata", "vmlinux":
				return fs.SkipDir
			}
			return nil
		}
		visit(filepath.ToSlash(name))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
