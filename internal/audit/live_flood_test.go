package audit

import (
	"os/exec"
	"sync"
	"testing"

	"github.com/goshawk-project/goshawk/internal/event"
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
	before, err := c.status()
	if err != nil {
		t.Fatal(err)
	}
	l := watch(t, Options{Backlog: 1})
	var after status
	execs := uint64(0)
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
		if after, err = c.status(); err != nil {
			t.Fatal(err)
		}
		return after.lost > before.lost
	})
	eventually(t, "the loss is counted", func() bool {
		run(t, "/bin/true")
		execs++
		after, err = c.status()
		return err == nil && l.s.kernelLost.Load() >= uint64(after.lost-before.lost)
	})
	l.stop()
	if after, err = c.status(); err != nil || l.s.kernelLost.Load() > uint64(after.lost-before.lost) {
		t.Errorf("the kernel lost %d records, counted are %d, %v", after.lost-before.lost, l.s.kernelLost.Load(), err)
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
	const n = 8_000
	l := watch(t, Options{Receive: 1, Rates: map[string]float64{"user": 0}})
	messages(t, n)
	eventually(t, "all messages are accounted for", func() bool {
		tellAudit(t, "what comes after a gap tells its extent")
		return l.seen("user")+l.lost("netlink_overrun") >= n
	})
	l.stop()
	if l.lost("netlink_overrun") < n/10 {
		t.Errorf("a socket without room lost %d of %d", l.lost("netlink_overrun"), n)
	}
	t.Logf("seen %d, lost %d", l.seen("user"), l.lost("netlink_overrun"))
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
