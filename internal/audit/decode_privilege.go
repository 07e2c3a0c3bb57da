package audit

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// credential decodes set*id, setgroups and capset. The record holds who the process is
// after the call; before it is not told.
func (d *decoder) credential(g *bundle) {
	c := &d.call
	e, _ := d.add(event.KindCredential, g.stamp).(*event.Credential)
	if e == nil {
		return
	}
	d.caller(&e.Header)
	d.newIDs(e)
	e.Operation = strings.TrimSuffix(c.def.name, "32")
	e.Result = c.result()
	narrow := c.arch == archI386 && e.Operation == c.def.name // 16 bits
	b := d.text[:0]
	for i := range int(c.def.nargs) {
		if i > 0 {
			b = append(b, ',')
		}
		n := int64(uint32(c.args[i]))
		if n == unset || narrow && uint16(n) == 1<<16-1 {
			n = -1
		}
		b = strconv.AppendInt(b, n, 10)
	}
	d.text = b
	e.Argument = d.strings.get(b)
	if strings.HasPrefix(e.Operation, "setfs") && c.ended {
		// These return the number that was in force, and never fail.
		e.Result = "ok"
		if e.Operation == "setfsuid" {
			e.OldFSUID = uint32(c.exit)
		} else {
			e.OldFSGID = uint32(c.exit)
		}
	}
	if text, ok := g.find(typeCapset); ok {
		f := pairs{text}
		for x, ok := f.next(); ok; x, ok = f.next() {
			switch string(x.key) {
			case "cap_pi":
				e.NewInheritable = d.strings.get(x.value)
			case "cap_pp":
				e.NewPermitted = d.strings.get(x.value)
			case "cap_pe":
				e.NewEffective = d.strings.get(x.value)
			case "cap_pa":
				e.NewAmbient = d.strings.get(x.value)
			}
		}
	}
}

// newIDs fills in users and groups after a call, and that those before are not known.
func (d *decoder) newIDs(e *event.Credential) {
	c := &d.call
	e.OldUID, e.OldEUID, e.OldSUID, e.OldFSUID = unset, unset, unset, unset
	e.OldGID, e.OldEGID, e.OldSGID, e.OldFSGID = unset, unset, unset, unset
	e.NewUID, e.NewEUID, e.NewSUID, e.NewFSUID = c.uid, c.euid, c.suid, c.fsuid
	e.NewGID, e.NewEGID, e.NewSGID, e.NewFSGID = c.gid, c.egid, c.sgid, c.fsgid
}

// gained decodes what the file executed gave the process. A BPRM_FCAPS record is written when
// an exec sets capabilities: to root's that is any, of which only those that raise them are
// events.
func (d *decoder) gained(g *bundle) {
	text, ok := g.find(typeBprmFcaps)
	if !ok {
		return
	}
	var c event.Credential
	var oldP, newP, oldE, newE uint64
	f := pairs{text}
	for x, ok := f.next(); ok; x, ok = f.next() {
		n, ok := hexNumber(x.value)
		if !ok {
			continue
		}
		var s *string
		switch string(x.key) {
		case "old_pp":
			s, oldP = &c.OldPermitted, n
		case "old_pe":
			s, oldE = &c.OldEffective, n
		case "new_pp", "pp": // so called from Linux 4.15
			s, newP = &c.NewPermitted, n
		case "new_pe", "pe":
			s, newE = &c.NewEffective, n
		case "new_pi", "pi":
			s = &c.NewInheritable
		case "pa":
			s = &c.NewAmbient
		default:
			continue
		}
		*s = d.strings.get(x.value)
	}
	if newP&^oldP == 0 && newE&^oldE == 0 {
		return
	}
	e, _ := d.add(event.KindCredential, g.stamp).(*event.Credential)
	if e == nil {
		return
	}
	c.Header = e.Header
	*e = c
	d.caller(&e.Header)
	d.newIDs(e)
	e.Operation, e.Result = "exec", d.call.result()
}

// object is an OBJ_PID record: the process that a call was about.
type object struct {
	pid, uid, auid uint32
	comm           string
}

func (d *decoder) object(text []byte) object {
	o := object{uid: unset, auid: unset}
	f := pairs{text}
	for x, ok := f.next(); ok; x, ok = f.next() {
		switch string(x.key) {
		case "opid":
			if n := uid(x.value); n != unset {
				o.pid = n
			}
		case "oauid":
			o.auid = uid(x.value)
		case "ouid":
			o.uid = uid(x.value)
		case "ocomm":
			o.comm = d.untrusted(&x)
		}
	}
	return o
}

