package sensor

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"golang.org/x/sys/unix"
)

func TestForcedTiers(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   map[string]string
		want string
	}{
		{"known", map[string]string{"exec": "raw_tp", "dns": "none"}, ""},
		{"no such tier", map[string]string{"fork": "lsm"}, `hook "fork" has no tier "lsm"; it has tp_btf, raw_tp, tracepoint, none`},
		{"no such hook", map[string]string{"forks": "none"}, `no hook is called "forks"; hooks are ` + strings.Join(HookNames(), ", ")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := (&loader{forced: tt.in}).checkForced(hooks)
			if got := errorText(err); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestRingSizes(t *testing.T) {
	page := os.Getpagesize()
	for _, n := range []int{1, page - 1, page + 1, 3 * page, -page} {
		_, err := Open(Options{BulkBytes: n, FS: procfs.At("")})
		if err == nil || !strings.Contains(err.Error(), "the size must be a power of two") {
			t.Errorf("ring of %d bytes: %v", n, err)
		}
	}
}

// Without the privilege, Open says so, in a way that a caller can tell.
func TestOpenUnprivileged(t *testing.T) {
	if os.Geteuid() == 0 {
		c := exec.Command("/proc/self/exe", "-test.run=^TestOpenUnprivileged$", "-test.v")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		c.Dir = "/"
		out, err := c.CombinedOutput()
		// The code is not asked: a test binary built with -cover ends badly where it may not write.
		if !strings.Contains(string(out), "--- PASS") || !strings.Contains(string(out), "\nPASS\n") {
			t.Fatalf("as nobody: %v\n%s", err, out)
		}
		return
	}
	s, err := Open(Options{FS: procfs.At("")})
	if err == nil {
		s.Close()
		t.Skip("this user may load BPF programs")
	}
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v, want EPERM", err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("got more than one line: %q", err)
	}
}

func TestLiveNoHook(t *testing.T) {
	needRoot(t)
	none, wanted := map[string]string{}, 0
	for i := range hooks {
		h := &hooks[i]
		none[h.name] = "none"
		if beside[h.name] == nil && h.name != FileHook && !h.absent(procfs.At("")) {
			wanted++ // whatever else is there, and asked for
		}
	}
	s, err := Open(Options{Tiers: none, FS: procfs.At("")})
	if err == nil {
		s.Close()
		t.Fatal("it opened")
	}
	var u *Unsupported
	if !errors.As(err, &u) || len(u.Hooks) != wanted {
		t.Fatalf("got %v, want *Unsupported with every hook", err)
	}
	for _, h := range u.Hooks {
		if h.Tier != "" || !strings.Contains(h.Refused, ": not wanted") {
			t.Errorf("%s: tier %q, refused %q", h.Name, h.Tier, h.Refused)
		}
	}
	if _, err := Open(Options{Kinds: []event.ID{event.KindLoss}, FS: procfs.At("")}); !errors.As(err, &u) || !strings.Contains(err.Error(), "no kind is enabled") {
		t.Errorf("a kind that nobody senses: %v", err)
	}
}

// A hook that only unwanted kinds need is not attached: it would cost and tell nothing.
func TestLiveKindsChooseHooks(t *testing.T) {
	needRoot(t)
	for _, tt := range []struct {
		kinds []event.ID
		want  string
	}{
		{[]event.ID{event.KindExec}, "exec"},
		{processKinds, "exec fork exit"},
		{[]event.ID{event.KindClose}, "tcp_state accept"},
		{[]event.ID{event.KindConnect}, "tcp_state connect connect_below io_uring datagram"},
		{[]event.ID{event.KindBind, event.KindListen, event.KindDNS}, "bind listen bind_below io_uring dns"},
		{nil, "exec fork exit tcp_state connect accept bind listen bind_below connect_below io_uring datagram dns cgroup credential ptrace signal mount namespace memory clone syscall bpf"},
	} {
		if procfs.At("").HasModules() {
			tt.want = strings.Replace(tt.want, "signal ", "signal module ", 1)
		}
		s, err := Open(Options{Kinds: tt.kinds, FS: procfs.At("")})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range s.Hooks() {
			got = append(got, h.Name)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("kinds %v: hooks %v, want %s", tt.kinds, got, tt.want)
		}
	}
}
