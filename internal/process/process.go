// Package process is the process table: for each process, named by pid and start time,
// what is known of it. It completes events with what their records lack: path, parent,
// terminal, login and ancestry.
//
// It must never know where events come from or go to, and reads no file itself. The
// goroutine that calls Complete owns the table; nothing here locks.
package process

import (
	"strings"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
)

const (
	// DefaultEntries bounds the table's processes, running and lately exited.
	DefaultEntries = 1 << 16
	// DefaultBytes bounds its memory: about 30,000 processes with ordinary arguments.
	DefaultBytes = 12 << 20
	// DefaultGrace is how long an exited process is kept for events that come late.
	DefaultGrace = 30 * time.Second
	// DefaultLookups bounds look-ups a second; one in /proc costs about 25 us.
	DefaultLookups = 100

	// tick is the unit of start times in /proc: 10 ms, cut, not rounded (fs/proc/array.c).
	tick = 10_000_000

	// slack is how far the time of an event without its process's start may be off: audit
	// tells when the call began, by a clock that ticks every 1 to 10 ms, in whole ms.
	slack = 20_000_000
)

// Options of a table. Zero fields take the defaults above.
type Options struct {
	BootID     string // given to events without one
	MaxEntries int
	MaxBytes   int64
	Grace      time.Duration // counted in event time

	// Lookup describes the process that has this pid now, as a seed would, into an empty
	// event; false when there is none. It is asked for processes whose start was missed.
	// Nil means never.
	Lookup func(pid uint32, into *event.Exec) bool
	// Place finds out in which cgroups a process is now, for a program started of which the
	// record does not say. Nil means never.
	Place func(h *event.Header)
	// MaxLookups bounds calls of Lookup and of Place in a second of event time.
	MaxLookups int
}

// Table is the process table.
type Table struct {
	opt   Options
	grace uint64

	byPID   map[uint32]*entry // the newest of each pid; older ones hang off it
	running list              // least recently seen first
	exited  list              // first exited first
	n       int
	bytes   int64
	now     uint64 // newest NTime seen
	version uint64
	ttys    map[string]string

	found         event.Exec // scratch of lookup
	lookupSecond  uint64
	lookups       int
	buf, tmp      []byte
	evictedExited uint64
	evicted       uint64
	limited       uint64
}

// entry is one process. Entries are found by pid and start; a pid alone is only followed
// when a record has nothing better.
type entry struct {
	start  uint64 // ns since boot; 0 unknown
	pstart uint64
	since  uint64 // when image was put in place
	died   uint64 // when it exited

	// version changes with everything that an ancestors text says about this process.
	version uint64
	parent  *entry // may be gone; see parentOf
	image   *image // nil unknown
	before  *image // what ran before since
	maker   *image // what its maker ran then; nil unknown
	chain   *chain // ancestors text of its children
	older   *entry // same pid, started earlier

	prev, next *entry // in running or exited

	session    member
	makerStart uint64
	execEID    int64  // number of the event that told of image; 0 none did, or not known
	makerPID   uint32 // who forked it; 0 unknown
	makerNS    uint32 // inode of the pid namespace that the maker was in, 0 the initial one
	pidNS      uint32 // of its own

	tty      string
	cgroup   uint64
	cgroupV1 uint64
	pid      uint32
	ppid     uint32
	uid      uint32 // as the last record that knew said, with the three below
	gid      uint32
	euid     uint32
	egid     uint32
	auid     uint32
	audit    uint32 // audit session
	children int32  // entries whose parent points here
	coarse   bool   // start is cut to a tick
	guessed  bool   // start is when it was first heard of; see guess.go
	born     bool   // that was its fork
	told     bool   // an event has named it by its start
	dead     bool
	exitSeen bool // its exit event came
	asked    bool // Lookup has nothing more to say
	gone     bool // no longer in the table

	traced    bool // settle has nothing more to say
	seeded    bool // its arguments are those that it had when it was met
	looked    bool // rewrote has looked
	rewritten bool
}

// image is what one exec put in place. It is shared by the process and by the children
// it forks until they exec themselves, and never changes.
type image struct {
	path    string
	cmdline string // first bytes of the arguments, joined by spaces
	comm    string
	json    string // `,"path":…,"cmdline":…}`, made when first needed
	refs    int32  // of entries, for the byte count only

	disguise disguise // as its exec showed it
}

// What the Go heap holds for an entry, an image and a chain: the allocator's size
// classes, with the entry's share of the map and the rounding of texts.
const (
	entryBytes = 240 + 48
	imageBytes = 80 + 16
	chainBytes = 64 + 16
)

// unset is the kernel's (uid_t)-1 for "no login" and "no session".
const unset = 1<<32 - 1

// New returns an empty table.
func New(opt Options) *Table {
	if opt.MaxEntries <= 0 {
		opt.MaxEntries = DefaultEntries
	}
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = DefaultBytes
	}
	if opt.Grace <= 0 {
		opt.Grace = DefaultGrace
	}
	if opt.MaxLookups <= 0 {
		opt.MaxLookups = DefaultLookups
	}
	return &Table{
		opt: opt, grace: uint64(opt.Grace),
		byPID: make(map[uint32]*entry), ttys: make(map[string]string),
	}
}

