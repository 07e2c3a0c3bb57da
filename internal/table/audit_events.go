package table

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// userEvents is osquery's user_events, with what it loses: account and result, logins by
// the kernel's word (LOGIN), and the anomalies and responses from 1700 on.
func userEvents() *eventTable {
	return &eventTable{
		name:    "user_events",
		doc:     "Logins, authentication, sessions, accounts and services, as the audit subsystem tells them",
		kinds:   []event.ID{event.KindUser},
		columns: [][]event.Column{over(slices.Concat(userEventColumns, additions[*event.User](), additionalTime[*event.User]()))},
	}
}

var userEventColumns = []schema.Column[*event.User]{
	schema.Int("uid", func(e *event.User) *uint32 { return &e.UID }, "User of the process that told it", schema.OmitUnset).From("uid"),
	schema.Int("auid", func(e *event.User) *uint32 { return &e.AUID }, "Login user, 4294967295 when none logged in").From("auid"),
	schema.Int("pid", func(e *event.User) *uint32 { return &e.PID }, "Process that told it").From("pid"),
	schema.Calc("message", schema.Text, said, "What the program said, whole").From("message"),
	schema.Int("type", func(e *event.User) *uint16 { return &e.TypeNumber }, "Number of the record's type").As(schema.Integer).From("type_number"),
	schema.Str("path", func(e *event.User) *string { return &e.Path }, "Executable of the process").From("path"),
	schema.Str("address", func(e *event.User) *string { return &e.Address }, "Address that it came from").From("address"),
	schema.Str("terminal", func(e *event.User) *string { return &e.Terminal }, "Terminal, or the service that stands for one").From("terminal"),
	schema.Time("time", func(e *event.User) *int64 { return &e.Time }, "When it happened, unix seconds from the kernel's clock", schema.Additional).From("time"),
	schema.Calc("uptime", schema.BigInt, func(e *event.User) schema.Value { return uptimeOf(&e.Header) }, "When it happened, seconds since boot").From("ntime"),
	schema.Calc("eid", schema.Text, func(e *event.User) schema.Value { return eidText(&e.Header) }, "Number of the event, ten digits or more", schema.Hidden).From("eid"),
	schema.Str("type_name", func(e *event.User) *string { return &e.Type }, "Name of the record's type", schema.Hidden).From("type"),
	schema.Str("operation", func(e *event.User) *string { return &e.Operation }, "What was done", schema.Hidden).From("operation"),
	schema.Str("account", func(e *event.User) *string { return &e.Account }, "Account it was done to or for", schema.Hidden).From("account"),
	schema.Int("account_uid", func(e *event.User) *uint32 { return &e.AccountUID }, "Number of that account", schema.Hidden, schema.OmitUnset).From("account_uid"),
	schema.Str("result", func(e *event.User) *string { return &e.Result }, "success or failed", schema.Hidden).From("result"),
	schema.Str("hostname", func(e *event.User) *string { return &e.Hostname }, "Host that it came from", schema.Hidden).From("hostname"),
	schema.Str("command", func(e *event.User) *string { return &e.Command }, "Command that was run or typed", schema.Hidden).From("command"),
	schema.Int("session_id", func(e *event.User) *uint32 { return &e.Session }, "Audit session, 4294967295 when none", schema.Hidden).From("session_id"),
}

// said is the message in a record, or all of a record that holds none.
func said(e *event.User) schema.Value {
	_, text, found := strings.Cut(e.Message, "msg='")
	if !found {
		return schema.TextValue(e.Message)
	}
	if end := strings.LastIndexByte(text, '\''); end >= 0 {
		text = text[:end]
	}
	return schema.TextValue(strings.TrimSpace(text))
}

// policyTable is a table over what one security module, or several, decided.
func policyTable(name, doc string, columns []schema.Column[*event.Policy], modules ...string) *eventTable {
	return &eventTable{
		name: name, doc: doc,
		kinds:    []event.ID{event.KindPolicy},
		columns:  [][]event.Column{over(slices.Concat(columns, additions[*event.Policy](), additionalTime[*event.Policy]()))},
		keep:     func(e event.Event) bool { return slices.Contains(modules, e.(*event.Policy).Module) },
		keepUses: []string{"module"},
	}
}

// selinuxEvents has, beyond osquery's, the decisions of daemons (USER_AVC).
func selinuxEvents() *eventTable {
	return policyTable("selinux_events", "What SELinux decided, and changes of its policy, as the audit subsystem tells them",
		slices.Concat(policyColumns, policyDecision), "selinux", "netlabel")
}

