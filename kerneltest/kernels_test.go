//go:build kernels

// Package kerneltest boots stock kernels under QEMU and runs the live tests inside: the
// same test binaries that run on this machine, in an initramfs with BusyBox and nothing
// else. It is behind the build tag "kernels"; `make test-kernels` sets it.
package kerneltest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// kernels are the versions that fetch.sh knows, oldest first.
var kernels = []string{"5.10", "6.1", "6.12", "newest"}

// packages are those whose live tests run in every guest.
var packages = []string{"./internal/sensor", "./internal/audit"}

// modules are what the tests need beyond what Debian's cloud kernels have built in.
var modules = []string{"drivers/net/veth.ko", "drivers/net/dummy.ko", "fs/overlayfs/overlay.ko"}

const (
	guestTimeout = 6 * time.Minute
	guestMemory  = "1536"
	// QEMU 7.2 gets CMPXCHG16B without LOCK wrong now and then: bits of RAX end up in EFLAGS.
	// Linux 6.12 has it in its allocator, and died of it in every second run.
	guestCPU = "max,cx16=off"
)

// TestKernels runs the live tests on the kernels named in K (comma-separated; empty: all).
// RUN narrows the tests, as -run does.
func TestKernels(t *testing.T) {
	if p := os.Getenv("PACKAGES"); p != "" {
		packages = strings.Split(p, ",")
	}
	binaries := build(t)
	chosen := kernels
	if k := os.Getenv("K"); k != "" {
		chosen = strings.Split(k, ",")
	}
	for _, k := range chosen {
		t.Run(k, func(t *testing.T) { boot(t, k, binaries) })
	}
}

// build compiles the live tests, static.
func build(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	out := map[string]string{}
	for _, p := range packages {
		name := strings.ReplaceAll(strings.TrimPrefix(p, "./"), "/", "_") + ".test"
		path := filepath.Join(dir, name)
		c := exec.Command("go", "test", "-c", "-o", path, p)
		c.Dir = ".."
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if b, err := c.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", p, err, b)
		}
		out[name] = path
	}
	helper := filepath.Join(dir, "helper")
	c := exec.Command("gcc", "-static", "-O1", "-o", helper, "../internal/sensor/testdata/helper.c", "-lpthread")
	if b, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build helper: %v\n%s", err, b)
	}
	out[helperName] = helper
	return out
}

// helperName is the program that does what Go cannot (threads that leave, raw clones).
const helperName = "helper"

func boot(t *testing.T, kernel string, binaries map[string]string) {
	fetched, err := exec.Command("./fetch.sh", kernel).Output()
	if err != nil {
		t.Fatalf("fetch kernel %s: %v\n%s", kernel, err, stderr(err))
	}
	root := strings.TrimSpace(string(fetched))
	images, _ := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	moved, _ := filepath.Glob(filepath.Join(root, "usr/lib/modules/*/vmlinuz")) // from 7.1
	if images = append(images, moved...); len(images) != 1 {
		t.Fatalf("find kernel image below %s: %d found", root, len(images))
	}
	dir := t.TempDir()
	initrd := pack(t, dir, root, binaries)
	serial := filepath.Join(dir, "results")
	ctx, cancel := context.WithTimeout(context.Background(), guestTimeout)
	defer cancel()
	q := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", guestCPU, "-smp", "2",
		"-m", guestMemory, "-display", "none", "-no-reboot", "-kernel", images[0], "-initrd", initrd,
		"-object", "rng-random,id=r0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=r0",
		"-serial", "file:"+filepath.Join(dir, "console"), "-serial", "file:"+serial,
		"-append", "console=ttyS0 quiet panic=-1 lsm=lockdown,bpf random.trust_cpu=on")
	began := time.Now()
	if b, err := q.CombinedOutput(); err != nil {
		console, _ := os.ReadFile(filepath.Join(dir, "console"))
		results, _ := os.ReadFile(serial)
		t.Fatalf("run guest: %v\n%s\nconsole ends:\n%s\nresults end:\n%s", err, b, tail(console), tail(results))
	}
	b, err := os.ReadFile(serial)
	if err != nil {
		t.Fatal(err)
	}
	report(t, kernel, b)
	if console, err := os.ReadFile(filepath.Join(dir, "console")); err == nil && t.Failed() {
		t.Logf("the console ends:\n%s", tail(console))
	}
	t.Logf("kernel %s: guest ran for %v; again with: make test-kernels K=%s", kernel, time.Since(began).Round(time.Second), kernel)
}

