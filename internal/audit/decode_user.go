package audit

import (
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
)

// single decodes a record that is an event by itself.
func (d *decoder) single(s stamp, typ uint16, text []byte) {
	switch {
	case typ == typeUserAVC, typ == typeSeccomp, typ >= typeFirstMAC && typ <= typeLastMAC:
		d.policy(&bundle{stamp: s}, typ, text, false)
	case typ == recUser, typ == typeLogin, typ >= typeFirstUser && typ <= typeLastDaemon, typ == typeTTY,
		typ >= typeFirstAnom && typ <= typeLastInteg, typ >= typeFirstAnomUsr && typ <= typeLastUserRes:
		d.user(s, typ, text, nil)
		if typ == typeAnomAbend {
			d.abend(s, text)
		}
	default:
		d.count(0, noKind)
	}
}

// configured decodes a change of audit's own configuration. Ours are no news.
func (d *decoder) configured(g *bundle, typ uint16, text []byte, called bool) {
	if !called {
		if d.opt.Own != nil && d.opt.Own(changeOf(text)) {
			d.count(event.KindUser, ownChange)
			return
		}
		d.user(g.stamp, typ, text, nil)
		return
	}
	if d.opt.Self != 0 && d.call.pid == d.opt.Self {
		d.count(event.KindUser, ownChange)
		return
	}
	d.user(g.stamp, typ, text, &d.call)
}

// changeOf names a change of audit's configuration: what was done with a rule of our key, or
// with one that leaves out records and can have no key, or the setting and its value.
func changeOf(text []byte) string {
	op, setting, ours, keyless := "", "", false, false
	f := pairs{text}
	for x, ok := f.next(); ok; x, ok = f.next() {
		switch key := string(x.key); {
		case key == "op":
			op = strings.ReplaceAll(string(x.value), " ", "_")
		case key == "key":
			ours = string(x.value) == Key
			keyless = string(x.value) == "(null)"
		case key == "list":
			ours = ours || keyless && string(x.value) == "5" // listExclude
		case setting == "" && strings.HasPrefix(key, "audit_"):
			setting = key + "=" + string(x.value)
		}
	}
	switch {
	case setting != "" && (op == "" || op == "set"):
		return setting
	case ours:
		return op
	}
	return ""
}

// user decodes what users and those who serve them did: records that programs with
// CAP_AUDIT_WRITE write, and the kernel's about logins, anomalies and its auditing.
//
//	pid=1 uid=0 auid=4294967295 ses=4294967295 msg='unit=cron comm="systemd" exe="/x" hostname=? addr=? terminal=? res=success'
//
// The kernel writes what comes before msg, of which programs can change nothing.
func (d *decoder) user(s stamp, typ uint16, text []byte, c *callRecord) {
	e, _ := d.add(event.KindUser, s).(*event.User)
	if e == nil {
		return
	}
	e.Type, e.TypeNumber = typeName(typ), typ
	e.AccountUID = unset
	e.Message = string(plain(text))
	if c != nil {
		d.caller(&e.Header)
	}
	said := pairs{}
	f := pairs{text}
	for x, ok := f.next(); ok; x, ok = f.next() {
		if x.quote == '\'' && string(x.key) == "msg" {
			said.rest = x.value
			continue
		}
		switch string(x.key) {
		case "pid", "uid", "gid", "auid", "ses", "comm", "exe", "tty":
			d.actor(&e.Header, &x, c)
			if typ == typeLogin && string(x.key) == "auid" {
				e.AccountUID = uid(x.value) // of two the last, which holds from now on
			}
		default:
			d.userField(e, &x)
		}
	}
	if typ >= typeFirstUser && typ <= typeLastDaemon || typ >= typeFirstAnomUsr {
		e.Fidelity = event.FidelityUser
	}
	d.userSaid(e, said)
	if e.Operation == "" {
		e.Operation = operations[typ]
	}
	if e.Terminal == "" {
		e.Terminal = e.TTY
	}
	nobody(&e.Header)
}

// nobody says of an event of no known process that nobody is logged in.
func nobody(h *event.Header) {
	if h.PID == 0 && h.Session == 0 {
		h.AUID, h.Session = unset, unset
	}
}

// operations stand in where a record does not say what was done.
var operations = map[uint16]string{
	typeLogin: "login", 1112: "login", 1113: "logout", 1123: "command", 1130: "start", 1131: "stop",
	1124: "input", typeTTY: "input", typeAnomAbend: "abend", 1127: "boot", 1128: "shutdown", 1129: "runlevel",
	1200: "start", 1201: "end", 1202: "abort", 1203: "reconfigure", 1204: "reopen", 1205: "rotate", 1206: "resume",
}

