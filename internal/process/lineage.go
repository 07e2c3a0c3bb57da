package process

import (
	"slices"
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
)

// AppendLineage appends the names of the processes above the one that h names, nearest
// first and at most max, to dst: what each ran when the event happened, which may be some
// events ago. A process whose name is not known ends the list.
func (t *Table) AppendLineage(dst []string, h *event.Header, max int) []string {
	p := t.find(h.PID, h.Start, h.NTime)
	for ; p != nil && max > 0; max-- {
		if p = t.parentOf(p); p == nil {
			break
		}
		m := p.imageAt(h.NTime)
		if m == nil {
			break
		}
		dst = append(dst, m.name())
	}
	return dst
}

// Numbered learns the number that the log has given to an exec.
func (t *Table) Numbered(e *event.Exec) {
	if p := t.find(e.PID, e.Start, e.NTime); p != nil && p.since == e.NTime {
		p.execEID = e.EID
	}
}

// AppendExecs appends the numbers of the events that told what the process that h names runs,
// and what those above it and the leader of its session do.
func (t *Table) AppendExecs(dst []int64, h *event.Header) []int64 {
	add := func(p *entry) {
		if p != nil && p.execEID != 0 && !slices.Contains(dst, p.execEID) {
			dst = append(dst, p.execEID)
		}
	}
	p := t.find(h.PID, h.Start, h.NTime)
	if p == nil {
		return dst
	}
	leader := p.session
	for n := 0; p != nil && n <= maxLevels; n++ {
		add(p)
		p = t.parentOf(p)
	}
	if leader.leaderPID != 0 {
		add(t.find(leader.leaderPID, leader.leaderStart, h.NTime))
	}
	return dst
}

// Ancestors is the JSON array of the processes above the one that h names, nearest first; empty
// when none is known.
func (t *Table) Ancestors(h *event.Header) string {
	p := t.find(h.PID, h.Start, h.NTime)
	if p == nil {
		return ""
	}
	q := t.parentOf(p)
	if q == nil {
		return ""
	}
	return t.ancestors(q)
}

// name is the file name of the program, or the comm of a kernel thread.
func (m *image) name() string {
	if m.path == "" {
		return m.comm
	}
	return m.path[strings.LastIndexByte(m.path, '/')+1:]
}