var (
	exitLine = regexp.MustCompile(`^=== exit (\S+) (\d+)`)
	testLine = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+)`)
)

// report turns what the guest printed into subtests' results.
func report(t *testing.T, kernel string, b []byte) {
	passed, ended := 0, false
	exits := 0
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line := strings.TrimRight(s.Text(), "\r")
		switch {
		case strings.HasPrefix(line, "=== kernel "):
			t.Log(line)
		case line == "=== end":
			ended = true
		}
		if m := testLine.FindStringSubmatch(line); m != nil {
			switch m[1] {
			case "PASS":
				passed++
			case "FAIL":
				t.Errorf("kernel %s: %s failed; again with: make test-kernels K=%s RUN='%s'", kernel, m[2], kernel, m[2])
			case "SKIP":
				t.Logf("kernel %s: %s skipped", kernel, m[2])
			}
		}
		if m := exitLine.FindStringSubmatch(line); m != nil {
			exits++
			if m[2] != "0" {
				t.Errorf("kernel %s: %s exited with %s", kernel, m[1], m[2])
			}
		}
	}
	if !ended || exits == 0 || passed == 0 {
		t.Errorf("kernel %s: the guest did not come to its end (%d tests passed)", kernel, passed)
	}
	if t.Failed() || testing.Verbose() {
		t.Logf("what the guest printed:\n%s", b)
	}
	t.Logf("kernel %s: %d tests passed", kernel, passed)
}

// pack makes an initramfs: BusyBox, init, the modules and the test binaries.
func pack(t *testing.T, dir, kernelRoot string, binaries map[string]string) string {
	t.Helper()
	ird := filepath.Join(dir, "ird")
	for _, d := range []string{"bin", "dev", "proc", "sys", "tmp", "run", "root", "etc", "tests", "work", "lib"} {
		must(t, os.MkdirAll(filepath.Join(ird, d), 0o755))
	}
	copyFile(t, "/bin/busybox", filepath.Join(ird, "bin/busybox"))
	copyFile(t, "init", filepath.Join(ird, "init"))
	copyDynamic(t, ird, "/sbin/ip") // BusyBox's own makes no veth pairs
	for name, path := range binaries {
		if name == helperName {
			copyFile(t, path, filepath.Join(ird, name))
			continue
		}
		copyFile(t, path, filepath.Join(ird, "tests", name))
	}
	var list []string
	for _, m := range modules {
		for _, suffix := range []string{"", ".xz", ".zst"} {
			found, _ := filepath.Glob(filepath.Join(kernelRoot, "lib/modules/*/kernel", m+suffix))
			usr, _ := filepath.Glob(filepath.Join(kernelRoot, "usr/lib/modules/*/kernel", m+suffix))
			for _, f := range append(found, usr...) {
				to := filepath.Join(ird, "lib", filepath.Base(m))
				switch suffix {
				case "":
					copyFile(t, f, to)
				case ".xz":
					unpack(t, to, "xz", "-dc", f)
				case ".zst":
					unpack(t, to, "zstd", "-dcq", f)
				}
				list = append(list, "/lib/"+filepath.Base(m))
			}
		}
	}
	must(t, os.WriteFile(filepath.Join(ird, "modules"), []byte(strings.Join(list, " ")+"\n"), 0o644))
	run := os.Getenv("RUN")
	if run == "" {
		run = "^TestLive"
	}
	args := fmt.Sprintf("-test.v -test.timeout=%s -test.run=%s\n", guestTimeout-30*time.Second, run)
	must(t, os.WriteFile(filepath.Join(ird, "arguments"), []byte(args), 0o644))
	must(t, os.WriteFile(filepath.Join(ird, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644))
	out := filepath.Join(dir, "initrd")
	c := exec.Command("sh", "-c", `cd "$1" && find . | cpio -o -H newc --quiet | gzip -1 >"$2"`, "sh", ird, out)
	if b, err := c.CombinedOutput(); err != nil {
		t.Fatalf("pack initramfs: %v\n%s", err, b)
	}
	must(t, os.RemoveAll(ird))
	return out
}

// copyDynamic copies a program of this machine and the libraries it names.
func copyDynamic(t *testing.T, ird, program string) {
	t.Helper()
	copyFile(t, program, filepath.Join(ird, "usr/sbin", filepath.Base(program)))
	out, err := exec.Command("ldd", program).Output()
	must(t, err)
	for _, word := range strings.Fields(string(out)) {
		if strings.HasPrefix(word, "/") {
			copyFile(t, word, filepath.Join(ird, word))
		}
	}
}

func unpack(t *testing.T, to string, command ...string) {
	t.Helper()
	b, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		t.Fatalf("unpack %s: %v", to, err)
	}
	must(t, os.WriteFile(to, b, 0o644))
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(to), 0o755))
	in, err := os.Open(from)
	must(t, err)
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(out, in)
	must(t, err)
	must(t, out.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func stderr(err error) string {
	if e, ok := err.(*exec.ExitError); ok {
		return string(e.Stderr)
	}
	return ""
}

func tail(b []byte) string {
	if len(b) > 4000 {
		b = b[len(b)-4000:]
	}
	return string(b)
}