// ptrace decodes ptrace, process_vm_readv and process_vm_writev.
func (d *decoder) ptrace(g *bundle) {
	c := &d.call
	e, _ := d.add(event.KindPtrace, g.stamp).(*event.Ptrace)
	if e == nil {
		return
	}
	d.caller(&e.Header)
	e.Result = c.result()
	e.TargetUID = unset
	place := 0
	if e.Request = c.def.name; e.Request == "ptrace" {
		e.Request, place = event.PtraceRequest(c.args[0]), 1
	}
	if text, ok := g.find(typeObjPID); ok {
		o := d.object(text)
		e.TargetPID, e.TargetUID, e.TargetComm = o.pid, o.uid, o.comm
	} else if n := c.signed(place); e.Request == "traceme" {
		e.TargetPID = c.ppid
	} else if n > 0 {
		e.TargetPID = uint32(n)
	}
}

// signal decodes the calls that send signals: an event for each process that one went to.
func (d *decoder) signal(g *bundle) {
	c := &d.call
	sent := false
	for i := range g.records {
		if r := &g.records[i]; r.typ == typeObjPID {
			d.signalTo(g, d.object(g.of(r)))
			sent = true
		}
	}
	if sent {
		return
	}
	// Nobody was there to get it.
	o := object{uid: unset, auid: unset}
	if n := c.signed(0); n > 0 && c.def.name != "pidfd_send_signal" {
		o.pid = uint32(n)
	}
	d.signalTo(g, o)
}

func (d *decoder) signalTo(g *bundle, o object) {
	c := &d.call
	e, _ := d.add(event.KindSignal, g.stamp).(*event.Signal)
	if e == nil {
		return
	}
	d.caller(&e.Header)
	e.Signal = c.signed(int(c.def.signal))
	if name := unix.SignalName(unix.Signal(e.Signal)); name != "" {
		e.SignalName = name
	}
	e.Result, e.Syscall = c.result(), c.def.name
	if c.def.name != "pidfd_send_signal" {
		e.RequestedPID = c.signed(0)
	}
	e.TargetPID, e.TargetUID, e.TargetAUID, e.TargetComm = o.pid, o.uid, o.auid, o.comm
}

// module decodes init_module, finit_module and delete_module.
func (d *decoder) module(g *bundle) {
	c := &d.call
	e, _ := d.add(event.KindModule, g.stamp).(*event.Module)
	if e == nil {
		return
	}
	d.caller(&e.Header)
	e.Operation, e.Result, e.Syscall = "load", c.result(), c.def.name
	switch c.def.name {
	case "delete_module":
		e.Operation = "unload"
		flags := event.Flags{{unix.O_NONBLOCK, "O_NONBLOCK"}, {unix.O_TRUNC, "O_TRUNC"}}
		e.Flags = d.strings.get(flags.Append(nil, c.args[1]))
	case "finit_module":
		e.Flags = d.strings.get(event.ModuleFlags.Append(nil, c.args[2]))
	}
	text, ok := g.find(typeKernModule)
	if !ok {
		return
	}
	f := pairs{text}
	for x, ok := f.next(); ok; x, ok = f.next() {
		if string(x.key) == "name" {
			e.Name = d.untrusted(&x)
		}
	}
}

// mount decodes the calls that change mount trees. Audit tells the files that were looked
// up: the mount point, and the source where that is a file.
func (d *decoder) mount(g *bundle) {
	c := &d.call
	e, _ := d.add(event.KindMount, g.stamp).(*event.Mount)
	if e == nil {
		return
	}
	d.caller(&e.Header)
	e.Result, e.Syscall = c.result(), c.def.name
	d.paths(g)
	cwd := d.cwd(g)
	at := func(n int) string {
		if n < len(d.items) {
			return joined(cwd, d.items[n].name)
		}
		return ""
	}
	var names event.Flags
	var flags uint64
	switch c.def.name {
	case "mount":
		e.Operation, flags = event.MountOperation(c.args[3])
		names = event.MountFlags
		e.Target, e.Source = at(0), at(1)
	case "umount", "umount2":
		e.Operation = "umount"
		e.Target = at(0)
		if c.def.name == "umount2" {
			flags, names = c.args[1], event.UmountFlags
		}
	case "move_mount":
		e.Operation = "move"
		e.Source, e.Target = at(0), at(1)
		if len(d.items) == 1 { // the source was named by a descriptor: a new mount
			e.Operation, e.Source, e.Target = "mount", "", at(0)
		}
	case "mount_setattr":
		e.Operation = "attributes"
		e.Target = at(0)
	case "pivot_root":
		e.Operation = "pivot_root"
		e.Source, e.Target = at(0), at(1)
	}
	e.Flags = d.strings.get(names.Append(nil, flags))
}
