package sensor

import (
	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
)

// fork decodes rec_fork.
func (d *decoder) fork(raw []byte, b *event.Batch) error {
	r, err := fixed[bpf.GoshawkRecFork](raw)
	if err != nil {
		return err
	}
	e := b.Add(event.KindFork).(*event.Fork)
	d.header(&e.Header, &r.Head)
	e.ChildPID, e.ChildStart, e.ChildPPID = r.ChildPid, r.ChildStart, r.ChildPpid
	return nil
}
