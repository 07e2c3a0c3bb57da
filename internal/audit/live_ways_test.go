package audit

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// helper is the program that makes calls in ways that Go cannot; the sensor's tests have it, too.
func helper(t *testing.T) string {
	t.Helper()
	if h := os.Getenv("GOSHAWK_TEST_HELPER"); h != "" {
		return h
	}
	h := filepath.Join(t.TempDir(), "helper")
	run(t, "gcc", "-static", "-O1", "-Wall", "-Werror", "-o", h, "../sensor/testdata/helper.c", "-lpthread")
	return h
}

// TestLiveWays asks for sockets by the calls of 64 and of 32 bits, and by the one call that those
// programs used before: each is told by a rule of its own ABI.
func TestLiveWays(t *testing.T) {
	needAudit(t)
	program := helper(t)
	for _, way := range []string{"native", "ia32", "socketcall"} {
		t.Run(way, func(t *testing.T) {
			l := watch(t, Options{Kinds: []event.ID{event.KindConnect, event.KindAccept, event.KindBind, event.KindListen}})
			cmd := exec.Command("unshare", "-n", "sh", "-c", "ip link set lo up && exec "+program+" calls "+way)
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
			out, err := cmd.CombinedOutput()
			var status *exec.ExitError
			if errors.As(err, &status) && status.ExitCode() == 77 {
				t.Skipf("this kernel has no calls by %s", way)
			}
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			l.stop() // which reads what was recorded until then
			pid := uint32(cmd.Process.Pid)
			for _, want := range []string{
				"bind family=inet local_address=127.0.0.1 local_port=7001 result=ok",
				"bind family=inet local_address=192.0.2.1 local_port=7002 result=EADDRNOTAVAIL",
				"bind family=unix socket_path=@goshawk-calls result=ok",
				"listen result=ok",
				"connect family=inet remote_address=127.0.0.1 remote_port=7001 result=ok",
				"connect family=inet remote_address=192.0.2.1 remote_port=443 result=ENETUNREACH",
				"connect family=inet remote_address=127.0.0.1 remote_port=514 result=ok",
				"connect family=unix socket_path=@goshawk-calls result=ok",
				"accept result=ok", // which asked for no address
			} {
				if !slices.ContainsFunc(l.events, func(e event.Event) bool { return e.Head().PID == pid && len(columnErrors(t, e, want)) == 0 }) {
					t.Errorf("nothing like %s", want)
				}
			}
			if t.Failed() {
				for _, e := range l.events {
					if e.Head().PID == pid {
						t.Logf("%.500s", event.AppendJSON(nil, e))
					}
				}
			}
		})
	}
}
