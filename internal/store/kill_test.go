package store

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
)

// childDir is the variable that makes this test binary append to a store for ever.
const (
	childDir = "GOSHAWK_TEST_STORE"
	childVFS = "GOSHAWK_TEST_VFS" // which it does so with
)

// appendForever prints the numbers of events, first and last, once these are acknowledged.
func appendForever(dir string) {
	s, err := Open(Options{Dir: dir, vfs: os.Getenv(childVFS)})
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(1)
	}
	f := newFeed()
	for {
		events := f.batch(1 + f.r.IntN(800))
		for _, e := range events {
			s.Append(e)
		}
		if err := s.Commit(context.Background()); err != nil {
			fmt.Println("commit:", err)
			os.Exit(1)
		}
		fmt.Println(events[0].Head().EID, events[len(events)-1].Head().EID)
	}
}

// TestKilledAtAnyMoment kills an agent again and again: all that it acknowledged is there,
// and no number is given out twice.
func TestKilledAtAnyMoment(t *testing.T) {
	for _, vfs := range []string{"", flockName} {
		t.Run("vfs "+vfs, func(t *testing.T) { killedAtAnyMoment(t, vfs) })
	}
}

func killedAtAnyMoment(t *testing.T, vfs string) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	var want []int64
	var opens []time.Duration
	for round := range 20 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childDir+"="+dir, childVFS+"="+vfs)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		// Every other round at any moment at all, the others when it has begun to acknowledge.
		delay := time.Duration(20+r.IntN(150)) * time.Millisecond
		kill := time.AfterFunc(delay, func() { child.Process.Kill() })
		if round%2 == 1 && kill.Stop() {
			kill = nil
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var first, last int64
			if _, err := fmt.Sscan(lines.Text(), &first, &last); err != nil {
				t.Fatalf("round %d: the agent says %q", round, lines.Text())
			}
			if kill == nil {
				kill = time.AfterFunc(delay, func() { child.Process.Kill() })
			}
			if len(want) > 0 && first <= want[len(want)-1] {
				t.Fatalf("round %d: number %d is given out again", round, first)
			}
			for n := first; n <= last; n++ {
				want = append(want, n)
			}
		}
		child.Wait()
		if kill != nil {
			kill.Stop()
		}

		start := time.Now()
		s := open(t, Options{Dir: dir, vfs: vfs})
		opens = append(opens, time.Since(start))
		got := eids(t, s, event.Selection{})
		for i, n := range got {
			if i > 0 && n <= got[i-1] {
				t.Fatalf("round %d: number %d comes after %d", round, n, got[i-1])
			}
		}
		for _, n := range want {
			if _, ok := slices.BinarySearch(got, n); !ok {
				t.Fatalf("round %d: event %d was acknowledged and is not there", round, n)
			}
		}
		shut(t, s)
	}
	if len(want) < 20 {
		t.Errorf("only %d events were acknowledged", len(want))
	}
	slices.Sort(opens)
	if opens[len(opens)/2] > 2*time.Second { // a few ms, but on a busy machine
		t.Errorf("opening took %v", opens)
	}
	t.Logf("%d events acknowledged; opening took %v to %v", len(want), opens[0], opens[len(opens)-1])
}
