package audit

import (
	"slices"
	"time"
)

const (
	// missedWait is how long a number may be awaited: an event has its number when its first
	// record is begun, and is sent when that is finished, so numbers of several processors
	// come out of order.
	missedWait = 500 * time.Millisecond
	maxHoles   = 64
)

// missed finds out how many events a full socket has cost. The kernel says only that there was
// no room (ENOBUFS), once, before it hands over what lay in the socket by then; but events are
// numbered, and what is missing among those read until the socket was empty once, and the
// first one after, was lost.
type missed struct {
	highest uint64 // number read
	state   missedState
	found   bool // something was found missing since it overran
	holes   []hole
}

type missedState int

const (
	nothingMissed missedState = iota
	overrun                   // told of; what is read now was sent before, or after
	passedOver                // what was sent before has been read
)

// hole is numbers that have not come.
type hole struct {
	from, to uint64 // both inclusive
	since    time.Time
}

// overrun notes that the kernel found no room.
func (m *missed) overrun() { m.state = overrun }

// emptied notes that nothing is left in the socket.
func (m *missed) emptied() {
	if m.state == overrun {
		m.state = passedOver
	}
}

// see takes the number of a record in, 0 for one without, and returns how many events are
// found to be lost.
func (m *missed) see(n uint64, now time.Time) (lost uint64) {
	if n == 0 {
		return m.settle(now)
	}
	if n < m.highest {
		return m.fill(n) + m.settle(now)
	}
	if m.state != nothingMissed && m.highest > 0 && n > m.highest+1 {
		if len(m.holes) == maxHoles {
			lost += m.holes[0].to - m.holes[0].from + 1
			m.holes = slices.Delete(m.holes, 0, 1)
		}
		m.holes = append(m.holes, hole{m.highest + 1, n - 1, now})
		m.found = true
	}
	if m.state == passedOver && n > m.highest {
		lost += m.close()
	}
	m.highest = n
	return lost + m.settle(now)
}

// close ends the search after an overrun: at least the rest of an event was lost.
func (m *missed) close() (lost uint64) {
	if m.state != nothingMissed && !m.found {
		lost = 1
	}
	m.state, m.found = nothingMissed, false
	return lost
}

// end returns what is lost when nothing comes any more.
func (m *missed) end() (lost uint64) {
	for _, h := range m.holes {
		lost += h.to - h.from + 1
	}
	m.holes = nil
	return lost + m.close()
}

// fill takes a number out of the hole that it lies in, and returns how many of it are given up.
func (m *missed) fill(n uint64) (lost uint64) {
	for i := range m.holes {
		h := &m.holes[i]
		switch {
		case n < h.from || n > h.to:
			continue
		case h.from == h.to:
			m.holes = slices.Delete(m.holes, i, i+1)
		case n == h.from:
			h.from++
		case n == h.to:
			h.to--
		default:
			rest := hole{n + 1, h.to, h.since}
			h.to = n - 1
			if len(m.holes) == maxHoles {
				return rest.to - rest.from + 1
			}
			m.holes = slices.Insert(m.holes, i+1, rest)
		}
		return 0
	}
	return 0
}

// settle returns how many events have not come in time, and forgets them.
func (m *missed) settle(now time.Time) (lost uint64) {
	for len(m.holes) > 0 && now.Sub(m.holes[0].since) >= missedWait {
		lost += m.holes[0].to - m.holes[0].from + 1
		m.holes = slices.Delete(m.holes, 0, 1)
	}
	return lost
}
