package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"golang.org/x/sys/unix"
)

// lost is what Counts says of a reason, of all kinds.
func (l *live) lost(reason string) (n uint64) {
	for _, c := range l.s.Counts() {
		if c.What == event.Lost && c.Reason == reason {
			n += c.N
		}
	}
	return n
}

// messages sends n messages of programs, from several at once.
func messages(t testing.TB, n int) {
	t.Helper()
	const senders = 4
	var wait sync.WaitGroup
	for range senders {
		wait.Go(func() {
			c, err := openControl()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.close()
			for range n / senders {
				if err := c.do(1112, []byte("goshawk test"), nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// TestLiveBacklog fills the kernel's queue: what it drops is counted as the kernel does, by
// records.
func TestLiveBacklog(t *testing.T) {
	needAudit(t)
	c, err := openControl()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	var before uint32 // what the kernel had lost when the source began to count
	l := watch(t, Options{Backlog: 1}, func(s *Source) { before = s.loop.lost })
	lost := func() uint64 {
		s, err := c.status()
		if err != nil {
			t.Fatal(err)
		}
		return uint64(s.lost - before)
	}
	execs, want := uint64(0), uint64(0)
	eventually(t, "a queue of one record loses some", func() bool {
		var wait sync.WaitGroup // the kernel's thread is quick
		for range 8 {
			wait.Go(func() {
				if err := exec.Command("/bin/true").Run(); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		execs += 8
		want = lost()
		return want > 0
	})
	// The kernel goes on to lose records, of whoever does something: it is asked once.
	eventually(t, "the loss is counted", func() bool { return l.s.kernelLost.Load() >= want })
	l.stop()
	if got, most := l.s.kernelLost.Load(), lost(); got > most {
		t.Errorf("the kernel lost %d records, counted are %d", most, got)
	}
	// Of what the kernel did tell, some was shed: a queue of one is full soon.
	if got := l.seen("exec") + l.s.kernelLost.Load(); got < execs || l.lost("backlog") < l.s.kernelLost.Load() {
		t.Errorf("%d execs are %d seen and lost, %d lost", execs, got, l.lost("backlog"))
	}
}

// TestLiveOverrun fills a socket of those that read beside the owner: the kernel drops
// without a count there, but events are numbered.
func TestLiveOverrun(t *testing.T) {
	needAudit(t)
	startAuditd(t)
	c, err := openControl()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	const n = 8_000
	for _, room := range []int{1, 64 << 10} {
		// Nobody reads while they are sent.
		l := watch(t, Options{Receive: room, Rates: map[string]float64{"user": 0}}, func(*Source) {
			messages(t, n)
			eventually(t, "the kernel's queue is empty", func() bool {
				s, err := c.status()
				return err == nil && s.backlog == 0
			})
		})
		eventually(t, "all messages are accounted for", func() bool {
			tellAudit(t, "what comes after a gap tells its extent")
			return l.seen("user")+l.lost("netlink_overrun") >= n
		})
		l.stop()
		if l.lost("netlink_overrun") < n/2 {
			t.Errorf("a socket with room for %d bytes lost %d of %d", room, l.lost("netlink_overrun"), n)
		}
		t.Logf("with room for %d bytes: seen %d, lost %d", room, l.seen("user"), l.lost("netlink_overrun"))
	}
}

// TestLiveRate sheds what is above a rate.
func TestLiveRate(t *testing.T) {
	needAudit(t)
	const n = 2_000
	l := watch(t, Options{Kinds: []event.ID{event.KindUser}, Rates: map[string]float64{"user": 10}})
	messages(t, n)
	eventually(t, "all messages are accounted for", func() bool { return l.seen("user") >= n })
	if got := l.lost("rate_limited"); got > n-10*burstSeconds || got < n/2 {
		t.Errorf("%d of %d are shed", got, n)
	}
}

// stormKinds are what a storm does once a turn.
var stormKinds = []event.ID{event.KindExec, event.KindConnect, event.KindFile}

// playCount counts the events of one program, until its standard input ends.
func playCount() {
	fs := procfs.At("")
	id, _ := fs.BootID()
	s, err := Open(Options{FS: fs, BootID: strings.ReplaceAll(id, "-", ""), StateDir: os.Getenv("STATE"),
		Kinds: stormKinds, Watches: []Watch{{Path: os.Getenv("FILE"), Dir: true}},
		Tell: func(line string) { fmt.Fprintln(os.Stderr, line) }})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("case", s.Case())
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan *event.Batch, 8)
	done := make(chan error)
	go func() { done <- s.Run(ctx, out) }()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var n [event.MaxKind + 1]uint64
	for {
		select {
		case b := <-out:
			for _, e := range b.Events {
				if h := e.Head(); h.Path == os.Getenv("STORM") {
					n[h.Kind]++
				}
			}
			b.Release()
		case err := <-done:
			if err := errors.Join(err, s.Close()); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			peak, _ := fs.SelfPeak()
			fmt.Print(n[event.KindExec], n[event.KindConnect], n[event.KindFile], peak)
			for _, kind := range append([]event.ID{0}, stormKinds...) {
				lost := uint64(0)
				for _, c := range s.Counts() {
					if c.What == event.Lost && c.Kind == kind {
						lost += c.N
					}
				}
				fmt.Print(" ", lost)
			}
			fmt.Println()
			for _, c := range s.Counts() {
				fmt.Fprintf(os.Stderr, "%+v\n", c)
			}
			return
		}
	}
}

// TestLiveStorm has four workers start programs, connect and write to watched files, as fast
// as they can: every one is delivered, or lost and counted. GOSHAWK_STORM is how many
// seconds that lasts, 10 when not set.
func TestLiveStorm(t *testing.T) {
	needAudit(t)
	if os.Getenv("GOSHAWK_KERNELTEST") != "" {
		t.Skip("an emulated processor makes no storm: needs a kernel on real hardware")
	}
	dir := t.TempDir()
	storm, watched := filepath.Join(dir, "storm"), filepath.Join(dir, "watched")
	run(t, "gcc", "-static", "-O2", "-Wall", "-Werror", "-o", storm, "testdata/storm.c")
	if err := os.Mkdir(watched, 0o755); err != nil {
		t.Fatal(err)
	}
	seconds := "10"
	if s := os.Getenv("GOSHAWK_STORM"); s != "" {
		seconds = s
	}
	r := startRole(t, "count", &syscall.SysProcAttr{}, "STATE="+filepath.Join(dir, "state"), "STORM="+storm, "FILE="+watched)
	if r.first != "case own" {
		t.Fatalf("it said %q", r.first)
	}
	out, err := exec.Command(storm, seconds, "4", watched).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pid := r.cmd.Process.Pid
	var cpu unix.Timespec
	if err := unix.ClockGettime(int32(^uint32(pid)<<3|2), &cpu); err != nil { // clock_getcpuclockid(3)
		t.Error(err)
	}
	last, told := r.end()
	var done, load, peak, unknown uint64
	var got, lost [3]uint64
	if _, err := fmt.Sscan(string(out), &done, &load); err != nil {
		t.Fatalf("the storm said %q", out)
	}
	if _, err := fmt.Sscan(last, &got[0], &got[1], &got[2], &peak, &unknown, &lost[0], &lost[1], &lost[2]); err != nil {
		t.Fatalf("it said %q, told %q", last, told)
	}
	for i, kind := range stormKinds {
		want := done
		if kind == event.KindExec {
			want++ // the storm itself
		}
		if kind == event.KindFile {
			want += 4 // files made
		}
		// Whose lost events were is not known: others on the machine may have some, too.
		if got[i] > want || got[i]+lost[i]+unknown < want || lost[i]+unknown == 0 && got[i] != want {
			t.Errorf("%d events of kind %s are %d delivered, %d lost and %d lost of any kind\n%s", want, kind, got[i], lost[i], unknown, told)
		}
	}
	if peak > 100<<20 {
		t.Errorf("it held %d MB", peak>>20)
	}
	t.Logf("%d turns in %s s, CPU %.0f us a turn and %.1f us for reading it; lost %v and %d; %d MB",
		done, seconds, float64(load)/float64(done)/1e3, float64(cpu.Nano())/float64(done)/1e3, lost, unknown, peak>>20)
}