// Len is the number of processes known, running and exited.
func (t *Table) Len() int { return t.n }

// Bytes is the memory that the table accounts for.
func (t *Table) Bytes() int64 { return t.bytes }

// Counts returns what the table gave up so far.
func (t *Table) Counts() []event.Count {
	return []event.Count{
		{Source: "process", What: event.Evicted, Reason: "exited_early", N: t.evictedExited},
		{Source: "process", What: event.Evicted, Reason: "running", N: t.evicted},
		{Source: "process", What: event.Evicted, Reason: "lookup_limit", N: t.limited},
	}
}

// Seed enters a process that ran before the agent did. It is described by the exec that
// might have made it; the table copies what it keeps. What events said already stands.
func (t *Table) Seed(e *event.Exec) {
	if e.PID != 0 {
		t.seed(e)
		t.trim()
	}
}

func (t *Table) seed(e *event.Exec) *entry {
	p := t.find(e.PID, e.Start, 0)
	if p == nil {
		p = t.add(e.PID, e.Start)
		p.coarse = inexact(e)
	}
	t.describe(p, e)
	return p
}

// inexact reports whether a seed's start is cut to a tick.
func inexact(e *event.Exec) bool { return e.Source != "ebpf" && e.Start%tick == 0 }

// describe adds what a seed says to what is known of p.
func (t *Table) describe(p *entry, e *event.Exec) {
	p.asked = true
	if p.ppid == 0 {
		pstart := e.PStart
		if inexact(e) {
			pstart = 0 // so is that one, and the parent's own entry knows better
		}
		t.setPPID(p, e.PPID, pstart)
	}
	t.login(p, &e.Header)
	if p.image == nil && !p.dead {
		t.setImage(p, t.newImage(e))
		p.seeded = true
	}
}

// find returns the entry of a process, or nil. With start 0 it is the one that had this
// pid at a time (0: the newest).
func (t *Table) find(pid uint32, start, ntime uint64) *entry {
	return t.findWithin(pid, start, ntime, 0)
}

// findWithin is find for a time that may have been up to so many ns earlier.
func (t *Table) findWithin(pid uint32, start, ntime, within uint64) *entry {
	for p := t.byPID[pid]; p != nil; p = p.older {
		switch {
		case start == 0:
			if ntime == 0 || p.start <= ntime+slack && (!p.dead || ntime <= p.died+slack+within) {
				return p
			}
		case p.start == start:
			return p
		case p.guessed:
			if t.mayHaveStarted(p, start) {
				p.start, p.guessed = start, false
				return p
			}
		case p.coarse && p.start == start-start%tick:
			p.start, p.coarse = start, false
			return p
		case start%tick == 0 && p.start-p.start%tick == start && p.start != 0:
			return p // the record is the coarse one
		}
	}
	return nil
}

// add makes the entry of a process not known so far.
func (t *Table) add(pid uint32, start uint64) *entry {
	t.version++
	p := &entry{pid: pid, start: start, version: t.version, auid: unset, audit: unset, uid: unset, gid: unset, euid: unset, egid: unset}
	at := t.byPID[pid]
	if at == nil || start == 0 || start >= at.start {
		if at != nil && !at.dead {
			t.bury(at, t.now) // its pid is in use again: its exit was missed
		}
		p.older = at
		t.byPID[pid] = p
	} else {
		for at.older != nil && at.older.start > start {
			at = at.older
		}
		p.older, at.older = at.older, p
	}
	t.running.push(p)
	t.n++
	t.bytes += entryBytes
	if p != t.byPID[pid] {
		t.bury(p, t.now)
	}
	return p
}

// bury moves p to the exited.
func (t *Table) bury(p *entry, at uint64) {
	t.running.remove(p)
	p.dead, p.died = true, at
	t.exited.push(p)
}

// login copies what a record says about the terminal, login and cgroup of p, and never
// overwrites knowledge with its absence. Session 0 is none that the kernel gives out:
// such a record holds neither login uid nor session.
func (t *Table) login(p *entry, h *event.Header) {
	if h.Session != 0 {
		p.auid, p.audit = h.AUID, h.Session
	}
	if h.UID != unset {
		p.uid, p.gid, p.euid, p.egid = h.UID, h.GID, h.EUID, h.EGID
	}
	if h.TTY != "" && h.TTY != p.tty {
		p.tty = t.internTTY(h.TTY)
	}
	if h.CgroupID != 0 {
		p.cgroup = h.CgroupID
	}
	if h.CgroupV1 != 0 {
		p.cgroupV1 = h.CgroupV1
	}
	if h.PIDNamespace != 0 {
		p.pidNS = h.PIDNamespace
	}
}

const maxTTYs = 1024 // names of terminals kept once; a host rarely has fifty

func (t *Table) internTTY(s string) string {
	if have, ok := t.ttys[s]; ok {
		return have
	}
	s = strings.Clone(s)
	if len(t.ttys) < maxTTYs {
		t.ttys[s] = s
	}
	return s
}
