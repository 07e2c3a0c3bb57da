package event

import (
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// Unset is the kernel's (uid_t)-1: no user, no group, no login.
const Unset = 1<<32 - 1

// Credential is a process changing who it is: by set*id(2), setgroups(2) or capset(2), or
// by executing a file that gives it more (set-user-ID, file capabilities). The header holds
// the users and groups afterwards.
//
// Users and groups that are not known are Unset, capability sets that are not known empty.
type Credential struct {
	Header
	Operation string // the call without its 32: setuid, setresgid, capset …; exec
	Argument  string // numbers that the call was given, with commas; -1 leaves one alone
	Result    string // "ok" or an errno's name

	OldUID, OldEUID, OldSUID, OldFSUID uint32
	OldGID, OldEGID, OldSGID, OldFSGID uint32
	NewUID, NewEUID, NewSUID, NewFSUID uint32
	NewGID, NewEGID, NewSGID, NewFSGID uint32

	// Capability sets as /proc/PID/status has them: 16 hexadecimal digits.
	OldPermitted, OldEffective                             string
	NewPermitted, NewEffective, NewInheritable, NewAmbient string
}

// Reset empties e for use again.
func (e *Credential) Reset() { *e = Credential{} }

var credentialKind = kindOf[Credential](Kind{
	ID: KindCredential, Table: "credential_events", Critical: true,
	Doc: "Processes that changed their users, groups or capabilities",
	Columns: columns(
		schema.Str("operation", func(e *Credential) *string { return &e.Operation }, "System call that asked for it (setuid, setresgid, capset and so on), or exec"),
		schema.Str("argument", func(e *Credential) *string { return &e.Argument }, "Numbers that the call was given, joined by commas; -1 leaves one as it is"),
		schema.Str("result", func(e *Credential) *string { return &e.Result }, "ok, or the error's name"),
		schema.Int("old_uid", func(e *Credential) *uint32 { return &e.OldUID }, "Real user before", schema.OmitUnset),
		schema.Int("old_euid", func(e *Credential) *uint32 { return &e.OldEUID }, "Effective user before", schema.OmitUnset),
		schema.Int("old_suid", func(e *Credential) *uint32 { return &e.OldSUID }, "Saved user before", schema.OmitUnset),
		schema.Int("old_fsuid", func(e *Credential) *uint32 { return &e.OldFSUID }, "File system user before", schema.OmitUnset),
		schema.Int("old_gid", func(e *Credential) *uint32 { return &e.OldGID }, "Real group before", schema.OmitUnset),
		schema.Int("old_egid", func(e *Credential) *uint32 { return &e.OldEGID }, "Effective group before", schema.OmitUnset),
		schema.Int("old_sgid", func(e *Credential) *uint32 { return &e.OldSGID }, "Saved group before", schema.OmitUnset),
		schema.Int("old_fsgid", func(e *Credential) *uint32 { return &e.OldFSGID }, "File system group before", schema.OmitUnset),
		schema.Int("new_uid", func(e *Credential) *uint32 { return &e.NewUID }, "Real user after", schema.OmitUnset),
		schema.Int("new_euid", func(e *Credential) *uint32 { return &e.NewEUID }, "Effective user after", schema.OmitUnset),
		schema.Int("new_suid", func(e *Credential) *uint32 { return &e.NewSUID }, "Saved user after", schema.OmitUnset),
		schema.Int("new_fsuid", func(e *Credential) *uint32 { return &e.NewFSUID }, "File system user after", schema.OmitUnset),
		schema.Int("new_gid", func(e *Credential) *uint32 { return &e.NewGID }, "Real group after", schema.OmitUnset),
		schema.Int("new_egid", func(e *Credential) *uint32 { return &e.NewEGID }, "Effective group after", schema.OmitUnset),
		schema.Int("new_sgid", func(e *Credential) *uint32 { return &e.NewSGID }, "Saved group after", schema.OmitUnset),
		schema.Int("new_fsgid", func(e *Credential) *uint32 { return &e.NewFSGID }, "File system group after", schema.OmitUnset),
		schema.Str("old_permitted", func(e *Credential) *string { return &e.OldPermitted }, "Permitted capabilities before, hexadecimal"),
		schema.Str("old_effective", func(e *Credential) *string { return &e.OldEffective }, "Effective capabilities before, hexadecimal"),
		schema.Str("new_permitted", func(e *Credential) *string { return &e.NewPermitted }, "Permitted capabilities after, hexadecimal"),
		schema.Str("new_effective", func(e *Credential) *string { return &e.NewEffective }, "Effective capabilities after, hexadecimal"),
		schema.Str("new_inheritable", func(e *Credential) *string { return &e.NewInheritable }, "Inheritable capabilities after, hexadecimal"),
		schema.Str("new_ambient", func(e *Credential) *string { return &e.NewAmbient }, "Ambient capabilities after, hexadecimal"),
		schema.Calc("capabilities_gained", schema.Text, gained, "Names of the permitted capabilities that it did not have before, joined by commas").From("old_permitted", "new_permitted"),
	),
})

func gained(e *Credential) schema.Value {
	before, err1 := strconv.ParseUint(e.OldPermitted, 16, 64)
	after, err2 := strconv.ParseUint(e.NewPermitted, 16, 64)
	if err1 != nil || err2 != nil {
		return schema.TextValue("")
	}
	return schema.TextValue(Capabilities(after &^ before))
}

// Capabilities names the members of a set, lowest first, with commas.
func Capabilities(set uint64) string {
	var b strings.Builder
	if set>>63 != 0 { // kernels before 3.16 fill the set up
		set &= 1<<len(capabilities) - 1
	}
	for i := range 64 {
		if set>>i&1 == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		if i < len(capabilities) {
			b.WriteString(capabilities[i])
		} else {
			b.WriteString("cap_" + strconv.Itoa(i))
		}
	}
	return b.String()
}

// capabilities are the names of linux/capability.h, by number.
var capabilities = [...]string{
	"cap_chown", "cap_dac_override", "cap_dac_read_search", "cap_fowner", "cap_fsetid", "cap_kill", "cap_setgid",
	"cap_setuid", "cap_setpcap", "cap_linux_immutable", "cap_net_bind_service", "cap_net_broadcast", "cap_net_admin",
	"cap_net_raw", "cap_ipc_lock", "cap_ipc_owner", "cap_sys_module", "cap_sys_rawio", "cap_sys_chroot",
	"cap_sys_ptrace", "cap_sys_pacct", "cap_sys_admin", "cap_sys_boot", "cap_sys_nice", "cap_sys_resource",
	"cap_sys_time", "cap_sys_tty_config", "cap_mknod", "cap_lease", "cap_audit_write", "cap_audit_control",
	"cap_setfcap", "cap_mac_override", "cap_mac_admin", "cap_syslog", "cap_wake_alarm", "cap_block_suspend",
	"cap_audit_read", "cap_perfmon", "cap_bpf", "cap_checkpoint_restore",
}
