package process

import (
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
)

// disguise is in what a process is not what it calls itself, or what its file is not: bits.
type disguise uint8

const (
	namedOther   disguise = 1 << iota // argv[0] names another program than the file
	renamed                           // the main thread has set itself another name than the file's
	rewritten                         // the arguments in memory name another program than those executed
	deletedFile                       // the file executed has no name left
	inMemory                          // the file executed is in memory only
	cutArgs                           // there are more arguments than are kept
	paddedArgs                        // the arguments hold a run of blanks
	disguiseBits = iota
)

// disguises are the texts of a column of strings, by bits.
var disguises = func() (all [1 << disguiseBits]string) {
	names := [...]string{"argv0", "comm", "argv", "deleted", "memfd", "args_cut", "args_padded"}
	for d := range all {
		for i, name := range names {
			if d>>i&1 != 0 {
				all[d] += name + "\x00"
			}
		}
	}
	return all
}()

// padding is how many blanks in a row nobody writes who does not want to hide what follows.
const padding = 200

// disguiseOf says what an exec shows at once.
func disguiseOf(e *event.Exec) disguise {
	var d disguise
	switch {
	case e.Memfd:
		d |= inMemory
	case e.Deleted:
		d |= deletedFile
	}
	if e.ArgsTruncated {
		d |= cutArgs
	}
	if padded(e.Args) {
		d |= paddedArgs
	}
	first, _, _ := strings.Cut(e.Args, "\x00")
	// The arguments of a script are the kernel's own work (fs/binfmt_script.c).
	if e.Interpreter == "" && d&inMemory == 0 && e.Path != "" && !names(first, e.Path) && !names(first, e.Filename) {
		d |= namedOther
	}
	return d
}

func padded(args string) bool {
	if len(args) < padding {
		return false
	}
	run := 0
	for i := 0; i < len(args); i++ {
		if c := args[i]; c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			run = 0
		} else if run++; run == padding {
			return true
		}
	}
	return false
}

// names reports whether argv[0], or what a daemon has written there (nginx: worker process),
// is a name of a file: as the file is called, or as a login shell is (-bash).
func names(first, path string) bool {
	first = strings.TrimLeft(first, "-(")
	if i := strings.IndexAny(first, " :)"); i >= 0 {
		first = first[:i]
	}
	name := base(path)
	return name != "" && base(first) == name
}

func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// judge says in what a process is disguised as an event shows it. A thread's name is its own
// affair; only the main thread's is taken for the program's.
func (t *Table) judge(h *event.Header, p *entry, m *image) {
	d := m.disguise
	if h.TID == h.PID && h.Comm != m.comm && m.comm != "" && m.path != "" && h.Comm != "" {
		d |= renamed
	}
	if acts(h.Kind) && t.rewrote(p, m) {
		d |= rewritten
	}
	h.Disguise = disguises[d]
}

// acts reports whether an event of a kind is worth a look at what its process calls itself.
func acts(kind event.ID) bool {
	switch kind {
	case event.KindExec, event.KindFork, event.KindExit, event.KindClose, event.KindFile, event.KindContainer, event.KindDNS:
		return false
	}
	return true
}

// rewrote looks, once for each program executed, into /proc for arguments that are others
// by now. Which of a process's deeds finds them is chance: most that do this do it first.
func (t *Table) rewrote(p *entry, m *image) bool {
	switch {
	case p.image != m:
		return false
	case p.looked || p.dead:
		return p.rewritten
	case m.path == "" || m.cmdline == "" || p.seeded || !t.mayLookAside():
		return false
	}
	if t.look(p.pid) != found || p.start != 0 && t.found.Start/tick != p.start/tick {
		p.looked = true
		return false
	}
	p.looked = true
	now := t.newImage(&t.found)
	if now.path != m.path || now.cmdline == "" || now.cmdline == m.cmdline {
		return false // it has executed another program since, or has said nothing new
	}
	old, _, _ := strings.Cut(m.cmdline, " ")
	p.rewritten = !names(now.cmdline, m.path) && !names(now.cmdline, old)
	return p.rewritten
}