var policyColumns = []schema.Column[*event.Policy]{
	schema.Str("type", func(e *event.Policy) *string { return &e.Type }, "Type of the record").From("type"),
	schema.Str("message", func(e *event.Policy) *string { return &e.Message }, "The whole text").From("message"),
	policyTime,
	policyUptime,
	schema.Calc("eid", schema.Text, func(e *event.Policy) schema.Value { return eidText(&e.Header) }, "Number of the event, ten digits or more", schema.Hidden).From("eid"),
}

var (
	policyTime = schema.Time("time", func(e *event.Policy) *int64 { return &e.Time }, "When it happened, unix seconds from the kernel's clock", schema.Additional).From("time")

	policyUptime = schema.Calc("uptime", schema.BigInt, func(e *event.Policy) schema.Value { return uptimeOf(&e.Header) }, "When it happened, seconds since boot").From("ntime")
)

var policyDecision = []schema.Column[*event.Policy]{
	schema.Str("result", func(e *event.Policy) *string { return &e.Result }, "denied, granted, permissive or the like", schema.Hidden).From("result"),
	schema.Str("permissions", func(e *event.Policy) *string { return &e.Operation }, "What was asked for", schema.Hidden).From("operation"),
	schema.Str("subject", func(e *event.Policy) *string { return &e.Subject }, "Context of the process", schema.Hidden).From("subject"),
	schema.Str("object", func(e *event.Policy) *string { return &e.Object }, "Context of what it acted upon", schema.Hidden).From("object"),
	schema.Str("object_class", func(e *event.Policy) *string { return &e.ObjectClass }, "Class of what it acted upon", schema.Hidden).From("object_class"),
	schema.Int("pid", func(e *event.Policy) *uint32 { return &e.PID }, "Process", schema.Hidden).From("pid"),
	schema.Str("path", func(e *event.Policy) *string { return &e.Path }, "Executable of the process", schema.Hidden).From("path"),
}

func apparmorEvents() *eventTable {
	text := func(name, key, doc string) schema.Column[*event.Policy] {
		return schema.Calc(name, schema.Text, func(e *event.Policy) schema.Value {
			v, _ := auditField(e.Message, key)
			return schema.TextValue(v)
		}, doc).From("message")
	}
	number := func(name, key string, t schema.Type, doc string) schema.Column[*event.Policy] {
		return schema.Calc(name, t, func(e *event.Policy) schema.Value {
			if v, ok := auditField(e.Message, key); ok {
				if n, err := strconv.ParseInt(v, 10, 64); err == nil {
					return schema.IntValue(n)
				}
			}
			return schema.Null
		}, doc).From("message")
	}
	return policyTable("apparmor_events", "What AppArmor decided, as the audit subsystem tells it", slices.Concat(policyColumns, []schema.Column[*event.Policy]{
		text("apparmor", "apparmor", "What became of it: ALLOWED, DENIED, AUDIT, STATUS and so on"),
		text("operation", "operation", "What was asked for"),
		number("parent", "parent", schema.UnsignedBigInt, "Parent of the process, where the record has it"),
		text("profile", "profile", "Profile of the process"),
		text("name", "name", "File or other object that it acted upon"),
		schema.Int("pid", func(e *event.Policy) *uint32 { return &e.PID }, "Process").As(schema.UnsignedBigInt).From("pid"),
		schema.Str("comm", func(e *event.Policy) *string { return &e.Comm }, "Name of the process").From("comm"),
		text("denied_mask", "denied_mask", "Permissions that were denied"),
		text("capname", "capname", "Name of the capability asked for"),
		number("fsuid", "fsuid", schema.UnsignedBigInt, "File system user of the process"),
		number("ouid", "ouid", schema.UnsignedBigInt, "Owner of the object"),
		number("capability", "capability", schema.BigInt, "Number of the capability asked for"),
		text("requested_mask", "requested_mask", "Permissions that were asked for"),
		text("info", "info", "More about it"),
		text("error", "error", "Error that it ended with"),
		text("namespace", "namespace", "Namespace of the profile"),
		text("label", "label", "Label of the process"),
		schema.Str("path", func(e *event.Policy) *string { return &e.Path }, "Executable of the process", schema.Hidden).From("path"),
	}), "apparmor")
}