// actor takes over who acted, from the part of a record that the kernel wrote. What the
// SYSCALL record of the event says stands.
func (d *decoder) actor(h *event.Header, x *pair, c *callRecord) {
	if c != nil {
		return
	}
	switch string(x.key) {
	case "pid":
		if n := uid(x.value); n != unset {
			h.PID = n
		}
	case "uid":
		h.UID = uid(x.value)
	case "gid":
		h.GID = uid(x.value)
	case "auid":
		h.AUID = uid(x.value)
		if h.Session == 0 {
			h.Session = unset // told further on, but for old kernels
		}
	case "ses":
		h.Session = uid(x.value)
	case "comm":
		h.Comm = d.untrusted(x)
	case "exe":
		h.Path, _ = alive(d.untrusted(x))
	case "tty":
		h.TTY = d.tty(x.value)
	}
}

// userField takes over one field of what was done.
func (d *decoder) userField(e *event.User, x *pair) {
	text := func() string { return d.strings.get(x.claimed(d.buf)) }
	switch string(x.key) {
	case "op":
		e.Operation = text()
	case "acct":
		if e.Account = text(); e.Account == "?" {
			e.Account = ""
		}
	case "id":
		if n, ok := integer(x.value); ok && n >= 0 && n < unset {
			e.AccountUID = uint32(n)
		}
	case "unit", "grp", "dev", "name", "path":
		if e.Object == "" {
			e.Object = text()
		}
	case "cmd":
		e.Command = text()
	case "data":
		if b, ok := unhex(d.text[:0], x.value); ok && x.quote == 0 {
			d.text = b
			e.Command = string(b)
		} else {
			e.Command = text()
		}
	case "hostname":
		e.Hostname = text()
	case "addr":
		e.Address = text()
	case "terminal":
		e.Terminal = d.tty(x.value)
		if x.quote != 0 {
			e.Terminal = text()
		}
	case "res", "result":
		e.Result = outcome(x.value)
	}
}

// userSaid reads the message of a program. An operation may be several words, and in
// messages of old it comes first, without a key:
//
//	op=adding user id=1001 exe="/usr/sbin/useradd" hostname=? addr=? terminal=pts/0 res=success
//	PAM: authentication acct="root" : exe="/usr/sbin/sshd" (hostname=::1, addr=::1, terminal=ssh res=success)
func (d *decoder) userSaid(e *event.User, f pairs) {
	b := d.words[:0] // of the operation
	inOperation, first := true, true
	for x, ok := f.next(); ok; x, ok = f.next() {
		switch {
		case len(x.key) == 0 && x.quote == 0:
			if inOperation && string(x.value) != ":" {
				if len(b) > 0 && b[len(b)-1] != ':' {
					b = append(b, ' ')
				}
				b = append(b, x.value...)
			}
			continue
		case string(x.key) == "op" && first:
			b = append(b[:0], x.claimed(d.buf)...)
			first = false
			continue
		}
		inOperation, first = false, false
		switch string(x.key) {
		case "exe":
			if e.Path == "" {
				e.Path, _ = alive(d.strings.get(x.claimed(d.buf)))
			}
		case "comm":
			if e.Comm == "" {
				e.Comm = d.strings.get(x.claimed(d.buf))
			}
		default:
			d.userField(e, &x)
		}
	}
	if len(b) > 0 {
		e.Operation = d.strings.get(b)
	}
	d.words = b
}

// plain is a record without what auditd added in the log.
func plain(text []byte) []byte {
	for i, c := range text {
		if c == enriched {
			return text[:i]
		}
	}
	return text
}

// outcome says success or failed, as most records do.
func outcome(b []byte) string {
	switch string(b) {
	case "1", "yes", "success":
		return "success"
	case "0", "no", "failed":
		return "failed"
	}
	return string(b)
}

// abend decodes the end of a process by a signal that dumps core, which makes no call.
func (d *decoder) abend(s stamp, text []byte) {
	e, _ := d.add(event.KindExit, s).(*event.Exit)
	if e == nil {
		return
	}
	e.DurationNs, e.UserNs, e.SystemNs, e.MaxRSS = event.Missing, event.Missing, event.Missing, event.Missing
	f := pairs{text}
	for x, ok := f.next(); ok; x, ok = f.next() {
		if string(x.key) == "sig" {
			n, _ := integer(x.value)
			e.Signal = int32(n)
			continue
		}
		d.actor(&e.Header, &x, nil)
	}
}
