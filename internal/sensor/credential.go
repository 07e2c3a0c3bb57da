package sensor

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
)

// credential decodes rec_credential.
func (d *decoder) credential(raw []byte, b *event.Batch) error {
	r, err := fixed[bpf.GoshawkRecCredential](raw)
	if err != nil {
		return err
	}
	var operation string
	args := 0
	if has(&r.Head, bpf.GoshawkFlagFLAG_COMMITTED) {
		operation = "commit_creds"
		if c, ok := committing[int64(int32(r.Number))]; ok {
			operation, args = c.name, c.args
		}
	} else {
		c, ok := credentialCalls[bpf.GoshawkActCall(r.Call)]
		if !ok {
			return fmt.Errorf("%w, credential call %d", errValue, r.Call)
		}
		operation, args = c.name, c.args
	}
	e := b.Add(event.KindCredential).(*event.Credential)
	d.header(&e.Header, &r.Head)
	e.Operation, e.Result = operation, resultName(r.Result)
	var text []byte
	for i := range args {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, int64(int32(r.Args[i])), 10)
	}
	e.Argument = d.strings.get(text)
	e.OldUID, e.OldEUID, e.OldSUID, e.OldFSUID = r.Before.Uid, r.Before.Euid, r.Before.Suid, r.Before.Fsuid
	e.OldGID, e.OldEGID, e.OldSGID, e.OldFSGID = r.Before.Gid, r.Before.Egid, r.Before.Sgid, r.Before.Fsgid
	e.NewUID, e.NewEUID, e.NewSUID, e.NewFSUID = r.After.Uid, r.After.Euid, r.After.Suid, r.After.Fsuid
	e.NewGID, e.NewEGID, e.NewSGID, e.NewFSGID = r.After.Gid, r.After.Egid, r.After.Sgid, r.After.Fsgid
	e.OldPermitted, e.OldEffective = d.set(r.Before.Permitted), d.set(r.Before.Effective)
	e.NewPermitted, e.NewEffective = d.set(r.After.Permitted), d.set(r.After.Effective)
	e.NewInheritable, e.NewAmbient = d.set(r.After.Inheritable), d.set(r.After.Ambient)
	e.UID, e.EUID, e.GID, e.EGID = e.NewUID, e.NewEUID, e.NewGID, e.NewEGID
	return nil
}

// set prints a capability set as /proc/PID/status does.
func (d *decoder) set(n uint64) string {
	var b [16]byte
	for i := range b {
		b[i] = "0123456789abcdef"[n>>(60-4*i)&15]
	}
	return d.strings.get(b[:])
}

// credentialCall is a system call with how many of its arguments are numbers.
type credentialCall struct {
	name string
	args int
}

var credentialCalls = map[bpf.GoshawkActCall]credentialCall{
	bpf.GoshawkActCallACT_SETUID:    {"setuid", 1},
	bpf.GoshawkActCallACT_SETGID:    {"setgid", 1},
	bpf.GoshawkActCallACT_SETREUID:  {"setreuid", 2},
	bpf.GoshawkActCallACT_SETREGID:  {"setregid", 2},
	bpf.GoshawkActCallACT_SETRESUID: {"setresuid", 3},
	bpf.GoshawkActCallACT_SETRESGID: {"setresgid", 3},
	bpf.GoshawkActCallACT_SETFSUID:  {"setfsuid", 1},
	bpf.GoshawkActCallACT_SETFSGID:  {"setfsgid", 1},
	bpf.GoshawkActCallACT_SETGROUPS: {"setgroups", 1},
	bpf.GoshawkActCallACT_CAPSET:    {"capset", 0},
}

// committing are the system calls, by number, that put credentials in force.
var committing = map[int64]credentialCall{
	unix.SYS_SETUID: {"setuid", 1}, unix.SYS_SETGID: {"setgid", 1}, unix.SYS_SETREUID: {"setreuid", 2},
	unix.SYS_SETREGID: {"setregid", 2}, unix.SYS_SETRESUID: {"setresuid", 3}, unix.SYS_SETRESGID: {"setresgid", 3},
	unix.SYS_SETFSUID: {"setfsuid", 1}, unix.SYS_SETFSGID: {"setfsgid", 1}, unix.SYS_SETGROUPS: {"setgroups", 1},
	unix.SYS_CAPSET: {"capset", 0}, unix.SYS_EXECVE: {"exec", 0}, unix.SYS_EXECVEAT: {"exec", 0},
	unix.SYS_UNSHARE: {"unshare", 0}, unix.SYS_SETNS: {"setns", 0}, unix.SYS_PRCTL: {"prctl", 0},
	unix.SYS_KEYCTL: {"keyctl", 0},
}
