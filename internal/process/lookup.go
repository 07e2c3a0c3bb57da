package process

// answer is what came of a look-up.
type answer uint8

const (
	found answer = iota
	absent
	limited
)

// look asks Options.Lookup about a pid; what it finds is in t.found.
func (t *Table) look(pid uint32) answer {
	if t.opt.Lookup == nil {
		return absent
	}
	if !t.mayLook() {
		return limited
	}
	t.found.Reset()
	if !t.opt.Lookup(pid, &t.found) || t.found.PID != pid {
		return absent
	}
	return found
}

// mayLook counts a look-up, and reports whether it may be made in this second.
func (t *Table) mayLook() bool {
	t.countSecond()
	if t.lookups >= t.opt.MaxLookups {
		t.limited++
		return false
	}
	t.lookups++
	return true
}

// mayLookAside reports whether a look-up that completes nothing may be made: half of them are
// left to those that do.
func (t *Table) mayLookAside() bool {
	t.countSecond()
	return t.opt.Lookup != nil && t.lookups < t.opt.MaxLookups/2
}

func (t *Table) countSecond() {
	if s := t.now / 1e9; s != t.lookupSecond {
		t.lookupSecond, t.lookups = s, 0
	}
}

// ask looks p up, and reports whether it learnt something. It learns nothing of a
// process that is gone, or whose pid has a new owner.
func (t *Table) ask(p *entry) bool {
	switch t.look(p.pid) {
	case limited:
		return false // and try again at its next event
	case absent:
		p.asked = true
		return false
	}
	if p.start == 0 {
		p.start, p.coarse = t.found.Start, inexact(&t.found)
	} else if p.guessed {
		if !t.mayHaveStarted(p, t.found.Start) {
			p.asked = true
			return false
		}
		if !p.told {
			p.start, p.coarse, p.guessed = t.found.Start, inexact(&t.found), false
		}
	} else if t.found.Start/tick != p.start/tick {
		p.asked = true
		return false
	}
	t.describe(p, &t.found)
	return true
}
