package process

// A record of the audit subsystem names a process by its pid alone. It is the one that has
// this pid at that time; when its start is not known either, it is taken for when the
// process was first heard of, until somebody knows better: a record with the start, or
// /proc. Once an event has named the process by a guess, only the former changes it.

// guess makes the entry of a process of which at is the time of the first event, or of
// its fork.
func (t *Table) guess(pid uint32, at uint64, born bool) *entry {
	p := t.add(pid, at)
	p.guessed, p.born = true, born
	return p
}

// mayHaveStarted reports whether p, whose start is guessed, is the process with this pid
// that started then.
func (t *Table) mayHaveStarted(p *entry, start uint64) bool {
	if start > p.start+slack || p.born && start+slack+tick < p.start {
		return false
	}
	newer := t.byPID[p.pid]
	if newer == p {
		newer = nil
	}
	for newer != nil && newer.older != p {
		newer = newer.older
	}
	return (p.older == nil || p.older.start < start) && (newer == nil || start < newer.start)
}

// identify settles how p is named from now on.
func (t *Table) identify(p *entry) {
	if p.guessed && !p.told && !p.asked && !p.dead {
		t.ask(p)
	}
	p.told = true
}

// child returns the entry of a process that a fork at ntime made; nil when there is none.
// Whoever had its pid before has it no more, even if nobody told of its end.
func (t *Table) child(pid uint32, ntime uint64) *entry {
	p := t.byPID[pid]
	if p == nil || p.start+slack < ntime || p.dead && p.died < ntime {
		return nil
	}
	return p
}

// target completes what an event says of a process that something was done to.
func (t *Table) target(pid uint32, ntime uint64, start *uint64, path, comm *string) {
	if pid == 0 {
		return
	}
	p := t.find(pid, *start, ntime)
	if p == nil {
		if t.look(pid) != found || *start != 0 && t.found.Start/tick != *start/tick || t.found.Start > ntime+slack {
			return
		}
		p = t.seed(&t.found)
	}
	t.identify(p)
	if p.start != 0 {
		*start = p.start
	}
	if m := p.imageAt(ntime); m != nil {
		if *path == "" {
			*path = m.path
		}
		if *comm == "" {
			*comm = m.comm
		}
	}
}
