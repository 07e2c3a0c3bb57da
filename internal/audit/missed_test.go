package audit

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestMissed has a socket overrun, and numbers come out of order.
func TestMissed(t *testing.T) {
	now := time.Unix(100, 0)
	// 0 is the kernel's word that there was no room, -1 that the socket is empty, -2 that time
	// passes.
	for _, c := range []struct {
		name string
		in   []int
		lost uint64
	}{
		{"nothing", []int{5, 6, 7, -1, 8}, 0},
		{"numbers that nobody sent", []int{5, 6, 9, -1, 12}, 0},
		{"after what lay there", []int{5, 0, 6, 7, -1, 12, 13}, 4},
		{"before the socket was seen empty", []int{5, 0, 6, 12, -1, 13, 14}, 5},
		{"the rest of an event", []int{5, 0, 6, -1, 7, 8}, 1},
		{"twice", []int{5, 0, 6, -1, 9, 0, 10, -1, 21, 22}, 12},
		{"one upon the other", []int{5, 0, 6, -1, 0, 9, -1, 21, 22}, 13},
		{"out of order", []int{5, 0, 6, 8, 7, -1, 20, 15, 19, 9, 21}, 8},
		{"late", []int{5, 0, 6, -1, 9, -2, 7, 8}, 2},
		{"at the end", []int{5, 0, 6}, 1},
		{"at the end, after a gap", []int{5, 0, 6, 9}, 2},
		{"first", []int{0, 6, -1, 9}, 2},
		{"records of one event", []int{5, 5, 0, 5, 5, -1, 7, 7, 7}, 1},
	} {
		var m missed
		var lost uint64
		for _, n := range c.in {
			switch n {
			case 0:
				m.overrun()
			case -1:
				m.emptied()
			case -2:
				now = now.Add(missedWait)
				lost += m.settle(now)
			default:
				lost += m.see(uint64(n), now)
			}
		}
		lost += m.end()
		if lost != c.lost {
			t.Errorf("%s: %d lost, want %d", c.name, lost, c.lost)
		}
	}
}

// TestMissedBounded has more holes than can be kept: each number is told of once all the same.
func TestMissedBounded(t *testing.T) {
	now := time.Unix(100, 0)
	m := missed{}
	lost := m.see(1, now)
	m.overrun()
	random := rand.New(rand.NewPCG(1, 2))
	var all, late []uint64
	for n := uint64(2); n <= 4*maxHoles; n++ {
		if n%2 == 0 {
			all = append(all, n)
		} else {
			late = append(late, n)
		}
	}
	for _, n := range all {
		lost += m.see(n, now)
	}
	given := lost
	random.Shuffle(len(late), func(i, j int) { late[i], late[j] = late[j], late[i] })
	for _, n := range late {
		lost += m.see(n, now)
	}
	if len(m.holes) > 0 || given < maxHoles-2 || lost != given {
		t.Errorf("%d holes are left, %d numbers given up, then %d", len(m.holes), given, lost)
	}
	m = missed{}
	lost = m.see(1, now)
	m.overrun()
	lost += m.see(1000, now)
	for n := uint64(3); n < 1000; n += 2 {
		lost += m.see(n, now)
	}
	if lost += m.end(); lost < 499 || len(m.holes) != 0 { // more, where it cannot tell any longer
		t.Errorf("%d lost of 499 numbers", lost)
	}
}

// TestTendReader sees that a reader whom the kernel answers nothing has something to wait for
// all the same, and does not turn round and round.
func TestTendReader(t *testing.T) {
	now := time.Now()
	s := &Source{how: CaseReader, volume: newVolume(nil), loop: loop{polled: now.Add(-time.Hour)}}
	s.tend(now)
	if s.loop.polled != now {
		t.Errorf("it looks again at %v, an hour ago", s.loop.polled)
	}
}
