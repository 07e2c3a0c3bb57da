package process

// list is a queue of entries, oldest first, threaded through them. An entry is in one
// list at most.
type list struct{ head, tail *entry }

func (l *list) push(p *entry) {
	p.prev, p.next = l.tail, nil
	if l.tail != nil {
		l.tail.next = p
	} else {
		l.head = p
	}
	l.tail = p
}

func (l *list) remove(p *entry) {
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		l.head = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	} else {
		l.tail = p.prev
	}
	p.prev, p.next = nil, nil
}

// touch makes p the newest.
func (l *list) touch(p *entry) {
	if l.tail == p {
		return
	}
	l.remove(p)
	l.push(p)
}

// leafTries is how many of the longest unseen processes are looked at for one that has
// no children. In a tree of shells and daemons one of the first few is a leaf; only a
// chain of forks, each parent waiting, is long without one.
const leafTries = 16

// trim forgets the exited whose grace is over, then whatever the bounds ask for.
func (t *Table) trim() {
	for p := t.exited.head; p != nil && p.died+t.grace < t.now; p = t.exited.head {
		t.drop(p)
	}
	for t.n > t.opt.MaxEntries || t.bytes > t.opt.MaxBytes {
		if p := t.exited.head; p != nil {
			t.evictedExited++
			t.drop(p)
			continue
		}
		p := t.running.head
		for i := 0; i < leafTries && p != nil && p.children > 0; i++ {
			p = p.next
		}
		if p == nil || p.children > 0 {
			p = t.running.head
		}
		if p == nil {
			return
		}
		t.evicted++
		t.drop(p)
	}
}

// drop takes p out of the table.
func (t *Table) drop(p *entry) {
	if p.dead {
		t.exited.remove(p)
	} else {
		t.running.remove(p)
	}
	if at := t.byPID[p.pid]; at == p {
		if p.older != nil {
			t.byPID[p.pid] = p.older
		} else {
			delete(t.byPID, p.pid)
		}
	} else {
		for at.older != p {
			at = at.older
		}
		at.older = p.older
	}
	p.older = nil
	t.setParent(p, nil)
	t.release(p.image)
	t.release(p.before)
	t.release(p.maker)
	p.image, p.before, p.maker = nil, nil, nil
	t.setChain(p, nil)
	p.gone = true
	t.n--
	if p.children == 0 {
		t.bytes -= entryBytes
	}
	// Else children still point at p: it is charged until the last of them lets go.
}

// setParent makes q (or nothing) the parent of p.
func (t *Table) setParent(p, q *entry) {
	if old := p.parent; old != nil {
		old.children--
		if old.gone && old.children == 0 {
			t.bytes -= entryBytes
		}
	}
	p.parent = q
	if q != nil {
		q.children++
	}
}
