//go:build kernels

package kerneltest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// modules are what the tests need beyond what Debian's cloud kernels have built in.
var modules = []string{"drivers/net/veth.ko", "drivers/net/dummy.ko", "fs/overlayfs/overlay.ko"}

// A tree is the files of an initramfs.
type tree struct {
	t    *testing.T
	dir  string
	arch string
}

// newTree makes the directories, and puts BusyBox and init there.
func newTree(t *testing.T, arch, init string) *tree {
	t.Helper()
	f := &tree{t, filepath.Join(t.TempDir(), "tree"), arch}
	for _, d := range []string{"bin", "dev", "proc", "sys", "tmp", "run", "root", "results"} {
		must(t, os.MkdirAll(f.path(d), 0o755))
	}
	busybox := "/bin/busybox"
	if arch != "amd64" {
		busybox = filepath.Join(fetch(t, "busybox", arch), "usr/bin/busybox")
	}
	f.copy(busybox, "bin/busybox")
	f.copy(init, "init")
	return f
}

func (f *tree) path(name string) string { return filepath.Join(f.dir, name) }

func (f *tree) mkdir(name string) error { return os.MkdirAll(f.path(name), 0o755) }

func (f *tree) write(name, text string) {
	f.t.Helper()
	must(f.t, os.MkdirAll(filepath.Dir(f.path(name)), 0o755))
	must(f.t, os.WriteFile(f.path(name), []byte(text), 0o644))
}

func (f *tree) copy(from, to string) {
	f.t.Helper()
	must(f.t, os.MkdirAll(filepath.Dir(f.path(to)), 0o755))
	in, err := os.Open(from)
	must(f.t, err)
	defer in.Close()
	out, err := os.OpenFile(f.path(to), os.O_CREATE|os.O_WRONLY, 0o755)
	must(f.t, err)
	_, err = io.Copy(out, in)
	must(f.t, err)
	must(f.t, out.Close())
}

// copyDynamic copies a program of this machine and the libraries it names.
func (f *tree) copyDynamic(program, to string) {
	f.t.Helper()
	f.copy(program, to)
	out, err := exec.Command("ldd", program).Output()
	must(f.t, err)
	for _, word := range strings.Fields(string(out)) {
		if strings.HasPrefix(word, "/") {
			f.copy(word, word)
		}
	}
}

// addCompiler copies what compiles the C file source, to: gcc, what it starts, and the headers.
func (f *tree) addCompiler(source, to string) {
	f.t.Helper()
	ask := func(args ...string) []string {
		out, err := exec.Command("gcc", args...).Output()
		must(f.t, err)
		return strings.Fields(strings.ReplaceAll(string(out), "\\\n", ""))
	}
	f.copy(source, to)
	cc1 := ask("-print-prog-name=cc1")[0]
	f.copyDynamic(cc1, cc1)
	for _, name := range []string{"gcc", "as"} {
		f.copyDynamic("/usr/bin/"+name, "usr/bin/"+name)
	}
	for _, header := range ask("-O1", "-M", source)[2:] {
		f.copy(header, header)
	}
}

// addModules unpacks the modules of the kernel below root and lists them in /modules.
func (f *tree) addModules(root string) {
	f.t.Helper()
	var list []string
	for _, m := range modules {
		var found []string
		for _, pattern := range []string{"lib/modules/*/kernel", "usr/lib/modules/*/kernel"} {
			names, _ := filepath.Glob(filepath.Join(root, pattern, m+"*"))
			found = append(found, names...)
		}
		if len(found) != 1 {
			f.t.Fatalf("find module %s below %s: %d found", m, root, len(found))
		}
		to := filepath.Join("lib", filepath.Base(m))
		switch filepath.Ext(found[0]) {
		case ".xz":
			f.unpack(to, "xz", "-dc", found[0])
		case ".zst":
			f.unpack(to, "zstd", "-dcq", found[0])
		default:
			f.copy(found[0], to)
		}
		list = append(list, "/"+to)
	}
	f.write("modules", strings.Join(list, " ")+"\n")
}

// addPackage archives part of the kernel's package, which is unpacked below root: a few hundred files
// of what dpkg would unpack.
func (f *tree) addPackage(root, to string) {
	f.t.Helper()
	c := exec.Command("sh", "-c", `cd "$1" && find usr/share/doc lib/modules/*/kernel/net lib/modules/*/kernel/fs usr/lib/modules/*/kernel/net usr/lib/modules/*/kernel/fs 2>/dev/null |
tar cf "$2" --no-recursion -T -`, "sh", root, f.path(to))
	if b, err := c.CombinedOutput(); err != nil {
		f.t.Fatalf("archive a package: %v\n%s", err, b)
	}
}

func (f *tree) unpack(to string, command ...string) {
	f.t.Helper()
	b, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		f.t.Fatalf("unpack %s: %v", to, err)
	}
	f.write(to, string(b))
}

// pack makes the archive that the kernel unpacks. It is not compressed: unpacking costs
// the guest more than reading costs the host.
func (f *tree) pack() string {
	f.t.Helper()
	out := f.dir + ".cpio"
	c := exec.Command("sh", "-c", `cd "$1" && find . | cpio -o -H newc --quiet >"$2"`, "sh", f.dir, out)
	if b, err := c.CombinedOutput(); err != nil {
		f.t.Fatalf("pack initramfs: %v\n%s", err, b)
	}
	must(f.t, os.RemoveAll(f.dir))
	return out
}

// compile builds a Go package for an architecture, static, and returns the file.
func compile(t *testing.T, dir, arch string, args ...string) string {
	t.Helper()
	name := strings.ReplaceAll(strings.TrimPrefix(args[len(args)-1], "./"), "/", "_") + "." + arch
	if args[0] == "test" {
		name += ".test" // beside the program of the same package
	}
	out := filepath.Join(dir, name)
	// Without what debuggers read: each guest gets all of it, and unpacks it into its memory.
	c := exec.Command("go", append(args[:len(args)-1:len(args)-1], "-ldflags=-s -w", "-o", out, args[len(args)-1])...)
	c.Dir = ".."
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if b, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, b)
	}
	return out
}

// compileC builds a static C program for an architecture.
func compileC(t *testing.T, dir, arch, source string, more ...string) string {
	t.Helper()
	out := filepath.Join(dir, strings.TrimSuffix(filepath.Base(source), ".c")+"."+arch)
	args := append([]string{"-static", "-O1", "-o", out, source}, more...)
	if b, err := exec.Command(machines[arch].cc, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", machines[arch].cc, fmt.Sprint(args), err, b)
	}
	return out
}
