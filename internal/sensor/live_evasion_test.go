package sensor

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/selection"
)

// elf32 is a 32-bit program that ends with status 7.
func elf32() []byte {
	const at = 0x00800000
	var machine uint16 = 3 // EM_386
	var flags uint32
	code := []byte{0xb8, 1, 0, 0, 0, 0xbb, 7, 0, 0, 0, 0xcd, 0x80} // eax = exit, ebx = 7, int $0x80
	if runtime.GOARCH == "arm64" {
		machine, flags = 40, 5<<24 // EM_ARM, version 5 of its ABI
		code = []byte{7, 0, 0xa0, 0xe3, 1, 0x70, 0xa0, 0xe3, 0, 0, 0, 0xef}
	}
	const head = 52 + 32
	b := []byte{0x7f, 'E', 'L', 'F', 1, 1, 1, 15: 0}
	for _, v := range []any{
		uint16(2), machine, uint32(1), uint32(at + head), uint32(52), uint32(0), flags, // e_type to e_flags
		uint16(52), uint16(32), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(0), uint32(at), uint32(at), uint32(head + len(code)), uint32(head + len(code)), uint32(5), uint32(0x1000),
	} {
		b, _ = binary.Append(b, binary.LittleEndian, v)
	}
	return append(b, code...)
}

// A path is changed while open(2) copies it: what is told is the file that the kernel opened.
func TestLiveHeldPath(t *testing.T) {
	base := t.TempDir()
	set := selected(t, selection.Rule{Category: "test", Pattern: base + "/watched/%"})
	for _, dir := range []string{"watched", "another"} {
		write(t, filepath.Join(mkdir(t, filepath.Join(base, dir)), "f"), "before\n", 0o644)
	}
	l := watchFiles(t, base, set)
	pids := map[uint32]string{}
	for _, dirs := range [][2]string{{"another", "watched"}, {"watched", "another"}} {
		c := exec.Command(helper, "open-held", filepath.Join(base, dirs[0]), filepath.Join(base, dirs[1]))
		out, err := c.CombinedOutput()
		if c.ProcessState.ExitCode() == notThere {
			t.Skip("this kernel has no userfaultfd")
		}
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		pids[uint32(c.Process.Pid)] = dirs[0]
	}
	l.wait(t, 1, "the write to what is watched", func(e event.Event) bool {
		f, ok := e.(*event.File)
		return ok && f.Operation == "write" && f.TargetPath == filepath.Join(base, "watched/f")
	})
	l.stop()
	var got []string
	for _, e := range l.snapshot(func(e event.Event) bool { return pids[e.Head().PID] != "" }) {
		f := e.(*event.File)
		got = append(got, fmt.Sprintf("%s: %s %s %s", pids[f.PID], f.Operation, strings.TrimPrefix(f.TargetPath, base+"/"), f.Fidelity))
	}
	if diff := cmp.Diff([]string{"watched: write watched/f kernel"}, got); diff != "" {
		t.Errorf("tier %s: (-want +got)\n%s", l.tiers[FileHook], diff)
	}
}

