package process

import (
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

// name is the file name of the program, or the comm of a kernel thread.
func (m *image) name() string {
	if m.path == "" {
		return m.comm
	}
	return m.path[strings.LastIndexByte(m.path, '/')+1:]
}
