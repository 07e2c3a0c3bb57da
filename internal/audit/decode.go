package audit

import (
	"sync"

	"github.com/goshawk-project/goshawk/internal/event"
)

// bundle decodes an event of several records.
func (d *decoder) bundle(g *bundle) {
	called := false
	for i := range g.records {
		r := &g.records[i]
		if r.typ != typeSyscall && r.typ != typeUringOp {
			continue
		}
		if called { // never seen; a row is made of one call
			d.count(0, lostMalformed)
			continue
		}
		if called = d.parseCall(g.of(r)); !called {
			d.count(0, lostMalformed)
			return
		}
	}
	others := d.told(g, called)
	switch {
	case called:
		d.called(g, others)
	case !others:
		d.count(g.kind(), lostIncomplete)
	}
}

// of is the text of a record.
func (g *bundle) of(r *piece) []byte { return g.text[r.from:r.to] }

// find returns the first record of a type.
func (g *bundle) find(typ uint16) ([]byte, bool) {
	for i := range g.records {
		if g.records[i].typ == typ {
			return g.of(&g.records[i]), true
		}
	}
	return nil, false
}

// kind is what an event without its SYSCALL record would have been, 0 when that cannot be
// told.
func (g *bundle) kind() event.ID {
	for i := range g.records {
		switch g.records[i].typ {
		case typeExecve, typeBprmFcaps:
			return event.KindExec
		case typeKernModule:
			return event.KindModule
		case typeCapset:
			return event.KindCredential
		}
	}
	return 0
}

// told decodes the records of a bundle that are about something else than its call, and
// reports whether there were any.
func (d *decoder) told(g *bundle, called bool) bool {
	any := false
	for i := range g.records {
		r := &g.records[i]
		switch {
		case r.typ == typeAVC || r.typ == typeSelinuxErr || r.typ > typeLastMAC && r.typ <= typeLastAppArm:
			d.policy(g, r.typ, g.of(r), called)
		case r.typ == typeConfigChange, r.typ == typeFeatureChange, r.typ == typeEventListener:
			d.configured(g, r.typ, g.of(r), called)
		default:
			continue
		}
		any = true
	}
	return any
}

// called decodes what a bundle's call did.
func (d *decoder) called(g *bundle, others bool) {
	c := &d.call
	d.clones.saw(d, c.pid, c.ppid, g.stamp)
	if c.def == nil {
		if !others {
			d.count(0, noKind)
		}
		return
	}
	switch c.def.do {
	case doExec:
		d.exec(g)
	case doFork, doClone, doClone3:
		d.fork(g)
	case doExit:
		d.exit(g)
	case doConnect:
		d.socket(g, event.KindConnect, c.signed(0))
	case doAccept:
		d.socket(g, event.KindAccept, c.signed(0))
	case doBind:
		d.socket(g, event.KindBind, c.signed(0))
	case doListen:
		d.socket(g, event.KindListen, c.signed(0))
	case doSocketCall:
		d.socketCall(g)
	case doCredential:
		d.credential(g)
	case doPtrace:
		d.ptrace(g)
	case doSignal:
		d.signal(g)
	case doModule:
		d.module(g)
	case doMount:
		d.mount(g)
	case doFile:
		d.file(g)
	}
}

// defTables find the definition of a call by its number.
type defTables struct{ amd64, i386, arm64, arm, x32 []*callDef }

var defs = sync.OnceValue(func() *defTables {
	byName := make(map[string]*callDef, len(callDefs))
	for i := range callDefs {
		byName[callDefs[i].name] = &callDefs[i]
	}
	table := func(names []string) []*callDef {
		t := make([]*callDef, len(names))
		for nr, name := range names {
			if name != "" {
				t[nr] = byName[name]
			}
		}
		return t
	}
	return &defTables{
		amd64: table(callsAMD64[:]), i386: table(calls386[:]), arm64: table(callsARM64[:]), arm: table(callsARM[:]),
		x32: table(callsX32[:]),
	}
})

// defOf returns what is known of a call, nil when it becomes no event.
func defOf(arch uint32, nr uint64) *callDef {
	t := defs()
	var list []*callDef
	switch arch {
	case archX86_64:
		list = t.amd64
		if nr&x32Bit != 0 {
			if nr &^= x32Bit; nr >= firstX32 {
				list, nr = t.x32, nr-firstX32
			}
		}
	case archI386:
		list = t.i386
	case archAArch64:
		list = t.arm64
	case archARM:
		list = t.arm
	}
	if nr >= uint64(len(list)) {
		return nil
	}
	return list[nr]
}

func uringDef(op uint64) *callDef {
	if def, ok := uringOps[op]; ok {
		return &def
	}
	return nil
}

// alive parts a path from the kernel's note that no name leads to it any more.
func alive(path string) (string, bool) {
	const note = " (deleted)"
	if n := len(path) - len(note); n > 0 && path[n:] == note {
		return path[:n], false
	}
	return path, true
}