func seccompEvents() *eventTable {
	return policyTable("seccomp_events", "What seccomp filters decided, as the audit subsystem tells it", []schema.Column[*event.Policy]{
		policyTime,
		policyUptime,
		schema.Int("auid", func(e *event.Policy) *uint32 { return &e.AUID }, "Login user, 4294967295 when none logged in").As(schema.UnsignedBigInt).From("auid"),
		schema.Int("uid", func(e *event.Policy) *uint32 { return &e.UID }, "User").As(schema.UnsignedBigInt).From("uid"),
		schema.Int("gid", func(e *event.Policy) *uint32 { return &e.GID }, "Group").As(schema.UnsignedBigInt).From("gid"),
		schema.Int("ses", func(e *event.Policy) *uint32 { return &e.Session }, "Audit session, 4294967295 when none").As(schema.UnsignedBigInt).From("session_id"),
		schema.Int("pid", func(e *event.Policy) *uint32 { return &e.PID }, "Process").As(schema.UnsignedBigInt).From("pid"),
		schema.Str("comm", func(e *event.Policy) *string { return &e.Comm }, "Name of the process").From("comm"),
		schema.Str("exe", func(e *event.Policy) *string { return &e.Path }, "Executable of the process").From("path"),
		seccompNumber("sig", "Signal that it got, 0 for none"),
		schema.Calc("arch", schema.Text, seccompArch, "Architecture of the call").From("message"),
		schema.Str("syscall", func(e *event.Policy) *string { return &e.Operation }, "Name of the system call, or its number").From("operation"),
		seccompNumber("compat", "1 for a call of another architecture than the kernel's"),
		schema.Calc("ip", schema.Text, func(e *event.Policy) schema.Value {
			v, _ := auditField(e.Message, "ip")
			return schema.TextValue(v)
		}, "Where the call was made, a hexadecimal address").From("message"),
		schema.Calc("code", schema.Text, func(e *event.Policy) schema.Value { return schema.TextValue(strings.ToUpper(e.Result)) }, "What the filter answered: KILL_PROCESS, ERRNO, LOG and so on").From("result"),
		schema.Calc("eid", schema.Text, func(e *event.Policy) schema.Value { return eidText(&e.Header) }, "Number of the event, ten digits or more", schema.Hidden).From("eid"),
	}, "seccomp")
}

func seccompNumber(name, doc string) schema.Column[*event.Policy] {
	return schema.Calc(name, schema.BigInt, func(e *event.Policy) schema.Value {
		v, _ := auditField(e.Message, name)
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return schema.Null
		}
		return schema.IntValue(n)
	}, doc).From("message")
}

// seccompArch names an AUDIT_ARCH_* (linux/audit.h) as osquery does.
func seccompArch(e *event.Policy) schema.Value {
	v, _ := auditField(e.Message, "arch")
	if name := map[string]string{"c000003e": "X86_64", "40000003": "I386", "c00000b7": "AARCH64", "40000028": "ARM"}[v]; name != "" {
		return schema.TextValue(name)
	}
	return schema.TextValue(v)
}

// auditField reads a field of an audit record: key=value, key="value", or for text that a
// stranger could choose and that quotes could not hold, hexadecimal digits.
func auditField(record, key string) (value string, ok bool) {
	for record != "" {
		word := record
		if i := strings.IndexAny(record, " =\""); i >= 0 {
			word = record[:i]
		}
		record = record[len(word):]
		if !strings.HasPrefix(record, "=") {
			record = strings.TrimLeft(record, " \"")
			continue
		}
		quoted := false
		if record = record[1:]; strings.HasPrefix(record, `"`) {
			quoted = true
			value, record, _ = strings.Cut(record[1:], `"`)
		} else {
			value, record, _ = strings.Cut(record, " ")
		}
		record = strings.TrimLeft(record, " ")
		if word != key {
			continue
		}
		switch key {
		case "name", "profile", "comm", "info", "label", "namespace":
			if b, err := hex.DecodeString(value); err == nil && !quoted {
				return string(b), true
			}
		}
		return value, true
	}
	return "", false
}

// processFileEvents is osquery's process_file_events. Of a file that is opened, audit tells
// how, and not whether it is written to then.
func processFileEvents(o EventOptions) *eventTable {
	return &eventTable{
		name:     "process_file_events",
		doc:      "Files opened for writing, changed, renamed and deleted, and by whom",
		kinds:    []event.ID{event.KindFile},
		columns:  [][]event.Column{over(slices.Concat(processFileColumns, additions[*event.File](), additionalTime[*event.File]()))},
		keep:     o.keepFile,
		keepUses: []string{"operation", "argument", "result"},
	}
}

