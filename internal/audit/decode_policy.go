package audit

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
)

// policy decodes what a security module or a seccomp filter decided:
//
//	avc:  denied  { read } for  pid=9 comm="x" name="y" scontext=… tcontext=… tclass=file permissive=0
//	apparmor="DENIED" operation="open" profile="p" name="/x" pid=9 comm="x" requested_mask="r" denied_mask="r"
//	auid=0 uid=0 gid=0 ses=1 pid=9 comm="x" exe="/x" sig=31 arch=c000003e syscall=2 compat=0 ip=0x7f code=0x80000000
//
// Daemons that enforce SELinux's policy for others (dbus, systemd) say such things in a
// message of theirs.
func (d *decoder) policy(g *bundle, typ uint16, text []byte, called bool) {
	if slices.Contains(d.opt.OmitModules, moduleOf(typ, text)) {
		d.count(event.KindPolicy, notAsked)
		return
	}
	e, _ := d.add(event.KindPolicy, g.stamp).(*event.Policy)
	if e == nil {
		return
	}
	e.Type, e.TypeNumber = typeName(typ), typ
	e.Message = string(plain(text))
	c := (*callRecord)(nil)
	if called {
		c = &d.call
		d.caller(&e.Header)
	}
	e.Module = moduleOf(typ, nil) // unless a field says another
	if said := d.policyFields(e, pairs{text}, c, false); said != nil {
		e.Fidelity = event.FidelityUser
		d.policyFields(e, pairs{said}, c, true)
	}
	if path, ok := g.find(typeAVCPath); ok {
		f := pairs{path}
		for x, ok := f.next(); ok; x, ok = f.next() {
			if string(x.key) == "path" {
				e.TargetPath = d.untrusted(&x)
			}
		}
	}
	if typ == typeSeccomp {
		d.seccomp(e, text)
	}
	nobody(&e.Header)
}

// moduleOf names the security module that a record is of, "" when that is not known by then.
// AppArmor speaks through the records of SELinux.
func moduleOf(typ uint16, text []byte) string {
	switch {
	case typ == typeSeccomp:
		return "seccomp"
	case typ == typeLandlock || typ == typeLandlockDom:
		return "landlock"
	case typ >= typeFirstAppArm && typ <= typeLastAppArm, bytes.Contains(text, apparmorIs):
		return "apparmor"
	case typ >= typeIPE && typ <= typeLastIPE:
		return "ipe"
	case typ >= typeFirstNetLabel && typ <= typeLastMAC:
		return "netlabel"
	case typ == typeSelinuxErr, typ >= typeFirstMAC && typ < typeFirstNetLabel, bytes.HasPrefix(text, avcIs):
		return "selinux"
	}
	return ""
}

var apparmorIs, avcIs = []byte("apparmor="), []byte("avc:")

// policyFields takes over the fields of a decision, and returns the message in it, if any.
// Who acted is not taken from what a program said.
func (d *decoder) policyFields(e *event.Policy, f pairs, c *callRecord, isSaid bool) (said []byte) {
	for x, ok := f.next(); ok; x, ok = f.next() {
		switch string(x.key) {
		case "":
			switch {
			case x.quote == '{':
				e.Operation = d.strings.get(x.value)
			case string(x.value) == "denied", string(x.value) == "granted":
				e.Result = string(x.value)
			case string(x.value) == "avc:" && e.Module == "":
				e.Module = "selinux"
			}
		case "msg":
			if x.quote == '\'' {
				said = x.value
			}
		case "pid", "uid", "gid", "auid", "ses", "comm", "exe", "tty":
			if !isSaid {
				d.actor(&e.Header, &x, c)
			} else if string(x.key) == "exe" {
				e.Path, _ = alive(d.strings.get(x.claimed(d.buf)))
			}
		case "permissive":
			if string(x.value) == "1" && e.Result == "denied" {
				e.Result = "permissive"
			}
		case "scontext":
			if e.Module == "" {
				e.Module = "selinux"
			}
			e.Subject = d.strings.get(x.value)
		case "profile", "subject":
			e.Subject = d.untrusted(&x)
		case "tcontext":
			e.Object = d.strings.get(x.value)
		case "peer", "object":
			e.Object = d.untrusted(&x)
		case "tclass", "class":
			e.ObjectClass = d.strings.get(x.value)
		case "path":
			e.TargetPath = d.untrusted(&x)
		case "name":
			if e.TargetPath == "" {
				e.TargetPath = d.untrusted(&x)
			}
		case "apparmor":
			e.Module, e.Result = "apparmor", strings.ToLower(d.untrusted(&x))
		case "lsm":
			e.Module = strings.ToLower(d.untrusted(&x))
		case "operation", "requested", "blockers", "op":
			e.Operation = d.strings.get(x.value)
			if string(x.key) == "blockers" {
				e.Result = "denied"
			}
		case "action":
			e.Result = d.strings.get(x.value)
		case "res":
			e.Result = outcome(x.value)
		}
	}
	return said
}

// seccomp names the call and the action of a seccomp filter.
func (d *decoder) seccomp(e *event.Policy, text []byte) {
	var arch, code uint64
	nr := int64(-1)
	f := pairs{text}
	for x, ok := f.next(); ok; x, ok = f.next() {
		switch string(x.key) {
		case "arch":
			arch, _ = hexNumber(x.value)
		case "syscall":
			nr, _ = integer(x.value)
		case "code":
			code, _ = hexNumber(x.value)
		}
	}
	if e.Operation = callName(uint32(arch), uint64(nr)); e.Operation == "" && nr >= 0 {
		e.Operation = strconv.FormatInt(nr, 10)
	}
	if e.Result = actions[code&0xffff0000]; e.Result == "" {
		e.Result = "0x" + strconv.FormatUint(code, 16)
	}
	e.ObjectClass = ""
}

// actions are those of linux/seccomp.h; the lower half of a code is data.
var actions = map[uint64]string{
	0x80000000: "kill_process", 0x00000000: "kill_thread", 0x00030000: "trap", 0x00050000: "errno",
	0x7fc00000: "user_notif", 0x7ff00000: "trace", 0x7ffc0000: "log", 0x7fff0000: "allow",
}