// Code is written into another process, by ptrace(2) and through /proc/PID/mem, and runs there:
// both are told, of the process and by it.
func TestLiveInjection(t *testing.T) {
	l := watch(t, Options{Kinds: []event.ID{event.KindPtrace}})
	tier := l.tiers["ptrace"]
	for _, tt := range []struct {
		how  string
		want []string
	}{
		{"poke", []string{"attach ok", "poketext ok", "pokedata ok", "setregset ok"}},
		{"mem", []string{"mem_write ok"}},
	} {
		t.Run(tt.how, func(t *testing.T) {
			if tt.how == "mem" && strings.HasPrefix(tier, "tracepoint") {
				t.Skip("this kernel refuses fexit and kprobes: writes to /proc/PID/mem are no system call of their own")
			}
			victim := exec.Command(helper, "victim")
			pipe, err := victim.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := victim.Start(); err != nil {
				t.Fatal(err)
			}
			defer victim.Wait()
			defer victim.Process.Kill()
			if _, err := bufio.NewReader(pipe).ReadString('\n'); err != nil { // it is prepared
				t.Fatal(err)
			}
			c := exec.Command(helper, "inject", tt.how, fmt.Sprint(victim.Process.Pid))
			out, err := c.CombinedOutput()
			want := tt.want
			var status *exec.ExitError
			switch {
			case c.ProcessState.ExitCode() == notThere: // such a kernel lets nobody write to code so (proc_mem.force_override=)
				t.Logf("it is tried: %s", out)
				want = []string{"mem_write EIO"}
			case err != nil:
				t.Fatalf("%v: %s", err, out)
			default:
				if err := victim.Wait(); !errors.As(err, &status) || status.ExitCode() != 42 {
					t.Errorf("the victim ended so: %v; 42 is what the code that was put there says", err)
				}
			}
			pid := c.Process.Pid
			var got []string
			for _, e := range l.wait(t, len(want), strings.Join(want, ", "), of[*event.Ptrace](event.KindPtrace, pid)) {
				p := e.(*event.Ptrace)
				got = append(got, p.Request+" "+p.Result)
				if p.TargetPID != uint32(victim.Process.Pid) || p.Fidelity != event.FidelityKernel {
					t.Errorf("%s: target %d, fidelity %s; want %d, kernel", p.Request, p.TargetPID, p.Fidelity, victim.Process.Pid)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("tier %s tells %q, want %q", tier, got, want)
			}
		})
	}
}

// What smallCalls names is told of 32-bit calls, too, at the tiers that stand on
// the functions behind them.
func TestLiveActs32(t *testing.T) {
	l := watch(t, Options{Kinds: []event.ID{event.KindPtrace, event.KindMount, event.KindNamespace, event.KindMemory, event.KindSyscall, event.KindExit}})
	for _, hook := range []string{"ptrace", "mount", "namespace", "memory", "syscall"} {
		if strings.HasPrefix(l.tiers[hook], "tracepoint") || l.s.object.perf {
			t.Skipf("this kernel refuses fexit and kprobes of hook %s, or has the legacy object: 32-bit calls are not told", hook)
		}
	}
	target := exec.Command(helper, "victim")
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	defer target.Wait()
	defer target.Process.Kill()
	c := exec.Command(helper, "acts32", fmt.Sprint(target.Process.Pid))
	out, err := c.CombinedOutput()
	if c.ProcessState.ExitCode() == notThere {
		t.Skip("this kernel has no 32-bit calls")
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pid := c.Process.Pid
	acts := func(e event.Event) bool { return e.Head().Kind != event.KindExit && e.Head().PID == uint32(pid) }
	l.wait(t, 1, "the last", func(e event.Event) bool { return acts(e) && e.Head().Kind == event.KindSyscall })
	var got []string
	for _, e := range l.snapshot(acts) {
		switch e := e.(type) {
		case *event.Syscall:
			got = append(got, "syscall "+e.Syscall+" "+e.Operation)
		default:
			got = append(got, actLine(e))
		}
	}
	want := []string{
		"namespace unshare uts 0  ok kernel",
		"namespace setns uts INODE  ok kernel",
		"mount mount none /goshawk-no tmpfs MS_NOSUID  ENOENT user",
		"memory memfd_create goshawk-32  MFD_CLOEXEC ok user",
		"memory mmap  PROT_READ|PROT_WRITE|PROT_EXEC MAP_PRIVATE|MAP_ANONYMOUS ok kernel",
		"memory mprotect  PROT_READ|PROT_EXEC  ok kernel",
		fmt.Sprintf("ptrace seize %d ok kernel", target.Process.Pid),
		"syscall socket packet",
	}
	for i, line := range got {
		if strings.HasPrefix(line, "namespace setns uts ") { // a namespace of its own
			got[i] = want[1]
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