// keepFile reports whether osquery's table shows e: what succeeded, and no mere accesses.
func (o EventOptions) keepFile(e event.Event) bool {
	f := e.(*event.File)
	if f.Result != "ok" && f.Result != "" {
		return false
	}
	return o.ShowAccesses || f.Operation != "open" || !strings.HasPrefix(f.Argument, "O_RDONLY") || strings.Contains(f.Argument, "O_TRUNC")
}

var processFileColumns = []schema.Column[*event.File]{
	schema.Calc("operation", schema.Text, fileOperation, "What was done: open, open+truncate, write, truncate, unlink, rename, link, symlink, create (of no plain file), chmod, chown, setxattr and so on").From("operation", "argument", "syscall", "mode"),
	schema.Int("pid", func(e *event.File) *uint32 { return &e.PID }, "Process").From("pid"),
	schema.Int("ppid", func(e *event.File) *uint32 { return &e.PPID }, "Parent of the process").From("ppid"),
	schema.Time("time", func(e *event.File) *int64 { return &e.Time }, "When it happened, unix seconds from the kernel's clock", schema.Additional).From("time"),
	schema.Str("executable", func(e *event.File) *string { return &e.Path }, "Executable of the process").From("path"),
	schema.Calc("partial", schema.Text, func(*event.File) schema.Value { return schema.TextValue("false") }, "false: nothing is pieced together from earlier events, as osquery does"),
	schema.Str("cwd", func(e *event.File) *string { return &e.Cwd }, "Working directory").From("cwd"),
	schema.Str("path", func(e *event.File) *string { return &e.TargetPath }, "File acted upon").From("target_path"),
	schema.Str("dest_path", func(e *event.File) *string { return &e.DestinationPath }, "New name: of rename, link and symlink").From("destination_path"),
	idText("uid", func(e *event.File) uint32 { return e.UID }, "Real user"),
	idText("gid", func(e *event.File) uint32 { return e.GID }, "Real group"),
	schema.Calc("auid", schema.Text, func(e *event.File) schema.Value { return schema.TextValue(strconv.FormatUint(uint64(e.AUID), 10)) }, "Login user, 4294967295 when none logged in").From("auid"),
	idText("euid", func(e *event.File) uint32 { return e.EUID }, "Effective user"),
	idText("egid", func(e *event.File) uint32 { return e.EGID }, "Effective group"),
	idText("fsuid", func(e *event.File) uint32 { return e.FSUID }, "File system user"),
	idText("fsgid", func(e *event.File) uint32 { return e.FSGID }, "File system group"),
	idText("suid", func(e *event.File) uint32 { return e.SUID }, "Saved user"),
	idText("sgid", func(e *event.File) uint32 { return e.SGID }, "Saved group"),
	schema.Calc("uptime", schema.BigInt, func(e *event.File) schema.Value { return uptimeOf(&e.Header) }, "When it happened, seconds since boot").From("ntime"),
	schema.Calc("eid", schema.Text, func(e *event.File) schema.Value { return eidText(&e.Header) }, "Number of the event, ten digits or more", schema.Hidden).From("eid"),
	schema.Str("category", func(e *event.File) *string { return &e.Category }, "Name of the watch that asked for this file", schema.Hidden).From("category"),
	schema.Str("argument", func(e *event.File) *string { return &e.Argument }, "What was asked for: flags of open, mode of chmod and so on", schema.Hidden).From("argument"),
}

// idText is a user or group as text, which osquery makes of these here; empty when unknown.
func idText(name string, id func(*event.File) uint32, doc string) schema.Column[*event.File] {
	return schema.Calc(name, schema.Text, func(e *event.File) schema.Value {
		n := id(e)
		if n == event.Unset {
			return schema.TextValue("")
		}
		return schema.TextValue(strconv.FormatUint(uint64(n), 10))
	}, doc).From(name)
}

// fileOperation is the operation in osquery's words.
func fileOperation(e *event.File) schema.Value {
	switch e.Operation {
	case "delete":
		return schema.TextValue("unlink")
	case "create":
		if e.Syscall != "" && !strings.Contains(e.Syscall, "open") && e.Syscall != "creat" ||
			e.Syscall == "" && e.Mode&unix.S_IFMT != unix.S_IFREG && e.Mode != 0 {
			return schema.TextValue("create") // a directory, a device …
		}
		return schema.TextValue("open")
	case "open":
		if strings.Contains(e.Argument, "O_TRUNC") {
			return schema.TextValue("open+truncate")
		}
	}
	return schema.TextValue(e.Operation)
}
