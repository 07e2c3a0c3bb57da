//go:build kernels

package kerneltest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A guest is a kernel to boot.
type guest struct {
	name    string // as K names it
	version string // as fetch.sh does
	arch    string
	object  string // of BPF programs, where it is not the best
	run     string // the only tests that run there, where it is for these alone,
	of      string // of these packages, with commas
	line    string // what its kernel is told on its command line, beside what all are
	bare    bool   // it also boots with nothing around goshawk
}

var guests = []guest{
	// What goshawk finds around it does not depend on the kernel: bare is the oldest, which has
	// the fewest ways to make up for what is not mounted, and the newest.
	{name: "5.10", version: "5.10", arch: "amd64", bare: true},
	{name: "5.10-legacy", version: "5.10", arch: "amd64", object: "legacy"},
	// Cloud kernels lack that ABI.
	{name: "5.10-x32", version: "5.10-x32", arch: "amd64", run: "^TestLiveWays$/./^x32$", of: "./internal/sensor"},
	{name: "6.1", version: "6.1", arch: "amd64"},
	{name: "6.1-legacy", version: "6.1", arch: "amd64", object: "legacy"},
	{name: "6.1-noaudit", version: "6.1", arch: "amd64", run: "^TestLiveWithoutAudit$", of: "./internal/audit,./cmd/goshawk", line: "audit=0"},
	{name: "6.12", version: "6.12", arch: "amd64"},
	{name: "newest", version: "newest", arch: "amd64", bare: true},
	{name: "arm64", version: "6.12", arch: "arm64"},
}

// oldest is the guest that also pretends to be older than it is.
const oldest = "5.10"

// A machine is what QEMU emulates for an architecture. One thread a guest: two guests side
// by side are done sooner than one on two threads after the other, and the many-threaded
// emulation of 7.2 hangs now and then.
type machine struct {
	qemu    []string
	console string
	results string // the serial port for what the tests print
	cc      string
}

var machines = map[string]machine{
	// QEMU 7.2 gets CMPXCHG16B without LOCK wrong now and then: bits of RAX end up in EFLAGS.
	// Linux 6.12 has it in its allocator, and died of it in every second run.
	"amd64": {[]string{"qemu-system-x86_64", "-cpu", "max,cx16=off"}, "ttyS0", "ttyS1", "gcc"},
	"arm64": {[]string{"qemu-system-aarch64", "-M", "virt", "-cpu", "max,pauth-impdef=on"}, "ttyAMA0", "ttyS0",
		"aarch64-linux-gnu-gcc"},
}

// guestTimeout is generous: the host may have other work.
const guestTimeout = 25 * time.Minute

// A run is what came of a guest.
type run struct {
	results []byte // of its second serial port
	console []byte
	took    time.Duration
	err     error
}

// image fetches the guest's kernel and returns its root directory and the kernel's image.
func (g *guest) image(t *testing.T) (root, kernel string) {
	t.Helper()
	root = fetch(t, g.version, g.arch)
	images, _ := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	moved, _ := filepath.Glob(filepath.Join(root, "usr/lib/modules/*/vmlinuz")) // from 7.1
	if images = append(images, moved...); len(images) != 1 {
		t.Fatalf("find kernel image below %s: %d found", root, len(images))
	}
	return root, images[0]
}

func fetch(t *testing.T, what, arch string) string {
	t.Helper()
	out, err := exec.Command("./fetch.sh", what, arch).Output()
	if e, ok := err.(*exec.ExitError); ok {
		t.Fatalf("fetch %s for %s: %v: %s", what, arch, err, e.Stderr)
	}
	must(t, err)
	return strings.TrimSpace(string(out))
}

// boot runs the guest until it powers off. A kernel that is in trouble ends it: what is on
// the console is more than a time-out would tell.
func (g *guest) boot(t *testing.T, kernel, initrd string, more ...string) run {
	t.Helper()
	m := machines[g.arch]
	dir := t.TempDir()
	console, results := filepath.Join(dir, "console"), filepath.Join(dir, "results")
	args := append(m.qemu[1:len(m.qemu):len(m.qemu)],
		"-accel", "tcg,thread=single", "-smp", "2", "-m", "1536", "-display", "none", "-no-reboot",
		"-kernel", kernel, "-initrd", initrd,
		"-object", "rng-random,id=r0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=r0",
		"-serial", "file:"+console, "-chardev", "file,id=results,path="+results)
	if g.arch == "amd64" {
		args = append(args, "-serial", "chardev:results")
	} else {
		args = append(args, "-device", "pci-serial,chardev=results")
	}
	// no_timer_check: early in its boot a kernel counts ticks while it spins, and panics when a busy host let
	// the emulation wait meanwhile (arch/x86/kernel/apic/io_apic.c, timer_irq_works()).
	args = append(args, "-append", "console="+m.console+" loglevel=6 lsm=lockdown,bpf random.trust_cpu=on syscall.x32=y no_timer_check "+
		"panic=-1 oops=panic watchdog_thresh=30 softlockup_panic=1 kernel.softlockup_all_cpu_backtrace=1 "+g.line)
	args = append(args, more...)
	ctx, cancel := context.WithTimeout(context.Background(), guestTimeout)
	defer cancel()
	began := time.Now()
	q := exec.CommandContext(ctx, m.qemu[0], args...)
	runtime.LockOSThread() // whose end is QEMU's
	defer runtime.UnlockOSThread()
	q.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := q.CombinedOutput()
	r := run{took: time.Since(began).Round(time.Second)}
	r.console, _ = os.ReadFile(console)
	r.results, _ = os.ReadFile(results)
	if ctx.Err() != nil {
		r.err = fmt.Errorf("the guest has not ended after %v", guestTimeout)
	} else if err != nil {
		r.err = fmt.Errorf("run QEMU: %v: %s", err, out)
	}
	return r
}

// again is the command that repeats what went wrong.
func (g *guest) again(test string) string {
	command := "make test-kernels K=" + g.name
	if test != "" {
		parts := strings.Split(test, "/")
		for i, p := range parts {
			parts[i] = "^" + p + "$"
		}
		command += " RUN='" + strings.Join(parts, "/") + "'"
	}
	return command
}

func tail(b []byte) string {
	const most = 6000
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
