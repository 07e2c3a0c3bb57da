package fanotify

// change is a file that was changed and not closed since.
type change struct {
	Change
	key      string
	deadline uint64
	at       int64 // unix ns
	before   meta
	known    bool
}

const (
	maxOpen = 4_096
	settle  = 1_000_000_000 // ns after which a change is told although the file is still open
)

// Settle tells of changes of files that stay open, at their time.
func (r *Reader) Settle(now uint64, yield func(*Change)) {
	for key, p := range r.open {
		if now < p.deadline {
			continue
		}
		delete(r.open, key)
		c := p.Change
		c.Operation = "write"
		switch {
		case p.known && c.Stat && c.Size < p.before.size:
			c.Operation = "truncate"
		case p.known && c.Stat && c.Size == p.before.size && (c.MTime+settle < p.at || c.MTime > p.at+settle):
			c.Operation = "utimes" // of another time than when it happened
		}
		r.told.Add(1)
		r.emit(&c, 1, yield)
	}
}

// Due is when Settle has something to do; 0 never.
func (r *Reader) Due() uint64 {
	var due uint64
	for _, p := range r.open {
		if due == 0 || p.deadline < due {
			due = p.deadline
		}
	}
	return due
}
